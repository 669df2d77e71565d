// The buttons below "Result": save what is shown, show its side outputs, copy the same call for a program.

import { headers } from "./access.js";
import { guarded, say } from "./messages.js";
import { curlOf, maskOf, overlayOf, png, pythonOf, save, stem } from "./results.js";
import { ask } from "./service.js";

const byId = (id) => document.getElementById(id);
const BUTTONS = ["save-mask", "save-overlay", "save-json", "show-maps"].map(byId);

/** Offer what there is for what is shown, null for nothing; buttons are enabled once it is segmented. */
export function offer(shown, settings) {
  BUTTONS.forEach((button) => (button.disabled = !shown?.probability));
  if (byId("programs").open) showPrograms(shown, settings);
}

/** Listen to the buttons; `page` has shown(), settings() and calling(), the options of a call. */
export function offerActions(page) {
  const act = (id, action) => byId(id).addEventListener("click", guarded(() => action(page.shown(), page)));
  act("save-mask", async ({ name, probability }) => save(await maskOf(probability, page.settings()), `${stem(name)}-mask.png`));
  act("save-overlay", async ({ name, picture, probability }) => {
    save(await overlayOf(picture, probability, page.settings()), `${stem(name)}-overlay.png`);
  });
  act("save-json", saveJson);
  act("show-maps", showMaps);
  act("copy-curl", () => copy(byId("curl")));
  act("copy-python", () => copy(byId("python")));
  byId("programs").addEventListener("toggle", () => showPrograms(page.shown(), page.settings()));
}

/** Return the picture that is shown, encoded; of a video the current frame. */
async function encoded({ still, picture }) {
  return still?.image ?? png(picture);
}

async function saveJson(shown, { settings, calling }) {
  const answer = await ask({ output: "json", threshold: settings().threshold }, await encoded(shown), calling());
  save(await answer.blob(), `${stem(shown.name)}-polyps.json`);
}

async function showMaps(shown, page) {
  const options = page.calling();
  say("Computing the four side outputs…");
  const sheet = await createImageBitmap(await (await ask({ output: "maps" }, await encoded(shown), options)).blob());
  options.signal.throwIfAborted();
  if (page.shown()?.still !== shown.still) return; // another picture has been chosen
  const width = sheet.width / 4;
  document.querySelectorAll(".maps canvas").forEach((map, number) => {
    map.width = width;
    map.height = sheet.height;
    map.getContext("2d").drawImage(sheet, number * width, 0, width, sheet.height, 0, 0, width, sheet.height);
  });
  byId("maps").hidden = false;
  byId("maps").scrollIntoView({ block: "nearest" });
  say("Side outputs S6 to S3.");
}

function showPrograms(shown, { threshold }) {
  const given = [shown?.still ? shown.name : "frame.jpg", threshold, Boolean(headers().Authorization)];
  for (const [id, text] of [["curl", curlOf(...given)], ["python", pythonOf(...given)]]) {
    if (byId(id).textContent !== text) byId(id).textContent = text; // what is the same stays selected
  }
}

/** Copy a text; where the browser forbids that, as on pages without TLS, select it. */
async function copy(element) {
  getSelection().selectAllChildren(element);
  const copied = await navigator.clipboard?.writeText(element.textContent).then(() => true, () => false);
  say(copied ? "Copied." : "Selected: press Ctrl+C to copy.");
}
