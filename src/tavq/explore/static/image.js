// The page of one image: original, reconstruction, difference, its codes, and where the codes carry a word.

import { html, useMemo, useState } from "./vendor/htm-preact.js";
import { offline, post, withQuery } from "./api.js";
import { Answer, CodeCard, Empty, Failure, MissingParts, Img, Tabs, UnitChip, decimals, gridCode, reconstructionUrl, scaledTo, useAnswer } from "./parts.js";
import { Board, boxAround } from "./board.js";
import { Scale } from "./heat.js";
import { Patches, codePath } from "./code.js";
import { link, linkOf, replaceQuery } from "./route.js";
import { Editor, lastEdit } from "./edit.js";
import { PinButton } from "./pins.js";

/** Positions on a side of a patch that can be searched for. */
const LARGEST = 8;
const SIDES = ["original", "reconstruction", "difference"];

export function ImageView({ overview, model, image, query }) {
  const path = `/models/${model.id}/images/${image}`;
  return html`<${Answer} path=${path} heading=${`Image ${image}`}>${(page) => html`<${ImagePage} key=${`${model.id}/${page.image}`} overview=${overview} model=${model} page=${page} query=${query} />`}<//>`;
}

function ImagePage({ overview, model, page, query }) {
  const level = model.levels.find((one) => one.name === query.level) ?? model.levels.at(-1);
  const editing = query.edit !== undefined && !offline;
  return html`<h1><bdi>${page.key}</bdi></h1>
    <p class="lead"><bdi>${page.caption ?? "No caption."}</bdi></p>
    <${MissingParts} missing=${page.missing} />
    ${offline ? null : html`<${Tabs} label="What to do" options=${[["look", "Look"], ["edit", "Edit the codes"]]} value=${editing ? "edit" : "look"}
      onChange=${(key) => replaceQuery(key === "edit" ? { edit: lastEdit.get(`${model.id}/${page.image}`) ?? "1" } : { edit: "" })} />`}
    ${editing ? html`<${Editor} model=${model} page=${page} share=${query.edit === "1" ? null : query.edit} />`
      : html`<${Look} model=${model} level=${level} page=${page} query=${query} />`}
    <${OtherModels} overview=${overview} model=${model} page=${page} />
    <${Captions} page=${page} />`;
}

/** The same image as the other models see it, side by side. */
function OtherModels({ overview, model, page }) {
  if (overview.models.length < 2) return null;
  return html`<section><h2>In all models</h2><div class="images">${overview.models.map((one) => html`
    <a class="image-card" key=${one.id} href=${linkOf.image(one.id, page.image)} aria-current=${one.id === model.id ? "page" : null}>
      <${Img} url=${reconstructionUrl(one.id, page.image)} alt=${`Reconstruction by ${one.name}`} size=${128} /><span class="caption"><bdi>${one.name}</bdi></span></a>`)}</div></section>`;
}

function Captions({ page }) {
  if (page.captions.length < 2 && page.long_text === null) return null;
  return html`<section><h2>Its text</h2>${page.captions.map((caption) => html`<p><bdi>${caption}</bdi></p>`)}
    ${page.long_text === null ? null : html`<p><bdi>${page.long_text}</bdi></p>`}</section>`;
}

/** The rectangle that an address names; null without one, and where it does not lie inside the grid. */
function parseMarked(text, grid) {
  const [row, column, height = 1, width = 1] = (text ?? "").split(",").map(Number);
  const whole = [row, column, height, width].every(Number.isInteger) && Math.min(row, column) >= 0 && Math.min(height, width) > 0;
  return whole && row + height <= grid.length && column + width <= grid[0].length ? { row, column, height, width } : null;
}

function parseUnit(text) {
  const [granularity, unit] = (text ?? "").split(":");
  return unit === undefined ? null : { granularity, unit };
}

function Look({ model, level, page, query }) {
  const grid = page.grids[level.name];
  const marked = parseMarked(query.at, grid);
  const [cursor, setCursor] = useState(null);
  const unit = parseUnit(query.unit);
  const source = query.source ?? "statistics";
  const heatPath = unit === null ? null
    : withQuery(`/models/${model.id}/levels/${level.name}/images/${page.image}/heat`, { ...unit, source: source === "statistics" ? "" : source });
  const heat = useAnswer(heatPath);
  const shown = unit === null ? null : heat.answer;
  const scale = useMemo(() => (shown === null ? 1 : Math.max(...shown.values.flat().map(Math.abs), 1e-6)), [shown]);
  const kept = marked === null ? null : [marked.row, marked.column];
  const at = cursor !== null && grid[cursor[0]]?.[cursor[1]] !== undefined ? cursor : kept; // another level may be smaller
  const describe = ([row, column]) => `Row ${row}, column ${column}: ${grid[row][column].map((code) => `code ${code} ${page.labels[level.name]?.[code] ?? ""}`).join(", ")}`;
  const keep = (cells) => {
    const { row, column, height, width } = boxAround(cells);
    replaceQuery({ at: [row, column, Math.min(height, LARGEST), Math.min(width, LARGEST)].join(","), level: level.name });
  };
  return html`<${LevelChoice} model=${model} level=${level} />
    <div class="trio wide">${SIDES.map((side) => html`<figure key=${side}>
      <${Board} url=${page[side]} alt=${`${side} of ${page.key}`} height=${grid.length} width=${grid[0].length} heat=${shown?.values ?? null} diverging=${true} scale=${scale}
        style=${side === "difference" ? scaledTo(page.difference_max) : {}} cursor=${at} marked=${marked} describe=${describe} onMove=${setCursor} onPick=${(cell) => keep([cell])} onStroke=${keep} box=${true} scrolls=${true} />
      <figcaption>${side === "difference" ? `difference (white is ${page.difference_max} of 255)` : side}</figcaption></figure>`)}</div>
    ${shown === null ? null : html`<${Scale} diverging=${true} ends=${[`−${scale.toFixed(2)}`, scale.toFixed(2)]} unit=${source === "aligned" ? "cosine" : "log2 of the lift"} />`}
    ${heat.error === null ? null : html`<${Failure} error=${heat.error} />`}
    <${UnitChoice} model=${model} level=${level} page=${page} chosen=${query.unit} source=${source} />
    <${Position} model=${model} level=${level} page=${page} at=${at} marked=${marked} />`;
}

