// Calls of the service: every failure becomes a sentence, and what may pass is tried again with longer and longer pauses.

import { headers } from "./access.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
const PASSING = [429, 502, 503, 504]; // of the service or of a proxy in front of it
const STREAMED = /^(application\/x-ndjson|multipart\/)/; // the parts of these are read, or not, as they come
const UNREACHABLE = "The service cannot be reached.";
const UNKNOWN = {
  403: "Something in front of the service forbids this; ask who runs it.",
  404: "The service does not know this address; reload the page.",
  413: "The file is too large for a proxy in front of the service; send a smaller one.",
  502: "A proxy in front of the service does not reach it.",
  503: "The service is not available now.",
  504: "A proxy in front of the service got no answer in time.",
};

const ROOT = new URL("..", import.meta.url); // a proxy may serve the page below a path of its own

export class Unauthenticated extends Error {}

/** Pauses that double, and differ between pages, so that not all of them return at once (milliseconds). */
export class Backoff {
  constructor() {
    this.reset();
  }

  reset() {
    this.pause = FIRST_PAUSE_MS;
  }

  next() {
    const pause = this.pause * (0.75 + Math.random() / 4);
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE_MS);
    return pause;
  }
}

/** Wait; `waiting(reason, seconds)` hears every second how many are left. An abort of the signal ends it. */
export async function countdown(reason, milliseconds, waiting, signal) {
  for (let left = milliseconds; left > 0; left -= 1000) {
    waiting(reason, Math.ceil(left / 1000));
    await pause(Math.min(left, 1000), signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal.removeEventListener("abort", abort), resolve()), milliseconds);
    signal.addEventListener("abort", abort, { once: true });
  });
}

/** Return a text of the service as a sentence of the page. */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

/**
 * Fetch a path of the service until it answers; `waiting` is as for countdown, and hears "" when the wait is over.
 * Throws Unauthenticated, an Error with a sentence, or an AbortError.
 */
export async function call(path, { signal, waiting, ...options }) {
  const backoff = new Backoff();
  for (let waited = false; ; waited = true) {
    const { answer, reason, seconds } = await attempt(path, { ...options, signal });
    if (answer && waited) waiting("", 0);
    if (answer) return answer;
    await countdown(reason, Math.max(backoff.next(), seconds * 1000), waiting, signal);
  }
}

/** Return the address of a path of the service. */
export function address(path) {
  return new URL(path, ROOT);
}

/** Ask for one picture's segmentation. */
export function ask(query, image, options) {
  return call(`segment?${new URLSearchParams(query)}`, { method: "POST", body: image, ...options });
}

async function attempt(path, options) {
  let answer;
  try {
    answer = await fetch(address(path), { ...options, headers: headers() });
    if (answer.ok && !STREAMED.test(answer.headers.get("content-type"))) answer = new Response(await answer.blob(), answer);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // a TypeError of fetch: no answer, or not all of it
    return { reason: UNREACHABLE, seconds: 0 };
  }
  if (answer.ok) return { answer };
  const reason = await reasonOf(answer);
  if (answer.status === 401) throw new Unauthenticated(reason);
  if (!PASSING.includes(answer.status)) throw new Error(reason);
  return { reason, seconds: Number(answer.headers.get("retry-after")) || 0 };
}

async function reasonOf(answer) {
  if (answer.status === 401 && !headers().Authorization) return "This service requires a token: enter it under Access.";
  const problem = await answer.json().catch(() => ({})); // a proxy's own page is no JSON
  if (problem.detail) return sentence(problem.detail);
  return UNKNOWN[answer.status] ?? `The service gave an answer that this page does not expect (HTTP ${answer.status}); reload it.`;
}
