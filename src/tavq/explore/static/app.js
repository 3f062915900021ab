// The page's frame: head, search, views by address, theme, keys and help.

import { html, render, useEffect, useErrorBoundary, useRef, useState } from "./vendor/htm-preact.js";
import { Answer, Empty, Failure, Loading, useFocusOnChange } from "./parts.js";
import { go, link, useRoute } from "./route.js";
import { CodesView, MapView } from "./codes.js";
import { CodeView } from "./code.js";
import { CompareCodesView, CompareModelsView } from "./compare.js";
import { GameView } from "./game.js";
import { ImageView } from "./image.js";
import { ImagesView, SearchView } from "./images.js";
import { OverviewView } from "./overview.js";
import { PinBar } from "./pins.js";
import { UnitImagesView, UnitView, UnitsView } from "./units.js";
import { openEdit } from "./edit.js";

const KEYS = [
  ["/", "type a word"], ["o", "overview"], ["c", "codes"], ["w", "words"], ["i", "images"], ["m", "map"],
  ["p and n", "the code or page before and after"], ["d", "light or dark"], ["Ctrl Z", "undo an edit; with Shift, redo"], ["?", "these keys"],
];

/** The model and level that an address names, or those that were shown last. */
function usePlace(overview, parts) {
  const last = useRef({ model: overview.models[0], level: null });
  if (parts[0] === "m") {
    const named = overview.models.find((one) => one.id === parts[1]);
    if (named !== undefined) last.current = { model: named, level: last.current.level };
    const level = last.current.model.levels.find((one) => one.name === parts[2]);
    if (level !== undefined) last.current = { ...last.current, level };
  }
  const { model, level } = last.current;
  return { model, level: model.levels.find((one) => one.name === level?.name) ?? model.levels.at(-1) };
}

function View({ overview, model, level, parts, query }) {
  const [head, ...rest] = parts;
  if (head === undefined) return html`<${OverviewView} overview=${overview} model=${model} level=${level.name} />`;
  if (head === "units" && rest.length === 1) return html`<${UnitsView} overview=${overview} model=${model} level=${level.name} granularity=${rest[0]} query=${query} />`;
  if (head === "units" && rest[2] === "images") return html`<${UnitImagesView} model=${model} granularity=${rest[0]} unit=${rest[1]} query=${query} />`;
  if (head === "images") return html`<${ImagesView} overview=${overview} model=${model} query=${query} />`;
  if (head === "compare" && rest[0] === "codes") return html`<${CompareCodesView} overview=${overview} query=${query} />`;
  if (head === "compare" && rest[0] === "models") return html`<${CompareModelsView} overview=${overview} level=${level.name} query=${query} />`;
  if (head === "edit" && rest.length === 1) return html`<${EditView} share=${rest[0]} />`;
  if (head === "m" && rest[0] === model.id) return html`<${ModelView} overview=${overview} model=${model} level=${level} rest=${rest.slice(1)} query=${query} />`;
  return html`<${NotHere} />`;
}

function ModelView({ overview, model, level, rest, query }) {
  const [first, view, ...ids] = rest;
  if (first === "image" && view !== undefined) return html`<${ImageView} overview=${overview} model=${model} image=${view} query=${query} />`;
  if (first === "search") return html`<${SearchView} model=${model} level=${level.name} query=${query} />`;
  if (first !== level.name) return html`<${NotHere} />`;
  if (view === "codes") return html`<${CodesView} model=${model} level=${level} query=${query} />`;
  if (view === "map") return html`<${MapView} model=${model} level=${level} query=${query} />`;
  if (view === "game") return html`<${GameView} model=${model} level=${level} />`;
  if (view === "code" && /^\d+$/.test(ids[0] ?? "")) return html`<${CodeView} model=${model} level=${level} code=${Number(ids[0])} />`;
  if (view === "unit" && ids.length === 2) return html`<${UnitView} model=${model} level=${level} granularity=${ids[0]} unit=${ids[1]} />`;
  return html`<${NotHere} />`;
}

function NotHere() {
  return html`<h1>Nothing is here</h1><${Empty}>This address shows nothing. <a href="#/">Back to the overview</a><//>`;
}

/** A view, or what went wrong in it, until another address is shown: a fault would leave an empty page. */
function Guarded({ address, children }) {
  const [error, forget] = useErrorBoundary((fault) => console.error(fault));
  useEffect(() => { if (error !== undefined) forget(); }, [address]);
  return error === undefined ? children : html`<h1>This page failed</h1><${Failure} error=${error} />`;
}

/** A shared edit: where it belongs is in the share string, so ask for it and go there. */
function EditView({ share }) {
  return html`<h1>A shared edit</h1><${Answer} path=${share} load=${openEdit}>${(result) => html`<${Arrive} to=${link(["m", result.model, "image", result.image], { edit: result.share })} />`}<//>`;
}

function Arrive({ to }) {
  useEffect(() => { window.location.replace(to); }, [to]);
  return html`<${Loading} />`;
}

// --- the frame --------------------------------------------------------------------------------------------------

