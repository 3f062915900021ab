// The list of a level's codes, and the map of its entries.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/htm-preact.js";
import { imageUrl, offline, withQuery } from "./api.js";
import { Answer, CodeCard, Empty, Fact, MissingParts, Pager, Tabs, count, decimals, share } from "./parts.js";
import { go, link, linkOf, replaceQuery } from "./route.js";

const SORTS = [
  ["usage", "used most", (code) => share(code.fraction)],
  ["index", "index", (code) => count(code.count)],
  ["certainty", "lift of its label", (code) => `lift ${decimals(code.certainty)}`],
  ["precision", "label right most often", (code) => (code.precision === null ? "–" : `wrong in ${share(1 - code.precision)}`)],
  ["held_out", "lift on images kept apart", (code) => `kept apart ${decimals(code.held_out_lift)}`],
  ["specificity", "says most of words", (code) => `${decimals(code.specificity)} bits`],
  ["entropy", "entropy over words", (code) => `${decimals(code.entropy)} bits`],
  ["position_bias", "bound to a position", (code) => decimals(code.position_bias)],
  ["images", "images that have it", (code) => `${count(code.images)} images`],
];

export function CodesView({ model, level, query }) {
  const sort = SORTS.find(([key]) => key === query.sort) ?? SORTS[0];
  const { offset = "0", ...filters } = query;
  const path = withQuery(`/models/${model.id}/levels/${level.name}/codes`, { ...filters, offset: offset === "0" ? "" : offset });
  const change = (changes) => replaceQuery({ offset: "", ...changes });
  const field = (key) => ({ value: query[key] ?? "", onChange: (event) => change({ [key]: event.currentTarget.value }) });
  return html`<h1>Codes of <bdi>${model.name}</bdi></h1>
    <${LevelTabs} model=${model} level=${level} view="codes" />
    ${offline ? null : html`<form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label>Sort by <select ...${field("sort")}>${SORTS.map(([key, text]) => html`<option key=${key} value=${key === "usage" ? "" : key}>${text}</option>`)}</select></label>
      <label>Order <select ...${field("order")}><option value="">high to low</option><option value="asc">low to high</option></select></label>
      <label>Used <select ...${field("dead")}><option value="">all</option><option value="false">used</option><option value="true">dead</option></select></label>
      <label>Label <select ...${field("labelled")}><option value="">all</option><option value="true">with a label</option><option value="false">without</option></select></label>
      ${level.parts.length > 1 ? html`<label>Part <select ...${field("part")}><option value="">all</option>${level.parts.map((_, part) => html`<option value=${part}>${part}</option>`)}</select></label>` : null}
      <label>Least uses <input type="number" min="0" ...${field("min_count")} /></label>
      <label>Most uses <input type="number" min="0" ...${field("max_count")} /></label>
      <label>Least lift <input type="number" min="0" step="0.1" ...${field("min_lift")} /></label>
      <label>Most entropy <input type="number" min="0" step="0.1" ...${field("max_entropy")} /></label>
      <label>Least bias <input type="number" min="0" max="1" step="0.05" ...${field("min_bias")} /></label>
      <label>Label or number <input type="search" ...${field("query")} /></label></form>`}
    <${Answer} path=${path}>${(list) => html`<${MissingParts} missing=${list.missing} />
      <p class="note" role="status">${count(list.total)} codes</p>
      ${list.codes.length === 0 ? html`<${Empty}>No code passes these filters.<//>` : null}
      <div class="codes">${list.codes.map((code) => html`<${CodeCard} key=${code.code} model=${model.id} code=${code} note=${code.dead ? "dead" : sort[2](code)} />`)}</div>
      <${Pager} total=${list.total} offset=${list.offset} linkAt=${(at) => linkOf.codes(model.id, level.name, { ...query, offset: at })} />`}<//>`;
}

/** Links to the same view of the model's other levels. */
export function LevelTabs({ model, level, view }) {
  if (model.levels.length < 2) return null;
  return html`<nav class="tabs" aria-label="Levels">${model.levels.map((one) => html`
    <a key=${one.name} href=${link(["m", model.id, one.name, view])} aria-current=${one.name === level.name ? "page" : null}>${one.name} <small>${one.height} × ${one.width}</small></a>`)}</nav>`;
}

