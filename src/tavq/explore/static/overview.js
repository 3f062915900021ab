// The first page: what is explored, what can be said of it, and where to start.

import { html } from "./vendor/htm-preact.js";
import { Answer, CodeCard, Fact, Images, MissingParts, count, decimals, interval, share } from "./parts.js";
import { heldAnswers, leftOut, offline } from "./api.js";
import { link, linkOf } from "./route.js";

const HELD = [
  [/^\/models\/([^/]+)\/levels\/(\w+)\/codes\/\d+$/, ([, model], page) => [linkOf.code(model, page), `code ${page.code}${page.label ? ` · ${page.label}` : ""}`]],
  [/^\/models\/([^/]+)\/levels\/(\w+)\/units\/\w+\/\d+$/, ([, model, level], page) => [linkOf.unit(model, level, page), `“${page.text}”`]],
  [/^\/models\/([^/]+)\/images\/\d+$/, ([, model], page) => [linkOf.image(model, page.image), page.key]],
];

/** Links to what an offline page holds. */
function Held() {
  const links = HELD.flatMap(([form, linkTo]) => heldAnswers().filter(([path]) => form.test(path)).map(([path, page]) => linkTo(form.exec(path), page)));
  return html`<details open=${links.length <= 12}><summary>It holds ${count(links.length)} codes, texts and images</summary>
    <p class="chips">${links.map(([href, text]) => html`<a class="chip" key=${href} href=${href}><bdi>${text}</bdi></a>`)}</p></details>`;
}

export function OverviewView({ overview, model, level }) {
  const { data } = overview;
  const splits = Object.entries(data.splits).map(([name, images]) => `${count(images)} ${name}`).join(", ");
  const left = Object.entries(leftOut()).filter(([, number]) => number > 0);
  return html`
    <h1><bdi>${data.name}</bdi></h1>
    <p class="lead">What does a code mean, and is that true? Type a word above, or start from a code or an image.</p>
    ${offline ? html`<p class="note">This page works without a server and holds a chosen part.
      ${left.length ? ` Left out: ${left.map(([kind, number]) => `${count(number)} ${kind}`).join(", ")}.` : ""}</p><${Held} />` : null}
    <div class="facts">
      <${Fact} value=${count(data.images)} name="images" note=${splits} />
      <${Fact} value=${count(data.with_text)} name="of them with text" />
      ${Object.entries(data.units).map(([granularity, number]) => html`
        <${Fact} key=${granularity} value=${html`<a href=${link(["units", granularity])}>${count(number)}</a>`} name=${granularity} />`)}
      <${Fact} value=${count(data.held_out)} name="images kept apart" note="labels are chosen on the others and tested on these" />
    </div>
    <${MissingParts} missing=${overview.missing} />
    ${overview.models.map((one) => html`<${ModelSection} key=${one.id} model=${one} />`)}
    <section><h2>Codes that are used most</h2>
      <${Answer} path=${`/models/${model.id}/levels/${level}/codes`}>${(list) => html`
        <div class="codes">${list.codes.slice(0, 24).map((code) => html`
          <${CodeCard} key=${code.code} model=${model.id} code=${code} note=${share(code.fraction)} />`)}</div>`}<//>
      <p><a href=${linkOf.codes(model.id, level)}>All codes, filtered and sorted</a> · <a href=${linkOf.map(model.id, level)}>Map of the codebook</a></p></section>
    <section><h2>Images</h2>
      <${Answer} path="/images">${(list) => html`<${Images} model=${model.id} rows=${list.images.slice(0, 12)} empty="There are none." />`}<//>
      <p><a href=${link(["images"])}>All images</a></p></section>`;
}

function ModelSection({ model }) {
  return html`<section><h2><bdi>${model.name}</bdi></h2>
    <p class="note">${model.quantizer} quantizer, ${model.codebook} codebook, ${model.aligner === null ? "no alignment" : `aligned by ${model.aligner}`}, ${" "}
      ${model.size} px${model.step === null ? "" : `, step ${count(model.step)}`}, weights <code>${model.sha256.slice(0, 12)}</code></p>
    <${MissingParts} missing=${model.missing} />
    <div class="scroll"><table><thead><tr><th scope="col">level</th><th scope="col">grid</th><th scope="col" class="number">entries</th>
      <th scope="col" class="number">used</th><th scope="col">words guessed from codes of images kept apart (AUC)</th><th scope="col">labels confirmed there</th><th scope="col">see</th></tr></thead>
      <tbody>${model.levels.map((level) => html`<${LevelRow} key=${level.name} model=${model} level=${level} />`)}</tbody></table></div></section>`;
}

function LevelRow({ model, level }) {
  const score = model.held_out.find((one) => one.level === level.name);
  return html`<tr><th scope="row">${level.name}${level.decodes ? "" : html` <small>not decoded</small>`}</th>
    <td>${level.height} × ${level.width}${level.parts.length > 1 ? ` × ${level.parts.length} parts` : ""}</td>
    <td class="number">${count(level.entries)}</td><td class="number">${count(level.used)}</td>
    <td>${score === undefined ? "–" : html`${decimals(score.auc, 3)} <small>${interval(score.interval, 3)}; shuffled ${decimals(score.shuffled, 3)}</small>`}</td>
    <td>${score === undefined ? "–" : html`${count(score.confirmed)} of ${count(score.codes)} <small>exchanged: ${count(score.confirmed_shuffled)}</small>`}</td>
    <td><a href=${linkOf.codes(model.id, level.name)}>codes</a> · <a href=${linkOf.map(model.id, level.name)}>map</a> · <a href=${link(["m", model.id, level.name, "game"])}>game</a></td></tr>`;
}
