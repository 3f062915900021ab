// The page of one code: what it looks like, where it is, what it goes with, and whether its label holds.

import { html, useState } from "./vendor/htm-preact.js";
import { Answer, Associations, CodeCard, Empty, Fact, MissingParts, PatchLink, Img, Tabs, UnitChip, count, decimals, interval, share } from "./parts.js";
import { HeatMap } from "./heat.js";
import { link, linkOf } from "./route.js";
import { PinButton } from "./pins.js";

export const codePath = (model, level, code) => `/models/${model}/levels/${level}/codes/${code}`;

export function CodeView({ model, level, code }) {
  const entries = level.entries;
  return html`<nav class="steps" aria-label="Codes beside this one">
      ${code > 0 ? html`<a rel="prev" href=${link(["m", model.id, level.name, "code", code - 1])}>← ${code - 1}</a>` : html`<span></span>`}
      <a href=${linkOf.codes(model.id, level.name)}>all codes</a>
      ${code + 1 < entries ? html`<a rel="next" href=${link(["m", model.id, level.name, "code", code + 1])}>${code + 1} →</a>` : html`<span></span>`}</nav>
    <${Answer} path=${codePath(model.id, level.name, code)} heading=${`Code ${code}`}>${(page) => html`<${CodePage} model=${model} page=${page} />`}<//>`;
}

function CodePage({ model, page }) {
  return html`<${CodeHead} model=${model} page=${page} />
    <${MissingParts} missing=${page.missing} />
    <${HeldOut} model=${model} page=${page} />
    <section><h2>In images</h2><${Contexts} model=${model} page=${page} /><${Examples} model=${model} page=${page} /></section>
    <${Words} model=${model} page=${page} />
    <${Neighbours} model=${model} page=${page} />
    <${Places} model=${model} page=${page} />`;
}

/** Tile, name and numbers; also used where two codes stand side by side. */
export function CodeHead({ model, page }) {
  return html`<header class="code-head"><${Img} url=${page.tile} alt=${`Code ${page.code} decoded alone`} className="tile large" size=${96} />
      ${page.mean_context === null ? null : html`<${Img} url=${page.mean_context} alt=${`Code ${page.code} among the mean of its surroundings`} className="tile large" size=${96} />`}
      <div><h1>Code ${page.code}${page.name ? html` · <bdi>${page.name}</bdi>` : null}${page.label ? html` · <bdi>${page.label}</bdi>` : null}</h1>
        <p class="note">${page.level} level${page.part ? `, part ${page.part}` : ""} of <bdi>${model.name}</bdi>${page.dead ? " · never used" : ""}</p>
        <${PinButton} model=${model.id} level=${page.level} code=${page.code} /></div></header>
    <div class="facts">
      <${Fact} value=${count(page.count)} name=${`positions, ${share(page.fraction)}`} note=${`in ${count(page.images)} images`} />
      <${Fact} value=${page.certainty === null ? "–" : decimals(page.certainty)} name="lift of its label" note=${page.precision === null ? "no label is certain" : `wrong in ${share(1 - page.precision)} of the images where it is prominent`} />
      <${Fact} value=${page.entropy === null ? "–" : `${decimals(page.entropy)} bits`} name="entropy over words" note=${page.specificity === null ? "" : `${decimals(page.specificity)} bits from all images' words`} />
      <${Fact} value=${decimals(page.position_bias)} name="bound to a position" note="0 everywhere equally often, 1 at one" /></div>`;
}

function HeldOut({ model, page }) {
  const held = page.held_out;
  if (held === null) return null;
  const verdict = held.confirmed ? "confirmed" : "not confirmed";
  return html`<p class=${`verdict ${held.confirmed ? "yes" : "no"}`}><strong>${verdict}</strong> on ${count(held.images)} images kept apart: ${" "}<${UnitChip} model=${model.id} level=${page.level} unit=${held} /> has a lift of ${decimals(held.lift)} (${interval(held.interval)});
    other codes' labels ${decimals(held.shuffled)}. It is wrong in ${share(1 - held.precision)} of them, by chance in ${share(1 - held.base_rate)}.</p>`;
}

function Contexts({ model, page }) {
  if (page.contexts.length === 0) return html`<${Empty}>No image has it.<//>`;
  return html`<div class="contexts">${page.contexts.map((context) => html`<figure key=${`${context.image}/${context.row}/${context.column}`}>
    <div class="trio"><${PatchLink} model=${model.id} level=${page.level} patch=${context} size=${104} />
      ${context.decoded === null ? null : html`<${Img} url=${context.decoded} alt="The reconstruction around it" size=${104} />`}
      ${context.without === null ? null : html`<${Img} url=${context.without} alt="The reconstruction after the code was removed" size=${104} />`}</div>
    <figcaption>image${context.decoded === null ? "" : ", reconstruction"}${context.without === null ? "" : ", without the code"}</figcaption></figure>`)}</div>`;
}

