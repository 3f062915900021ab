// Pieces that several views share: loading states, numbers, chips, tiles and tables.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, imageUrl } from "./api.js";
import { linkOf } from "./route.js";

// --- answers ----------------------------------------------------------------------------------------------------

/** The answer of a path, or of a promise's maker. The answer before it stays while the next one loads. */
export function useAnswer(path, load = get) {
  const [state, setState] = useState({ path: null, answer: null, error: null });
  useEffect(() => {
    if (path === null) return undefined;
    let current = true;
    const show = (answer, error) => current && setState({ path, answer, error });
    load(path).then((answer) => show(answer, null), (error) => show(null, error));
    return () => { current = false; };
  }, [path]);
  const loading = path !== null && state.path !== path;
  return { answer: state.answer, error: loading ? null : state.error, loading };
}

/** A view of an answer, with its states of loading and failure; `heading` heads a page that fails. */
export function Answer({ path, load, heading = null, children }) {
  const { answer, error, loading } = useAnswer(path, load);
  if (error !== null) return html`${heading === null ? null : html`<h1>${heading}</h1>`}<${Failure} error=${error} />`;
  if (answer === null) return html`<${Loading} />`;
  return html`<div class=${loading ? "stale" : ""} aria-busy=${loading}>${children(answer)}</div>`;
}

export function Loading() {
  return html`<div class="loading" role="status"><span class="visually-hidden">Loading</span>
    <div class="bar"></div><div class="bar short"></div><div class="bar"></div></div>`;
}

export function Failure({ error }) {
  const title = error.code === "not_found" ? "Not found" : "That did not work";
  return html`<div class="failure" role="alert"><strong>${title}.</strong> ${error.message}</div>`;
}

export function Empty({ children }) {
  return html`<p class="empty">${children}</p>`;
}

/** What an answer lacks, with what would add it. */
export function MissingParts({ missing }) {
  if (!missing || missing.length === 0) return null;
  return html`<ul class="missing">${missing.map((item) => html`
    <li><span aria-hidden="true">○</span> ${item.reason}${item.remedy ? html` <em>${item.remedy}</em>` : null}</li>`)}</ul>`;
}

// --- numbers ----------------------------------------------------------------------------------------------------

export const count = (value) => value.toLocaleString("en-US");
export const share = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
export function decimals(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}
export const signed = (value, digits = 2) => (decimals(value, digits).startsWith("−") ? "" : "+") + decimals(value, digits);
export const interval = (ends, digits = 2) => `${decimals(ends[0], digits)} to ${decimals(ends[1], digits)}`;

/** A lift as a bar on a scale of doublings around 1, with its interval. */
export function LiftBar({ lift, ends }) {
  const place = (value) => `${Math.min(100, Math.max(0, 50 + 12.5 * Math.log2(Math.max(value, 1e-3))))}%`;
  return html`<span class="lift" title=${`lift ${decimals(lift)}, 95 % interval ${interval(ends)}`}>
    <span class="scale" aria-hidden="true"><i class="one"></i>
      <i class="ends" style=${{ left: place(ends[0]), right: `calc(100% - ${place(ends[1])})` }}></i>
      <i class="point" style=${{ left: place(lift) }}></i></span>
    <span class="number">${decimals(lift)} <small>${interval(ends)}</small></span></span>`;
}

export function Fact({ value, name, note }) {
  return html`<div class="fact"><b>${value}</b><span>${name}</span>${note ? html`<small>${note}</small>` : null}</div>`;
}

// --- codes, units, images ---------------------------------------------------------------------------------------

/** The style that scales a grey image of differences up to white, where its largest value is `most` of 255. */
export const scaledTo = (most) => (most > 0 ? { filter: `brightness(${255 / most})` } : {});

export function Img({ url, alt, className = "", size = null, style = {} }) {
  const address = imageUrl(url);
  if (address === null) return html`<span class=${`blank ${className}`} role="img" aria-label=${`${alt}: not available`}></span>`;
  return html`<img src=${address} alt=${alt} class=${className} width=${size} height=${size} style=${style} loading="lazy" decoding="async" />`;
}

const tileUrl = (model, level, code) =>
  level.entries_decode ? `/api/v1/models/${model}/levels/${level.name}/codes/${code}/tile.png` : null;

export const reconstructionUrl = (model, image) => `/api/v1/models/${model}/images/${image}/reconstruction.png`;

