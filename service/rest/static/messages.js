// What the page says to its reader: what goes on, what is waited for, and what went wrong.

import { Unauthenticated } from "./service.js";

const byId = (id) => document.getElementById(id);

/** Say what goes on. The seconds of a countdown are seen, but not spoken: they change too often. */
export function say(text, seconds) {
  if (byId("status").textContent !== text) byId("status").textContent = text;
  byId("countdown").textContent = seconds ? ` in ${seconds} s.` : "";
}

/** Say that something is tried again in some seconds, and why; an empty reason takes it back. */
export function wait(reason, seconds) {
  say(reason && `${reason} Trying again`, seconds);
}

/** Say what is wrong and what to do; an empty text takes it away. */
export function complain(text) {
  byId("error").textContent = text;
  if (text) say("");
}

/** Say what an error means. Only errors of this page's own making hold a sentence. */
export function explain(error) {
  if (error.name === "AbortError") return; // another source was begun
  if (error instanceof Unauthenticated) byId("access").hidden = false;
  const ours = error.constructor === Error || error instanceof Unauthenticated;
  complain(ours ? error.message : `The page failed (${error.message}): reload it, and choose the source again.`);
}

/** Return an action that ends in a result or in one sentence for the reader. */
export function guarded(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      explain(error);
    }
  };
}
