// Tasks asked before and after an edit: captions, answers, missing words and completions.

import { html, useState } from "./vendor/htm-preact.js";
import { post } from "./api.js";
import { Failure, Loading, MissingParts, Img, share as percent } from "./parts.js";

const NEEDS_QUESTION = { vqa: "What is in the image?", "masked-words": "a ___ in the image" };

export function TaskQuestions({ model, result }) {
  if (model.tasks.length === 0) return null;
  return html`<section><h2>Ask again</h2>${model.tasks.map((task) => html`<${TaskQuestion} key=${`${task}/${result.share}`} task=${task} masks=${model.masks[task] ?? []} share=${result.share} />`)}</section>`;
}

function TaskQuestion({ task, masks, share }) {
  const [question, setQuestion] = useState(NEEDS_QUESTION[task] ?? "");
  const [mask, setMask] = useState(masks[0]);
  const [state, setState] = useState({ reply: null, error: null, loading: false });
  const asks = task in NEEDS_QUESTION;
  const hides = masks.length > 0;
  const ask = async (event) => {
    event.preventDefault();
    setState({ reply: null, error: null, loading: true });
    try {
      const body = { share, task, ...(asks ? { question } : {}), ...(hides ? { mask } : {}) };
      setState({ reply: await post("/edits/ask", body), error: null, loading: false });
    } catch (error) {
      setState({ reply: null, error, loading: false });
    }
  };
  return html`<form class="ask" onSubmit=${ask}><h3>${task}</h3>
    ${asks ? html`<label>${task === "vqa" ? "Question" : "Caption with ___ for each gap"} <input value=${question} maxlength="500" onInput=${(event) => setQuestion(event.currentTarget.value)} /></label>` : null}
    ${hides ? html`<label>Hidden part <select value=${mask} onChange=${(event) => setMask(event.currentTarget.value)}>${masks.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select></label>` : null}
    <button type="submit" disabled=${state.loading}>Ask before and after</button>
    ${state.loading ? html`<${Loading} />` : null}
    ${state.error === null ? null : html`<${Failure} error=${state.error} />`}
    ${state.reply === null ? null : html`<${Reply} reply=${state.reply} />`}</form>`;
}

function Reply({ reply }) {
  const sides = [["before", reply.before, reply.before_images], ["after", reply.after, reply.after_images]];
  const several = reply.before.some((one) => one.gap > 0);
  return html`<${MissingParts} missing=${reply.missing} />${reply.notes.map((note) => html`<p class="note">${note}</p>`)}
    <div class="side">${sides.map(([name, texts, images]) => html`<div key=${name}><h4>${name}</h4>
      <ul class="rows">${texts.map((one) => html`<li>${several ? html`<small>gap ${one.gap + 1}</small> ` : null}<bdi>${one.text}</bdi>${one.probability === null ? null : html` <small>${percent(one.probability)}</small>`}</li>`)}</ul>
      <div class="images">${images.map((url, i) => html`<${Img} key=${i} url=${url} alt=${`Completion ${i + 1} ${name} the edit`} size=${128} />`)}</div></div>`)}</div>`;
}