/** A code of an image's grid, in the form that a card takes. */
export function gridCode(model, level, page, code) {
  let part = 0;
  let first = 0;
  while (part + 1 < level.parts.length && code >= first + level.parts[part]) { first += level.parts[part]; part += 1; }
  const label = page.labels[level.name]?.[String(code)] ?? null;
  return { level: level.name, code, part, name: null, label, tile: tileUrl(model.id, level, code) };
}

/** A code as a small card: its tile, its number and its label. */
export function CodeCard({ model, code, note = null, pinned = false }) {
  const label = code.name ?? code.label;
  return html`<a class=${`code-card${pinned ? " pinned" : ""}${code.dead ? " dead" : ""}`} href=${linkOf.code(model, code)}>
    <${Img} url=${code.tile} alt=${`Code ${code.code} decoded alone`} className="tile" size=${48} />
    <span class="what"><b>${code.code}</b><span class="label">${label ?? "no label"}</span>
      ${note === null ? null : html`<small>${note}</small>`}</span></a>`;
}

export function UnitChip({ model, level, unit, note = null, uncertain = false }) {
  const text = html`<bdi>${unit.text}</bdi>${note === null ? null : html` <small>${note}</small>`}`;
  const className = `chip${uncertain ? " uncertain" : ""}`;
  if (unit.unit === null) return html`<span class=${className}>${text}</span>`;
  return html`<a class=${className} href=${linkOf.unit(model, level, unit)}>${text}</a>`;
}

export function PatchLink({ model, level, patch, size = 72 }) {
  const label = `Row ${patch.row}, column ${patch.column} of ${patch.key}`;
  return html`<a class="patch" href=${linkOf.patch(model, level, patch)} title=${label}>
    <${Img} url=${patch.url} alt=${label} size=${size} /></a>`;
}

function ImageCard({ model, row }) {
  return html`<a class="image-card" href=${linkOf.image(model, row.image)}>
    <${Img} url=${row.url} alt=${row.caption === null ? "" : row.key} size=${128} />
    <span class="caption"><bdi>${row.caption ?? row.key}</bdi></span>
    ${row.score === null || row.score === undefined ? null : html`<small>${decimals(row.score, 3)}</small>`}</a>`;
}

export function Images({ model, rows, empty }) {
  if (rows.length === 0) return html`<${Empty}>${empty}<//>`;
  return html`<div class="images">${rows.map((row) => html`<${ImageCard} key=${row.image} model=${model} row=${row} />`)}</div>`;
}

/** Associations of a code as a table: how strong, and how often the label is wrong. */
export function Associations({ model, level, rows }) {
  if (rows.length === 0) return html`<${Empty}>None is certain.<//>`;
  return html`<div class="scroll"><table><thead><tr><th scope="col">text</th><th scope="col">lift, 95 % interval</th>
    <th scope="col" class="number">wrong in</th><th scope="col" class="number">by chance</th>
    <th scope="col" class="number">images</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${`${row.granularity}/${row.text}`} class=${row.certain ? "" : "uncertain"}>
      <th scope="row"><${UnitChip} model=${model} level=${level} unit=${row} uncertain=${!row.certain} /></th>
      <td><${LiftBar} lift=${row.lift} ends=${row.interval} /></td>
      <td class="number">${share(1 - row.precision)}</td><td class="number">${share(1 - row.base_rate)}</td>
      <td class="number">${count(row.both)} of ${count(row.with_code)}</td></tr>`)}</tbody></table></div>`;
}

// --- lists ------------------------------------------------------------------------------------------------------

/** How many items of a list an answer holds where the request does not say. */
const PAGE = 60;

/** Links to the pages of a list of `page` items each; `linkAt` gives the address of an offset. */
export function Pager({ total, offset, linkAt, page = PAGE }) {
  if (total <= page) return null;
  const last = Math.min(total, offset + page);
  return html`<nav class="pager" aria-label="Pages of the list">
    ${offset > 0 ? html`<a href=${linkAt(Math.max(0, offset - page))} rel="prev">← Before</a>` : html`<span></span>`}
    <span>${count(offset + 1)} to ${count(last)} of ${count(total)}</span>
    ${last < total ? html`<a href=${linkAt(offset + page)} rel="next">Next →</a>` : html`<span></span>`}</nav>`;
}

export function Tabs({ label, options, value, onChange }) {
  return html`<div class="tabs" role="group" aria-label=${label}>${options.map(([key, text]) => html`
    <button type="button" key=${key} aria-pressed=${key === value} onClick=${() => onChange(key)}>${text}</button>`)}</div>`;
}

export function useFocusOnChange(value) {
  const target = useRef(null);
  useEffect(() => { target.current?.focus({ preventScroll: true }); window.scrollTo(0, 0); }, [value]);
  return target;
}