function readTheme() {
  try {
    return window.localStorage.getItem("tavq-theme");
  } catch {
    return null;
  }
}

function useTheme() {
  const [theme, setTheme] = useState(readTheme() ?? (window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  useEffect(() => { document.documentElement.dataset.theme = theme; }, [theme]);
  const toggle = () => {
    const next = theme === "dark" ? "light" : "dark";
    try {
      window.localStorage.setItem("tavq-theme", next);
    } catch {
      // A page from a file may have no storage; the choice then lasts until it is closed.
    }
    setTheme(next);
  };
  return { theme, toggle };
}

function useKeys(actions) {
  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, select, textarea") || document.querySelector("dialog[open]")) return;
      const action = actions[event.key];
      if (action === undefined) return;
      event.preventDefault();
      action();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  });
}

/** Name the window after the heading, which may arrive after the view. */
function useTitle(main) {
  useEffect(() => {
    const name = () => { document.title = `${main.current.querySelector("h1")?.textContent ?? "explorer"} · tavq`; };
    const observer = new MutationObserver(name);
    observer.observe(main.current, { childList: true, subtree: true, characterData: true });
    name();
    return () => observer.disconnect();
  }, []);
}

function Explorer({ overview }) {
  const { parts, query } = useRoute();
  const { model, level } = usePlace(overview, parts);
  const { theme, toggle } = useTheme();
  const search = useRef(null);
  const help = useRef(null);
  const main = useFocusOnChange(parts.join("/"));
  const follow = (rel) => main.current.querySelector(`a[rel=${rel}]`)?.click();
  useKeys({
    "/": () => search.current.focus(), "?": () => help.current.showModal(), d: toggle, o: () => go([]), i: () => go(["images"]),
    c: () => go(["m", model.id, level.name, "codes"]), m: () => go(["m", model.id, level.name, "map"]), w: () => go(["units", "words"]),
    p: () => follow("prev"), n: () => follow("next"),
  });
  useTitle(main);
  const submit = (event) => {
    event.preventDefault();
    const text = search.current.value.trim();
    if (text !== "") go(["m", model.id, "search"], { text });
  };
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); main.current.focus(); }}>To the content</a>
    <header class="top"><a class="home" href="#/">tavq explorer</a>
      <form role="search" onSubmit=${submit}><input ref=${search} type="search" name="text" aria-label="Search words, codes and images" placeholder="Type a word, e.g. red" maxlength="200" /></form>
      <nav aria-label="Views"><a href=${link(["m", model.id, level.name, "codes"])}>Codes</a><a href=${link(["units", "words"])}>Words</a><a href=${link(["images"])}>Images</a>
        <a href=${link(["m", model.id, level.name, "map"])}>Map</a><a href=${link(["m", model.id, "search"])}>Upload</a><a href=${link(["m", model.id, level.name, "game"])}>Game</a>
        ${overview.models.length > 1 ? html`<a href=${link(["compare", "models"])}>Compare</a>` : null}</nav>
      ${overview.models.length > 1 ? html`<label class="model"><span class="visually-hidden">Model</span><select value=${model.id} onChange=${(event) => switchModel(overview, parts, query, event.currentTarget.value)}>
        ${overview.models.map((one) => html`<option key=${one.id} value=${one.id}>${one.name}</option>`)}</select></label>` : null}
      <span class="buttons"><button type="button" onClick=${toggle} aria-label=${`Switch to the ${theme === "dark" ? "light" : "dark"} theme`}>${theme === "dark" ? "☀" : "☾"}</button>
        <button type="button" onClick=${() => help.current.showModal()} aria-label="Keys">?</button></span></header>
    <main id="main" tabindex="-1" ref=${main}><${Guarded} address=${parts.join("/")}><${View} overview=${overview} model=${model} level=${level} parts=${parts} query=${query} /><//></main>
    <${PinBar} />
    <dialog ref=${help} aria-label="Keys"><h2>Keys</h2><dl>${KEYS.map(([key, meaning]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${meaning}</dd></div>`)}</dl>
      <form method="dialog"><button>Close</button></form></dialog>`;
}

/** The same view of another model; its deep level where it lacks the one that is shown. */
function switchModel(overview, parts, query, id) {
  const other = overview.models.find((one) => one.id === id);
  if (parts[0] !== "m") return go(["m", id, other.levels.at(-1).name, "codes"]);
  const [first, ...rest] = parts.slice(2);
  const isLevel = ["low", "middle", "deep"].includes(first);
  const level = other.levels.some((one) => one.name === first) ? first : other.levels.at(-1).name;
  return isLevel ? go(["m", id, level, ...rest]) : go(["m", id, ...parts.slice(2)], first === "search" ? query : {});
}

function App() {
  return html`<${Answer} path="/overview">${(overview) => (overview.models.length === 0
    ? html`<main class="plain"><${Failure} error=${{ code: "not_found", message: "No model is open." }} /></main>`
    : html`<${Explorer} overview=${overview} />`)}<//>`;
}

const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App} />`, root);
