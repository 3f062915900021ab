// The causal test: change codes of an image, decode at once, and see what changed and what the texts say now.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { get, post } from "./api.js";
import { Empty, Failure, MissingParts, Img, Tabs, UnitChip, count, decimals, gridCode, reconstructionUrl, scaledTo, signed } from "./parts.js";
import { Board, boxAround } from "./board.js";
import { HeatMap } from "./heat.js";
import { link } from "./route.js";
import { usePins } from "./pins.js";
import { TaskQuestions } from "./ask.js";

const TOOLS = [["paint", "Paint"], ["pick", "Pick a code"], ["remove", "Remove"], ["copy", "Copy a patch"]];
const PALETTE = 16;
const SCORES = 12;
const LONGEST_ADDRESS = 4000;

/** Open an edit that an address holds. */
export const openEdit = (share) =>
  share.length > LONGEST_ADDRESS ? post("/edits/open", { share }) : get(`/edits/${encodeURIComponent(share)}`);

/** Codes of a grid, most frequent first. */
function frequentCodes(grid) {
  const counts = new Map();
  for (const code of grid.flat(2)) counts.set(code, (counts.get(code) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([code]) => code);
}

/** Done operations, with undo and redo, and the server's answer to them. */
function useEdits(model, page, share) {
  // The operations are kept at once, so that the next one builds on them before the server has answered.
  const history = useRef({ done: [], undone: [] });
  const [state, setState] = useState({ result: null, error: null, busy: false });
  const asked = useRef(0);
  const show = (promise, arrived = () => {}) => {
    asked.current += 1;
    const mine = asked.current;
    setState((before) => ({ ...before, busy: true }));
    const ifNewest = (change) => { if (mine === asked.current) change(); };
    promise.then((result) => ifNewest(() => {
      arrived(result);
      setState({ result, error: null, busy: false });
      keepInAddress(model, page, result);
    }), (error) => ifNewest(() => setState((before) => ({ ...before, error, busy: false }))));
  };
  const decode = (done, undone) => {
    history.current = { done, undone };
    show(post(`/models/${model.id}/edits`, { image: page.image, operations: done }));
  };
  useEffect(() => {
    if (share === null) decode([], []);
    else show(openEdit(share), (result) => { history.current = { done: result.changed > 0 ? [{ op: "open", share: result.share }] : [], undone: [] }; });
  }, []);
  const { done, undone } = history.current;
  return {
    ...state, done, undone,
    apply: (operation) => decode([...history.current.done, operation], []),
    undo: () => {
      const held = history.current;
      if (held.done.length > 0) decode(held.done.slice(0, -1), [held.done.at(-1), ...held.undone]);
    },
    redo: () => {
      const held = history.current;
      if (held.undone.length > 0) decode([...held.done, held.undone[0]], held.undone.slice(1));
    },
    reset: () => decode([], []),
  };
}

/** The newest edit of each image by `model/image`, so that looking at the image in between does not lose it. */
export const lastEdit = new Map();

/** Put the edit into the address, without an entry in the history and without drawing the page again. */
function keepInAddress(model, page, result) {
  const edit = result.changed === 0 ? "1" : result.share;
  lastEdit.set(`${model.id}/${page.image}`, edit);
  window.history.replaceState(null, "", link(["m", model.id, "image", page.image], { edit }));
}

export function Editor({ model, page, share }) {
  const level = model.levels.at(-1);
  const edits = useEdits(model, page, share);
  const [tool, setTool] = useState("paint");
  const [brush, setBrush] = useState(null);
  const [picked, setPicked] = useState([]);
  const [source, setSource] = useState(null);
  const [donor, setDonor] = useState("");
  const [cursor, setCursor] = useState(null);
  const grid = edits.result?.codes ?? page.grids[level.name];
  const original = page.grids[level.name];
  const changed = useMemo(() => changedCells(original, grid), [original, grid]);

  useEffect(() => {
    const press = (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z" || event.target.matches?.("input, textarea")) return;
      event.preventDefault();
      if (event.shiftKey) edits.redo();
      else edits.undo();
    };
    window.addEventListener("keydown", press);
    return () => window.removeEventListener("keydown", press);
  });

  const stroke = (cells) => {
    const [row, column] = cells[0];
    if (tool === "pick") { setPicked(grid[row][column]); setBrush(grid[row][column][0]); setTool("paint"); }
    else if (tool === "remove") edits.apply({ op: "remove", cells });
    else if (tool === "paint" && brush !== null) edits.apply({ op: "paint", cells, code: brush });
    else if (tool === "copy" && source === null) setSource(boxAround(cells));
    else if (tool === "copy") { edits.apply({ op: "copy", ...source, to_row: row, to_column: column }); setSource(null); }
  };
  const describe = ([row, column]) => `Row ${row}, column ${column}: code ${grid[row][column].join(", ")}`;
  return html`<div class="editor"><div class="tools">
      <${Tabs} label="Tool" options=${TOOLS} value=${tool} onChange=${(key) => { setTool(key); setSource(null); }} />
      <div class="buttons"><button type="button" disabled=${edits.done.length === 0} onClick=${edits.undo}>Undo</button>
        <button type="button" disabled=${edits.undone.length === 0} onClick=${edits.redo}>Redo</button>
        <button type="button" disabled=${edits.done.length === 0} onClick=${edits.reset}>Start again</button>
        <${ShareButton} result=${edits.result} /></div>
      <p class="note" role="status">${hintOf(tool, brush, source)}</p>
      <${Brush} model=${model} level=${level} page=${page} grid=${grid} brush=${brush} picked=${picked} onChoose=${(code) => { setBrush(code); setTool("paint"); }} />
      ${tool === "copy" ? html`<${Donor} key=${donor} model=${model} image=${donor} size=${[grid.length, grid[0].length]} source=${source} onChoose=${setDonor} onCut=${setSource} />` : null}
      <${WholeCode} model=${model} grid=${grid} brush=${brush} apply=${edits.apply} /></div>
    <div class="canvas" aria-busy=${edits.busy}><div class="trio wide">
        <figure><${Board} url=${edits.result?.edited ?? page.reconstruction} alt="The image decoded from the edited codes" height=${grid.length} width=${grid[0].length}
          cursor=${cursor} marked=${source?.image === undefined ? source : null} painted=${changed} describe=${describe} onMove=${setCursor} onPick=${(cell) => stroke([cell])} onStroke=${stroke} box=${tool === "copy" && source === null} />
          <figcaption>edited: draw here</figcaption></figure>
        <figure><${Img} url=${page.reconstruction} alt="The reconstruction before the edit" className="full" /><figcaption>before</figcaption></figure>
        <figure>${edits.result === null ? html`<span class="blank full"></span>` : html`<${Img} url=${edits.result.change} alt="Where the pixels changed" className="full" style=${scaledTo(edits.result.change_max)} />`}<figcaption>change of the pixels${edits.result?.change_max > 0 ? ` (white is ${edits.result.change_max} of 255)` : ""}</figcaption></figure></div>
      ${edits.error === null ? null : html`<${Failure} error=${edits.error} />`}</div>
    <div class="effect"><${Effect} model=${model} level=${level} result=${edits.result} /></div></div>`;
}

function hintOf(tool, brush, source) {
  if (tool === "paint") return brush === null ? "Choose a code below, or pick one from the image." : `Draw to paint code ${brush}.`;
  if (tool === "pick") return "Click a position to take its code.";
  if (tool === "remove") return "Draw over positions: each gets the code most frequent around it.";
  return source === null ? "Draw over the patch to copy." : "Click where its upper left corner belongs.";
}

function changedCells(before, after) {
  const cells = [];
  after.forEach((row, y) => row.forEach((codes, x) => {
    if (codes.some((code, part) => code !== before[y][x][part])) cells.push(`${y},${x}`);
  }));
  return cells;
}

function ShareButton({ result }) {
  const [copied, setCopied] = useState(null);
  if (result === null || result.changed === 0) return null;
  const copy = async () => {
    const url = new URL(window.location.href);
    url.search = "";
    url.hash = link(["edit", result.share]);
    try {
      await navigator.clipboard.writeText(url.href);
      setCopied("Copied");
    } catch {
      setCopied("Not allowed; copy the link beside this");
    }
    setTimeout(() => setCopied(null), 2000);
  };
  return html`<a class="button" href=${link(["edit", result.share])}>Link to this edit</a>
    <button type="button" onClick=${copy}>${copied ?? "Copy the link"}</button>`;
}

/** A field that keeps what is typed until it is chosen, also while the page around it is drawn again. */
function NumberInput({ value, max = null, onChoose }) {
  const [typed, setTyped] = useState(null);
  const choose = (event) => { setTyped(null); onChoose(event.currentTarget.value); };
  return html`<input type="number" min="0" max=${max} value=${typed ?? value} onInput=${(event) => setTyped(event.currentTarget.value)} onChange=${choose} />`;
}

function Brush({ model, level, page, grid, brush, picked, onChoose }) {
  const pins = usePins().filter((pin) => pin.startsWith(`${model.id}:${level.name}:`)).map((pin) => Number(pin.split(":")[2]));
  const palette = useMemo(() => [...new Set([...picked, ...pins, ...frequentCodes(grid)])].slice(0, PALETTE), [grid, pins.join(), picked]);
  return html`<fieldset><legend>Code to paint</legend>
    <label>Number <${NumberInput} max=${level.entries - 1} value=${brush ?? ""} onChoose=${(text) => {
      const code = Number(text);
      if (text !== "" && Number.isInteger(code) && code >= 0 && code < level.entries) onChoose(code);
    }} /></label>
    <div class="palette">${palette.map((number) => {
      const code = gridCode(model, level, page, number);
      return html`<button type="button" key=${number} aria-pressed=${number === brush} title=${`Code ${number}${code.label ? `, ${code.label}` : ""}`} onClick=${() => onChoose(number)}>
        <${Img} url=${code.tile} alt="" className="tile" size=${32} /><small>${number}</small></button>`;
    })}</div><p class="note">Picked and pinned codes come first: pin one on its page to paint it here.</p></fieldset>`;
}

/** Another image to copy a patch from; all images of a tokenizer have grids of one size. */
function Donor({ model, image, size, source, onChoose, onCut }) {
  const [cursor, setCursor] = useState(null);
  const [height, width] = size;
  const cut = (cells) => onCut({ image, ...boxAround(cells) });
  return html`<fieldset><legend>Copy from another image</legend>
    <label>Its number <${NumberInput} value=${image} onChoose=${onChoose} /></label>
    ${image === "" ? null : html`<${Board} url=${reconstructionUrl(model.id, image)} alt=${`Image ${image}, to copy from`} height=${height} width=${width} cursor=${cursor}
      marked=${source?.image === image ? source : null} describe=${([row, column]) => `Row ${row}, column ${column}`} onMove=${setCursor} onPick=${(cell) => cut([cell])} onStroke=${cut} box=${true} />
      <p class="note">Draw over the patch here, then click where it belongs.</p>`}</fieldset>`;
}

function WholeCode({ model, grid, brush, apply }) {
  const [code, setCode] = useState("");
  const inImage = useMemo(() => frequentCodes(grid), [grid]);
  const chosen = code === "" ? null : Number(code);
  return html`<fieldset><legend>Everywhere in the image</legend>
    <label>Code <select value=${code} onChange=${(event) => setCode(event.currentTarget.value)}><option value="">choose</option>
      ${inImage.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>
    <div class="buttons"><button type="button" disabled=${chosen === null || brush === null} onClick=${() => apply({ op: "replace", code: chosen, by: brush })}>Replace by ${brush ?? "the brush"}</button>
      <button type="button" disabled=${chosen === null || brush === null} onClick=${() => apply({ op: "swap", first: chosen, second: brush })}>Swap with ${brush ?? "the brush"}</button>
      <button type="button" disabled=${chosen === null} onClick=${() => apply({ op: "remove_code", code: chosen })}>Remove</button></div></fieldset>`;
}

function Effect({ model, level, result }) {
  if (result === null) return null;
  return html`<${MissingParts} missing=${result.missing} />
    <p class="note" role="status">${count(result.changed)} positions changed; elsewhere the pixels moved by ${decimals(result.outside)} of 255 on average (${Math.round(result.milliseconds)} ms).</p>
    <div class="side">${result.changed === 0 ? null : html`<div><h2>Where it changed</h2><${HeatMap} grid=${result.change_map} label="Mean change of the pixels at each position" unit="of 255" /></div>`}
      <div><h2>What the words say now</h2>${result.aligned.length === 0 ? html`<${Empty}>No aligned score changed or exists.<//>` : html`<${Scores} model=${model} level=${level} scores=${result.aligned.slice(0, SCORES)} />`}
        ${result.aligned.length <= SCORES ? null : html`<details><summary>${count(result.aligned.length - SCORES)} texts that changed less</summary>
          <${Scores} model=${model} level=${level} scores=${result.aligned.slice(SCORES)} /></details>`}</div></div>
    <${TaskQuestions} model=${model} result=${result} />`;
}

function Scores({ model, level, scores }) {
  return html`<div class="scroll"><table><thead><tr><th scope="col">text</th>
    <th scope="col" class="number">before</th><th scope="col" class="number">after</th><th scope="col" class="number">change</th></tr></thead>
    <tbody>${scores.map((score) => html`<tr key=${`${score.granularity}/${score.text}`}><th scope="row"><${UnitChip} model=${model.id} level=${level.name} unit=${score} note=${score.label_of.length === 0 ? null : `label of ${score.label_of.join(", ")}`} /></th>
      <td class="number">${decimals(score.before, 3)}</td><td class="number">${decimals(score.after, 3)}</td>
      <td class="number">${signed(score.after - score.before, 3)}</td></tr>`)}</tbody></table></div>`;
}