function LevelChoice({ model, level }) {
  if (model.levels.length < 2) return null;
  const options = model.levels.map((one) => [one.name, html`${one.name} <small>${one.height} × ${one.width}</small>`]);
  return html`<${Tabs} label="Level" options=${options} value=${level.name} onChange=${(key) => replaceQuery({ level: key, at: "" })} />`;
}

function UnitChoice({ model, level, page, chosen, source }) {
  const scores = new Map(page.aligned.map((score) => [`${score.granularity}:${score.unit}`, score.cosine]));
  const kinds = Object.entries(page.units).filter(([granularity, units]) => units.length > 0 && granularity !== "sentences");
  if (kinds.length === 0) return html`<${Empty}>It has no text, so no word can be shown.<//>`;
  const choose = (key) => replaceQuery({ unit: key === chosen ? "" : key });
  return html`<section><h2>Where do the codes carry a word?</h2>
    ${kinds.map(([granularity, units]) => html`<p class="chips" key=${granularity}>${units.map((unit) => {
      const key = `${unit.granularity}:${unit.unit}`;
      const score = scores.get(key);
      return html`<button type="button" key=${unit.text} class="chip" aria-pressed=${key === chosen} disabled=${unit.unit === null} onClick=${() => choose(key)}>
        <bdi>${unit.text}</bdi>${score === undefined ? null : html` <small>${decimals(score)}</small>`}</button>`;
    })}</p>`)}
    ${chosen ? html`<p><a href=${link(["m", model.id, level.name, "unit", ...chosen.split(":")])}>Page of the chosen text</a></p>` : null}
    ${level.aligned.length === 0 ? null : html`<${Tabs} label="Source of the map" options=${[["statistics", "by the statistics"], ["aligned", "by the aligned space"]]} value=${source}
      onChange=${(key) => replaceQuery({ source: key === "statistics" ? "" : key })} />`}</section>`;
}

function Position({ model, level, page, at, marked }) {
  if (at === null) return html`<p class="note">Hover a position to see its code, click it to keep it, or draw over a patch.</p>`;
  const isKept = marked !== null && at[0] === marked.row && at[1] === marked.column;
  const codes = page.grids[level.name][at[0]]?.[at[1]] ?? [];
  return html`<section class="position"><h2>Row ${at[0]}, column ${at[1]}</h2>
      <div class="codes">${codes.map((code) => html`<${CodeCard} key=${code} model=${model.id} code=${gridCode(model, level, page, code)} note=${wordsOf(level, page, code)} />`)}</div>
      ${isKept ? null : html`<p class="note">Click it to keep it, and to see the lifts of its words.</p>`}</section>
    ${marked === null || offline ? null : html`<${MarkedPatch} key=${[level.name, ...Object.values(marked)].join("/")} model=${model} level=${level} page=${page} marked=${marked} />`}`;
}

/** The words of a code besides its label. */
function wordsOf(level, page, code) {
  const words = (page.words[level.name]?.[code] ?? []).filter((word) => word !== page.labels[level.name]?.[code]);
  return words.length === 0 ? null : words.join(", ");
}

function MarkedPatch({ model, level, page, marked }) {
  const [similar, setSimilar] = useState(null);
  const { row, column, height, width } = marked;
  const cells = page.grids[level.name].slice(row, row + height).flatMap((line) => line.slice(column, column + width));
  const codes = [...new Set(cells.flat())];
  const search = async () => {
    const body = { image: page.image, level: level.name, ...marked, limit: 48 };
    try {
      setSimilar({ found: await post(`/models/${model.id}/search/patch`, body) });
    } catch (error) {
      setSimilar({ error });
    }
  };
  return html`<section><h2>Kept: ${cells.length === 1 ? `row ${row}, column ${column}` : `${height} × ${width} positions from row ${row}, column ${column}`}</h2>
    <p><button type="button" onClick=${search}>Find patches like this one</button></p>
    ${cells.length > 1 ? html`<div class="codes">${codes.map((code) => html`<${CodeCard} key=${code} model=${model.id} code=${gridCode(model, level, page, code)} />`)}</div>`
      : codes.map((code) => html`<div key=${code}><p><b>${code}</b> <${PinButton} model=${model.id} level=${level.name} code=${code} /></p>
      <${Answer} path=${codePath(model.id, level.name, code)}>${(known) => html`<p class="chips">${(known.units.words ?? []).slice(0, 8).map((unit) => html`
        <${UnitChip} key=${unit.text} model=${model.id} level=${level.name} unit=${unit} note=${decimals(unit.lift)} uncertain=${!unit.certain} />`)}</p>`}<//></div>`)}
    ${similar?.error ? html`<${Failure} error=${similar.error} />` : null}
    ${similar?.found ? html`<${MissingParts} missing=${similar.found.missing} /><${Patches} model=${model} level=${level.name} patches=${similar.found.patches} />` : null}</section>`;
}
