// Words, phrases and sentences: the lists, and the page of one with its codes both ways.

import { html } from "./vendor/htm-preact.js";
import { offline, withQuery } from "./api.js";
import { Answer, CodeCard, Empty, Fact, Images, LiftBar, MissingParts, Pager, UnitChip, count, decimals, share } from "./parts.js";
import { link, linkOf, replaceQuery } from "./route.js";

export function UnitsView({ overview, model, level, granularity, query }) {
  const path = withQuery(`/units/${granularity}`, query);
  return html`<h1>${granularity}</h1>
    <nav class="tabs" aria-label="Kinds of text">${Object.keys(overview.data.units).map((one) => html`
      <a key=${one} href=${link(["units", one])} aria-current=${one === granularity ? "page" : null}>${one}</a>`)}</nav>
    ${offline ? null : html`<form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label>Contains <input type="search" value=${query.query ?? ""} onInput=${(event) => replaceQuery({ query: event.currentTarget.value, offset: "" })} /></label></form>`}
    <${Answer} path=${path}>${(list) => html`<${MissingParts} missing=${list.missing} />
      ${list.units.length === 0 ? html`<${Empty}>No ${granularity} contain that.<//>` : null}
      <p class="chips">${list.units.map((unit) => html`<${UnitChip} key=${unit.unit} model=${model.id} level=${level} unit=${unit} note=${count(unit.images)} />`)}</p>
      <${Pager} total=${list.total} offset=${list.offset} linkAt=${(at) => link(["units", granularity], { ...query, offset: at })} />`}<//>`;
}

export function UnitView({ model, level, granularity, unit }) {
  const path = `/models/${model.id}/levels/${level.name}/units/${granularity}/${unit}`;
  return html`<${Answer} path=${path} heading="A text">${(page) => html`<${UnitPage} model=${model} level=${level} page=${page} />`}<//>`;
}

function UnitPage({ model, level, page }) {
  const tabs = model.levels.length < 2 ? null : html`<nav class="tabs" aria-label="Levels">${model.levels.map((one) => html`
    <a key=${one.name} href=${linkOf.unit(model.id, one.name, page)} aria-current=${one.name === level.name ? "page" : null}>${one.name}</a>`)}</nav>`;
  return html`<h1>“<bdi>${page.text}</bdi>”</h1>
    <p class="note">one of the ${page.granularity}; its codes in <bdi>${model.name}</bdi></p>${tabs}
    <${MissingParts} missing=${page.missing} />
    <div class="facts"><${Fact} value=${count(page.images)} name="images whose text has it" />
      ${page.aligned_lift === null ? null : html`<${Fact} value=${decimals(page.aligned_lift)} name="mean lift of the aligned codes" note="1 is chance: the images then do not bear the alignment out" />`}</div>
    <div class="side"><section><h2>Codes, by the statistics</h2>
        <p class="note">Their use grows most in images whose text has it.</p><${UnitCodes} model=${model} codes=${page.codes} empty="No code goes with it." /></section>
      <section><h2>Codes, by the aligned space</h2>
        <p class="note">Nearest to the text; beside them their rank by the statistics.</p>
        ${page.aligned.length === 0 ? html`<${NotAligned} model=${model} page=${page} />` : html`<div class="codes">${page.aligned.map((code) => html`
          <${CodeCard} key=${code.code} model=${model.id} code=${code} note=${`cosine ${decimals(code.cosine)} · lift ${decimals(code.lift)}, rank ${count(code.statistical_rank + 1)}`} />`)}</div>`}</section></div>
    <section><h2>Codes that tell it</h2><p class="note">Given the code, the text has it most often.</p>
      ${page.predictors.length === 0 ? html`<${Empty}>No code tells it with certainty.<//>` : html`<div class="codes">${page.predictors.map((code) => html`
        <${CodeCard} key=${code.code} model=${model.id} code=${code} note=${`wrong in ${share(1 - code.precision)} of ${count(code.with_code)}`} />`)}</div>`}</section>
    <section><h2>Images</h2><${Images} model=${model.id} rows=${page.examples} empty="No image has it." />
      <${MoreImages} page=${page} /></section>`;
}

function NotAligned({ model, page }) {
  const others = model.levels.filter((one) => one.aligned.includes(page.granularity));
  if (others.length === 0) return html`<${Empty}>There is no aligned space for these.<//>`;
  return html`<p class="empty">This model aligns ${page.granularity} with the codes of another level: ${others.map((one) => html`<a key=${one.name} href=${linkOf.unit(model.id, one.name, page)}>${one.name}</a> `)}</p>`;
}

function MoreImages({ page }) {
  return page.images > page.examples.length
    ? html`<p><a href=${link(["units", page.granularity, page.unit, "images"])}>All ${count(page.images)} images</a></p>` : null;
}

export function UnitImagesView({ model, granularity, unit, query }) {
  return html`<h1>Images whose text has it</h1>
    <${Answer} path=${withQuery(`/units/${granularity}/${unit}/images`, query)}>${(list) => html`<${Images} model=${model.id} rows=${list.images} empty="No image has it." />
      <${Pager} total=${list.total} offset=${list.offset} linkAt=${(at) => link(["units", granularity, unit, "images"], { offset: at })} />`}<//>`;
}

function UnitCodes({ model, codes, empty }) {
  if (codes.length === 0) return html`<${Empty}>${empty}<//>`;
  return html`<ul class="rows">${codes.map((code) => html`<li key=${code.code} class=${code.certain ? "" : "uncertain"}>
    <${CodeCard} model=${model.id} code=${code} note=${`in ${share(code.recall)} of its images`} /><${LiftBar} lift=${code.lift} ends=${code.interval} /></li>`)}</ul>`;
}