// --- the map ----------------------------------------------------------------------------------------------------

const CANVAS = 900;
const MARGIN = 0.03;
const CLICK = 0.01;
const TILE = 22;

export function MapView({ model, level, query }) {
  const method = query.method ?? "pca";
  const part = query.part ?? "0";
  const path = withQuery(`/models/${model.id}/levels/${level.name}/map`, { method: method === "pca" ? "" : method, part: part === "0" ? "" : part });
  return html`<h1>Map of the codebook</h1>
    <${LevelTabs} model=${model} level=${level} view="map" />
    <p class="note">Each point is an entry, where it is decodable with its tile; larger where it is used more. Two dimensions
      hide much: a code's page lists its neighbours by the original space.</p>
    <${Tabs} label="Projection" options=${[["pca", "PCA"], ["umap", "UMAP"]]} value=${method} onChange=${(key) => replaceQuery({ method: key === "pca" ? "" : key })} />
    ${level.parts.length > 1 ? html`<${Tabs} label="Part" options=${level.parts.map((_, i) => [String(i), `part ${i}`])} value=${part} onChange=${(key) => replaceQuery({ part: key })} />` : null}
    <${Answer} path=${path}>${(map) => html`<${MissingParts} missing=${map.missing} />
      ${map.explained === null ? null : html`<div class="facts"><${Fact} value=${share(map.explained)} name="of the variance in these two dimensions" /></div>`}
      <${EntryMap} model=${model.id} level=${level.name} map=${map} />`}<//>`;
}

