// The list of images, and what a typed text, an uploaded image or a patch finds.

import { html, useState } from "./vendor/htm-preact.js";
import { offline, postFile, withQuery } from "./api.js";
import { Answer, CodeCard, Empty, Failure, Images, Loading, MissingParts, Pager, UnitChip, count } from "./parts.js";
import { link, linkOf, replaceQuery } from "./route.js";

export function ImagesView({ overview, model, query }) {
  const splits = Object.keys(overview.data.splits);
  return html`<h1>Images</h1>
    ${offline ? null : html`<form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <label>Words in a caption <input type="search" value=${query.query ?? ""} onChange=${(event) => replaceQuery({ query: event.currentTarget.value, offset: "" })} /></label>
      ${splits.length < 2 ? null : html`<label>Split <select value=${query.split ?? ""} onChange=${(event) => replaceQuery({ split: event.currentTarget.value, offset: "" })}>
        <option value="">all</option>${splits.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>`}</form>`}
    <${Answer} path=${withQuery("/images", query)}>${(list) => html`<${MissingParts} missing=${list.missing} />
      <p class="note" role="status">${count(list.total)} images</p>
      <${Images} model=${model.id} rows=${list.images} empty="No caption has these words." />
      <${Pager} total=${list.total} offset=${list.offset} linkAt=${(at) => link(["images"], { ...query, offset: at })} />`}<//>`;
}

// --- search -----------------------------------------------------------------------------------------------------

export function SearchView({ model, level, query }) {
  const text = query.text ?? "";
  return html`<h1>${text === "" ? "Search" : html`“<bdi>${text}</bdi>”`}</h1>
    ${offline ? html`<${Empty}>An offline page cannot search; start tavq explore.<//>` : html`<${Upload} model=${model} level=${level} />`}
    ${text === "" || offline ? null : html`<${Answer} path=${withQuery(`/models/${model.id}/search`, { text, level })}>${(found) => html`<${Found} model=${model} level=${level} found=${found} text=${text} />`}<//>`}`;
}

function Found({ model, level, found, text }) {
  return html`<${MissingParts} missing=${found.missing} />${found.notes.map((note) => html`<p class="note">${note}</p>`)}
    <section><h2>Words and phrases</h2>${found.units.length === 0 ? html`<${Empty}>No text of the images contains it.<//>` : html`
      <p class="chips">${found.units.map((unit) => html`<${UnitChip} key=${`${unit.granularity}/${unit.unit}`} model=${model.id} level=${level} unit=${unit} note=${`${unit.granularity}, ${count(unit.images)}`} />`)}</p>`}</section>
    <section><h2>Codes</h2>${found.codes.length === 0 ? html`<${Empty}>No code goes with it.<//>` : html`
      <div class="codes">${found.codes.map((code) => html`<${CodeCard} key=${code.code} model=${model.id} code=${code} />`)}</div>`}</section>
    <section><h2>Images near it in the aligned space</h2><${Images} model=${model.id} rows=${found.aligned} empty="None: the model has no aligned space for it." /></section>
    <section><h2>Images with it in a caption</h2><${Images} model=${model.id} rows=${found.captions.images} empty="None." />
      ${found.captions.total > found.captions.images.length ? html`<p><a href=${link(["images"], { query: text })}>All ${count(found.captions.total)}</a></p>` : null}</section>`;
}

function Upload({ model, level }) {
  const [state, setState] = useState({ result: null, error: null, loading: false });
  const send = (file) => {
    if (!file) return;
    setState({ result: null, error: null, loading: true });
    postFile(`/models/${model.id}/search/image`, file).then(
      (result) => setState({ result, error: null, loading: false }),
      (error) => setState({ result: null, error, loading: false }),
    );
  };
  const drop = (event) => { event.preventDefault(); send(event.dataTransfer.files[0]); };
  return html`<label class="drop" onDragOver=${(event) => event.preventDefault()} onDrop=${drop}>Search by an image: choose a file, or drop one here
      <input type="file" accept="image/*" onChange=${(event) => send(event.currentTarget.files[0])} /></label>
    ${state.loading ? html`<${Loading} />` : null}
    ${state.error === null ? null : html`<${Failure} error=${state.error} />`}
    ${state.result === null ? null : html`<${Uploaded} model=${model} level=${level} result=${state.result} />`}`;
}

function Uploaded({ model, level, result }) {
  return html`<${MissingParts} missing=${result.missing} />
    <section><h2>Your image</h2><${Images} model=${model.id} rows=${[result.upload]} empty="" />
      <p><a href=${linkOf.image(model.id, result.upload.image)}>Its codes</a></p>
      ${result.units.length === 0 ? null : html`<h3>Words that its codes suggest</h3><p class="chips">${result.units.map((unit) => html`
        <${UnitChip} key=${unit.unit} model=${model.id} level=${level} unit=${unit} />`)}</p>`}</section>
    <section><h2>Like it by codes</h2><${Images} model=${model.id} rows=${result.by_codes} empty="None." /></section>
    ${result.aligned.length === 0 ? null : html`<section><h2>Like it in the aligned space</h2><${Images} model=${model.id} rows=${result.aligned} empty="None." /></section>`}`;
}
