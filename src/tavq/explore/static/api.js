// Requests to the server, or to the bundle of an offline page; answers are kept while the page is open.

const PREFIX = "/api/v1";
const KEPT = 300;

class ApiError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function readBundle() {
  const element = document.getElementById("bundle");
  return element === null ? null : JSON.parse(element.textContent);
}

const bundle = readBundle();
const answers = new Map();

export const offline = bundle !== null;

/** The address of an image for <img>; null where an offline page does not hold it. */
export function imageUrl(url) {
  if (url === null || url === undefined) return null;
  if (!offline || url.startsWith("data:")) return url;
  return bundle.images[url] ?? null;
}

/** The addresses whose answers an offline page holds, with the answers. */
export const heldAnswers = () =>
  Object.entries(offline ? bundle.answers : {}).map(([address, answer]) => [address.slice(PREFIX.length), answer]);

export function leftOut() {
  return offline ? bundle.left_out : {};
}

/** A path with its query, in which values that are null, undefined or "" are left out. */
export function withQuery(path, query) {
  const pairs = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = new URLSearchParams(pairs).toString();
  return text === "" ? path : `${path}?${text}`;
}

async function readAnswer(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!type.includes("json")) throw new ApiError("failed", `The server answered with ${response.status}.`);
  const body = await response.json();
  if (!response.ok) throw new ApiError(body.error?.code ?? "failed", body.error?.message ?? `Status ${response.status}`);
  return body;
}

async function request(path, options) {
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(`${PREFIX}${path}`, { credentials: "same-origin", ...options });
    } catch {
      throw new ApiError("failed", "The server does not answer. Is tavq explore still running?");
    }
    if (response.status !== 503 || attempt >= 4) return readAnswer(response);
    await new Promise((resolve) => setTimeout(resolve, 400 * (attempt + 1)));
  }
}

/** The answer of a GET request; asked once, unless it failed. */
export function get(path) {
  if (offline) {
    const answer = bundle.answers[`${PREFIX}${path}`];
    if (answer !== undefined) return Promise.resolve(answer);
    return Promise.reject(new ApiError("not_found", "This offline page does not hold it; start tavq explore to see it."));
  }
  if (!answers.has(path)) {
    if (answers.size >= KEPT) answers.delete(answers.keys().next().value);
    const answer = request(path, {});
    answers.set(path, answer);
    answer.catch(() => answers.delete(path));
  }
  return answers.get(path);
}

/** The answer of a GET request that differs each time. */
export function getFresh(path) {
  return request(path, { cache: "no-store" });
}

export function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body) });
}

export function postFile(path, file) {
  return request(path, { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file });
}