function EntryMap({ model, level, map }) {
  const canvas = useRef(null);
  const [view, setView] = useState({ zoom: 1, x: 0, y: 0 });
  const [near, setNear] = useState(null);
  const sheets = useSheets(map.atlas);
  const most = useMemo(() => Math.max(1, ...map.counts), [map]);
  const pressed = useRef(new Map());
  const drag = useRef({ start: null, moved: false });
  const placeOf = (i) => [map.x[i], map.y[i]].map((at, axis) => (MARGIN + (1 - 2 * MARGIN) * at - [view.x, view.y][axis]) * view.zoom);

  useEffect(() => {
    const context = canvas.current.getContext("2d");
    context.clearRect(0, 0, CANVAS, CANVAS);
    context.imageSmoothingEnabled = false;
    map.codes.forEach((code, i) => {
      const [x, y] = placeOf(i);
      if (x < -0.05 || x > 1.05 || y < -0.05 || y > 1.05) return;
      drawEntry(context, map, sheets, code, i, x, y, Math.sqrt(map.counts[i] / most), view.zoom);
    });
  }, [map, view, sheets, most]);

  const placeUnder = (event) => {
    const box = event.currentTarget.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const nearest = ([x, y], reach = 0.002) => {
    let best = null;
    map.codes.forEach((code, i) => {
      const [px, py] = placeOf(i);
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (best === null || distance < best.distance) best = { code, distance, i };
    });
    return best !== null && best.distance < reach ? best : null;
  };
  // What is at `place` of the canvas stays there.
  const zoom = (factor, place = [0.5, 0.5]) => setView(({ zoom: before, x, y }) => {
    const after = Math.min(32, Math.max(1, before * factor));
    const [right, down] = place.map((at) => at / before - at / after);
    return { zoom: after, x: clamp(x + right, after), y: clamp(y + down, after) };
  });
  const move = (right, down) => setView(({ zoom: z, x, y }) => ({ zoom: z, x: clamp(x + right / z, z), y: clamp(y + down / z, z) }));
  const press = (event) => {
    const steps = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    if (event.key in steps) move(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") zoom(1.5);
    else if (event.key === "-") zoom(1 / 1.5);
    else if (event.key === "Enter") openNearest([0.5, 0.5]);
    else return;
    event.preventDefault();
  };
  const openNearest = (place, reach = 2) => {
    const found = nearest(place, reach);
    if (found !== null) go(["m", model, level, "code", found.code]);
  };
  const turn = (event) => { event.preventDefault(); zoom(event.deltaY < 0 ? 1.25 : 0.8, placeUnder(event)); };
  const begin = (event) => {
    event.currentTarget.setPointerCapture(event.pointerId);
    const place = placeUnder(event);
    if (pressed.current.size === 0) drag.current = { start: place, moved: false };
    pressed.current.set(event.pointerId, place);
  };
  const follow = (event) => {
    const place = placeUnder(event);
    const before = pressed.current.get(event.pointerId);
    if (before === undefined) return setNear(nearest(place));
    drag.current.moved ||= pressed.current.size > 1 || distance(place, drag.current.start) > CLICK;
    if (!drag.current.moved) return undefined;
    pressed.current.set(event.pointerId, place);
    const other = [...pressed.current].find(([id]) => id !== event.pointerId)?.[1];
    if (other === undefined) return move(before[0] - place[0], before[1] - place[1]);
    return zoom(Math.max(distance(place, other), CLICK) / Math.max(distance(before, other), CLICK), place.map((at, axis) => (at + other[axis]) / 2));
  };
  const end = (event) => pressed.current.delete(event.pointerId);
  const choose = (event) => { if (!drag.current.moved) openNearest(placeUnder(event), 0.002); };
  return html`<div class="map-tools"><button type="button" onClick=${() => zoom(1.5)}>Closer</button>
      <button type="button" onClick=${() => zoom(1 / 1.5)}>Wider</button>
      <span class="note" aria-live="polite">${near === null ? "Hover or click an entry; drag, pinch, the wheel, arrow keys and + − move the map, Enter opens the entry nearest to its centre." : `Code ${near.code}, ${count(map.counts[near.i])} positions`}</span></div>
    <canvas ref=${canvas} class=${view.zoom > 1 ? "entries closer" : "entries"} width=${CANVAS} height=${CANVAS} tabindex="0" role="img" aria-label=${`Map of ${map.codes.length} entries`}
      onPointerDown=${begin} onPointerMove=${follow} onPointerUp=${end} onPointerCancel=${end} onClick=${choose} onWheel=${turn} onKeyDown=${press}></canvas>`;
}

const distance = (first, second) => Math.hypot(first[0] - second[0], first[1] - second[1]);

const clamp = (corner, zoom) => Math.min(1 - 1 / zoom, Math.max(0, corner));

function drawEntry(context, map, sheets, code, i, x, y, size, zoom) {
  const atlas = map.atlas;
  const sheet = atlas === null ? undefined : sheets[Math.floor(code / atlas.tiles)];
  const side = TILE * (0.6 + 0.8 * size) * Math.min(3, Math.sqrt(zoom));
  if (sheet !== undefined) {
    const at = code % atlas.tiles;
    const [column, row] = [at % atlas.columns, Math.floor(at / atlas.columns)];
    context.drawImage(sheet, column * atlas.tile, row * atlas.tile, atlas.tile, atlas.tile, x * CANVAS - side / 2, y * CANVAS - side / 2, side, side);
    context.strokeStyle = "rgb(140 149 159 / 60%)"; // dark tiles are seen on a dark page
    context.strokeRect(x * CANVAS - side / 2, y * CANVAS - side / 2, side, side);
    return;
  }
  context.fillStyle = map.counts[i] === 0 ? "#8c959f" : "#0072B2";
  context.beginPath();
  context.arc(x * CANVAS, y * CANVAS, 2 + 6 * size, 0, 2 * Math.PI);
  context.fill();
}

function useSheets(atlas) {
  const [sheets, setSheets] = useState({});
  useEffect(() => {
    setSheets({});
    (atlas?.pages ?? []).forEach((url, page) => {
      const address = imageUrl(url);
      if (address === null) return;
      const image = new Image();
      image.onload = () => setSheets((before) => ({ ...before, [page]: image }));
      image.src = address;
    });
  }, [atlas]);
  return sheets;
}
