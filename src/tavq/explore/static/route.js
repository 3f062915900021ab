// What the page shows is written after # in its address, so that every code, word, image and edit has a link.

import { useEffect, useState } from "./vendor/htm-preact.js";

/** Split "#/m/a/deep/code/3?at=1,2" into its parts and its query. */
function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  const parts = path.split("/").filter((part) => part !== "").map(decodePart);
  return { parts, query: Object.fromEntries(new URLSearchParams(query)) };
}

function decodePart(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

export function link(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(String(part))).join("/");
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return text === "" ? `#/${path}` : `#/${path}?${text}`;
}

export function go(parts, query = {}) {
  window.location.hash = link(parts, query);
}

/** Change the query of the address without a new entry in the history. */
export function replaceQuery(changes) {
  const { parts, query } = parseRoute(window.location.hash);
  window.history.replaceState(null, "", link(parts, { ...query, ...changes }));
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

export function useRoute() {
  const [hash, setHash] = useState(window.location.hash);
  useEffect(() => {
    const follow = () => setHash(window.location.hash);
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  return parseRoute(hash);
}

export const linkOf = {
  codes: (model, level, query) => link(["m", model, level, "codes"], query),
  code: (model, code) => link(["m", model, code.level, "code", code.code]),
  map: (model, level) => link(["m", model, level, "map"]),
  unit: (model, level, unit) => link(["m", model, level, "unit", unit.granularity, unit.unit]),
  image: (model, image, query) => link(["m", model, "image", image], query),
  patch: (model, level, patch) =>
    link(["m", model, "image", patch.image], { level, at: [patch.row, patch.column, patch.height, patch.width].join(",") }),
};