function Examples({ model, page }) {
  const [order, setOrder] = useState("closest");
  if (page.count === 0) return null;
  const more = `${codePath(model.id, page.level, page.code)}/examples?order=images&limit=60`;
  return html`<${Tabs} label="Which positions" options=${[["closest", "nearest to the entry"], ["images", "every position"]]} value=${order} onChange=${setOrder} />
    ${order === "closest" ? html`<${Patches} model=${model} level=${page.level} patches=${page.examples} />`
      : html`<${Answer} path=${more}>${(list) => html`<${Patches} model=${model} level=${page.level} patches=${list.patches} />
          <p class="note">${count(list.patches.length)} of ${count(list.total)} positions</p>`}<//>`}`;
}

export function Patches({ model, level, patches }) {
  return html`<div class="patches">${patches.map((patch) => html`
    <${PatchLink} key=${`${patch.image}/${patch.row}/${patch.column}`} model=${model.id} level=${level} patch=${patch} />`)}</div>`;
}

function Words({ model, page }) {
  const kinds = Object.entries(page.units).filter(([, rows]) => rows.length > 0);
  return html`<section><h2>Text that goes with it</h2>
    ${kinds.length === 0 ? html`<${Empty}>Nothing is known of its text.<//>` : null}
    ${kinds.map(([granularity, rows]) => html`<h3>${granularity}</h3><${Associations} model=${model.id} level=${page.level} rows=${rows} />`)}
    ${page.against.length === 0 ? null : html`<h3>Words that its images have less often</h3>
      <p class="chips">${page.against.map((unit) => html`<${UnitChip} key=${unit.text} model=${model.id} level=${page.level} unit=${unit} note=${decimals(unit.lift)} />`)}</p>`}
    ${Object.entries(page.aligned).map(([granularity, units]) => html`<h3>Nearest ${granularity} in the aligned space</h3>
      <p class="chips">${units.map((unit) => html`<${UnitChip} key=${unit.text} model=${model.id} level=${page.level} unit=${unit}
        note=${`cosine ${decimals(unit.cosine)}, lift ${decimals(unit.lift)}`} uncertain=${unit.lift < 1.05} />`)}</p>`)}</section>`;
}

const SENSES = { codebook: "by the codebook's distance", decoded: "by what they decode to", words: "by the words of their images" };

function Neighbours({ model, page }) {
  return html`<section><h2>Neighbours</h2>${Object.entries(SENSES).map(([sense, title]) => {
    const codes = page.neighbours[sense];
    return html`<h3>${title}</h3>${codes === undefined ? html`<${Empty}>That cannot be computed for this code.<//>`
      : html`<div class="codes">${codes.map((code) => html`<${CodeCard} key=${code.code} model=${model.id} code=${code} note=${decimals(code.distance)} />`)}</div>`}`;
  })}</section>`;
}

const away = (steps, before, after) => (steps === 0 ? "" : `${Math.abs(steps)} ${steps < 0 ? before : after}`);

function Surroundings({ model, page }) {
  const reach = (page.surroundings.length - 1) / 2;
  const cell = (code, dy, dx) => {
    if (dy === 0 && dx === 0) return html`<span class="self"><${Img} url=${page.tile} alt=${`Code ${page.code}`} className="tile" size=${48} /></span>`;
    if (code === null) return html`<span class="nothing" aria-hidden="true"></span>`;
    const says = `${[away(dy, "up", "down"), away(dx, "left", "right")].filter(Boolean).join(", ")}: code ${code.code}${code.label === null ? "" : ` (${code.label})`} in ${share(code.share)}, lift ${decimals(code.lift)}`;
    return html`<a href=${linkOf.code(model.id, code)} title=${says}><${Img} url=${code.tile} alt=${says} className="tile" size=${48} />${code.tile === null ? code.code : null}</a>`;
  };
  return html`<h3>What surrounds it</h3>
    <p class="note">At each offset, the code that is found there most beyond its share of all positions.</p>
    <div class="surroundings">${page.surroundings.flatMap((row, y) => row.map((code, x) => cell(code, y - reach, x - reach)))}</div>`;
}

function Places({ model, page }) {
  if (page.count === 0) return null;
  return html`<section><h2>Where it is, and with which codes</h2><div class="side">
    <${HeatMap} grid=${page.position_map} label=${`How often code ${page.code} is at each position`} unit="times" />
    <div>${page.cooccurrences.length === 0 ? html`<${Empty}>No other code is prominent in the same images more often than by chance.<//>` : null}
      <div class="codes">${page.cooccurrences.map((code) => html`<${CodeCard} key=${code.code} model=${model.id} code=${code} note=${`${count(code.both)} images, lift ${decimals(code.lift)}`} />`)}</div></div></div>
    <${Surroundings} model=${model} page=${page} /></section>`;
}
