// Codes that the user pinned, to compare two of them, of one model or of two. They live as long as the tab.

import { html, useEffect, useState } from "./vendor/htm-preact.js";
import { link } from "./route.js";

const KEY = "tavq-pins";
const CHANGED = "tavq-pins-changed";
const MOST = 6;

function readPins() {
  try {
    const stored = JSON.parse(window.sessionStorage.getItem(KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter((pin) => typeof pin === "string") : [];
  } catch {
    return [];
  }
}

let pins = readPins();

function setPins(next) {
  pins = next.slice(-MOST);
  try {
    window.sessionStorage.setItem(KEY, JSON.stringify(pins));
  } catch {
    // A page from a file may have no storage; the pins then last until it is closed.
  }
  window.dispatchEvent(new Event(CHANGED));
}

export function usePins() {
  const [, draw] = useState(0);
  useEffect(() => {
    const follow = () => draw((times) => times + 1);
    window.addEventListener(CHANGED, follow);
    return () => window.removeEventListener(CHANGED, follow);
  }, []);
  return pins;
}

/** The form in which /compare/codes takes a code. */
const pinOf = (model, level, code) => `${model}:${level}:${code}`;

export function PinButton({ model, level, code }) {
  const pin = pinOf(model, level, code);
  const held = usePins().includes(pin);
  const toggle = () => setPins(held ? pins.filter((one) => one !== pin) : [...pins, pin]);
  return html`<button type="button" aria-pressed=${held} onClick=${toggle}>${held ? "Unpin" : "Pin to compare"}</button>`;
}

/** The pinned codes at the foot of the window. */
export function PinBar() {
  const held = usePins();
  if (held.length === 0) return null;
  const [first, second] = held.slice(-2);
  return html`<aside class="pin-bar" aria-label="Pinned codes">
    ${held.map((pin) => {
      const [model, level, code] = pin.split(":");
      return html`<span key=${pin} class="pin"><a href=${link(["m", model, level, "code", code])}>${code} <small>${level}, ${model}</small></a>
        <button type="button" aria-label=${`Unpin code ${code}`} onClick=${() => setPins(held.filter((one) => one !== pin))}>×</button></span>`;
    })}
    ${second === undefined ? html`<span class="note">Pin another code to compare.</span>` : html`<a class="button" href=${link(["compare", "codes"], { first, second })}>Compare the last two</a>`}</aside>`;
}
