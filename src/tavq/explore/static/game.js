// The guessing game: which word goes with a code? Answers are logged on this machine only.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { getFresh, offline, post } from "./api.js";
import { Empty, Failure, Loading, Img, count, interval, share } from "./parts.js";
import { LevelTabs } from "./codes.js";
import { link } from "./route.js";

export function GameView({ model, level }) {
  const [state, setState] = useState({ puzzle: null, verdict: null, error: null });
  const started = useRef(0);
  const deal = async () => {
    setState({ puzzle: null, verdict: null, error: null });
    try {
      setState({ puzzle: await getFresh(`/models/${model.id}/game?level=${level.name}`), verdict: null, error: null });
      started.current = performance.now();
    } catch (error) {
      setState({ puzzle: null, verdict: null, error });
    }
  };
  useEffect(() => { if (!offline) deal(); }, [model.id, level.name]);
  const guess = async (choice) => {
    const seconds = (performance.now() - started.current) / 1000;
    try {
      const verdict = await post(`/models/${model.id}/game`, { puzzle: state.puzzle.puzzle, choice, seconds });
      setState((before) => ({ ...before, verdict }));
    } catch (error) {
      setState((before) => ({ ...before, error }));
    }
  };
  return html`<h1>Which word goes with this code?</h1><${LevelTabs} model=${model} level=${level} view="game" />
    <p class="note">The patches are of images that were kept apart when the label was chosen. Your guesses are written to a file on this machine.</p>
    ${offline ? html`<${Empty}>An offline page has no game.<//>` : null}
    ${state.error === null ? null : html`<${Failure} error=${state.error} />`}
    ${state.puzzle === null ? (state.error === null && !offline ? html`<${Loading} />` : null) : html`<${Puzzle} model=${model} state=${state} guess=${guess} deal=${deal} />`}`;
}

function Puzzle({ model, state, guess, deal }) {
  const { puzzle, verdict } = state;
  return html`<div class="game"><${Img} url=${puzzle.tile} alt="The code decoded alone" className="tile large" size=${96} />
    <div class="patches">${puzzle.patches.map((patch, i) => html`<${Img} key=${i} url=${patch.url} alt=${`Patch ${i + 1} with the code`} size=${96} />`)}</div>
    <div class="choices">${puzzle.choices.map((choice) => html`<button type="button" key=${choice} disabled=${verdict !== null} class=${verdict === null ? "" : choice === verdict.answer ? "yes" : choice === verdict.choice ? "no" : ""} onClick=${() => guess(choice)}><bdi>${choice}</bdi></button>`)}</div>
    <div role="status">${verdict === null ? null : html`<p class=${`verdict ${verdict.right ? "yes" : "no"}`}><strong>${verdict.right ? "Right" : "Wrong"}.</strong> Its label is “<bdi>${verdict.answer}</bdi>”. <a href=${link(["m", model.id, puzzle.level, "code", puzzle.code])}>Code ${puzzle.code}</a></p>
      <p>${count(verdict.score.right)} of ${count(verdict.score.guesses)} right${verdict.score.interval === null ? "" : ` (${interval(verdict.score.interval)})`}, by chance ${share(verdict.score.chance)}.</p>
      <button type="button" onClick=${deal}>Another code</button>`}</div></div>`;
}
