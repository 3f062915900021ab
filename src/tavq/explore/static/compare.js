// Two codes side by side, and several models by the codes of their words.

import { html } from "./vendor/htm-preact.js";
import { withQuery } from "./api.js";
import { Answer, Associations, CodeCard, Empty, Fact, LiftBar, MissingParts, Pager, UnitChip, count, decimals, share } from "./parts.js";
import { CodeHead, Patches } from "./code.js";
import { HeatMap } from "./heat.js";
import { link, replaceQuery } from "./route.js";

/** Words on a page of several models, whose answer takes as long as it has words times models. */
const WORDS = 30;

export function CompareCodesView({ overview, query }) {
  if (!query.first || !query.second) return html`<h1>Compare two codes</h1><${Empty}>Pin two codes on their pages, then compare them from the bar below.<//>`;
  return html`<${Answer} path=${withQuery("/compare/codes", { first: query.first, second: query.second })} heading="Two codes">${(pair) => html`<${Pair} overview=${overview} pair=${pair} />`}<//>`;
}

function Pair({ overview, pair }) {
  const sides = [pair.first, pair.second].map((page, i) => [page, overview.models.find((model) => model.id === pair.models[i])]);
  return html`<h1>Two codes</h1><div class="facts">
      <${Fact} value=${`${count(pair.images_both)} of ${count(pair.images_either)}`} name="images where both are prominent, of those where either is" />
      <${Fact} value=${share(pair.overlap)} name="of their positions are shared" />
      <${Fact} value=${pair.words === null ? "–" : decimals(pair.words)} name="cosine of their words" /></div>
    <div class="side even">${sides.map(([page, model]) => html`<article key=${`${model.id}/${page.level}/${page.code}`}>
      <${CodeHead} model=${model} page=${page} /><${MissingParts} missing=${page.missing} />
      <${Patches} model=${model} level=${page.level} patches=${page.examples.slice(0, 12)} />
      <${Associations} model=${model.id} level=${page.level} rows=${(page.units.words ?? []).slice(0, 10)} />
      ${page.count === 0 ? null : html`<${HeatMap} grid=${page.position_map} label=${`How often code ${page.code} is at each position`} unit="times" />`}</article>`)}</div>`;
}

export function CompareModelsView({ overview, level, query }) {
  const chosen = (query.models ?? overview.models.map((model) => model.id).join(",")).split(",");
  if (overview.models.length < 2) return html`<h1>Compare models</h1><${Empty}>One model is open. Give several to tavq explore to compare them.<//>`;
  const toggle = (id) => {
    const next = chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id];
    if (next.length > 0) replaceQuery({ models: next.join(","), offset: "" });
  };
  const path = withQuery("/compare/models", { models: chosen.join(","), level: query.level ?? level, offset: query.offset, limit: WORDS });
  return html`<h1>Models by their words</h1>
    <div class="tabs" role="group" aria-label="Models">${overview.models.map((model) => html`<button type="button" key=${model.id} aria-pressed=${chosen.includes(model.id)} onClick=${() => toggle(model.id)}><bdi>${model.name}</bdi></button>`)}</div>
    <${Answer} path=${path}>${(answer) => html`<${MissingParts} missing=${answer.missing} />
      <div class="scroll"><table><thead><tr><th scope="col">word</th>${answer.models.map((id) => html`<th scope="col" key=${id}>best code of <bdi>${overview.models.find((model) => model.id === id)?.name ?? id}</bdi></th>`)}</tr></thead>
        <tbody>${answer.words.map((word) => html`<tr key=${word.unit.unit}><th scope="row"><${UnitChip} model=${answer.models[0]} level=${answer.level} unit=${word.unit} note=${count(word.unit.images)} /></th>
          ${word.best.map((code, i) => html`<td key=${i}>${code === null ? "–" : html`<${CodeCard} model=${answer.models[i]} code=${code} /><${LiftBar} lift=${code.lift} ends=${code.interval} />`}</td>`)}</tr>`)}</tbody></table></div>
      <${Pager} page=${WORDS} total=${answer.total} offset=${answer.offset} linkAt=${(at) => link(["compare", "models"], { ...query, offset: at })} />`}<//>`;
}
