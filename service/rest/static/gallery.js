// Several pictures: one row each, segmented a few at a time, and all results in one zip.

import { polypIn, sentenceOf } from "./found.js";
import { regionsOf } from "./regions.js";
import { csv, maskOf, overlayOf, rowOf, stem } from "./results.js";
import { Unauthenticated } from "./service.js";
import { blank } from "./stills.js";
import { zip } from "./zip.js";

const AT_ONCE = 3; // requests, so that the service can batch them
const THUMBNAIL = 72; // pixels, height

export class Gallery {
  /** `on` has chosen(still), segmented(still), waiting(reason, seconds) and complain(error). */
  constructor({ section, summary, rows, saveAll }, on) {
    Object.assign(this, { section, summary, list: rows, saveAll, on, stills: [] });
    rows.addEventListener("keydown", (event) => this.key(event));
  }

  clear() {
    this.stills = [];
    this.chosen = null;
    this.list.replaceChildren();
    this.section.hidden = true;
    this.summary.textContent = "";
    this.saveAll.disabled = true;
  }

  /** Segment pictures and show the first; the list is shown for more than one. An abort of the signal ends it. */
  async open(stills, threshold, signal) {
    this.stills = stills;
    this.section.hidden = stills.length < 2;
    this.list.replaceChildren(...stills.map((still) => this.row(still)));
    this.choose(stills[0]);
    await this.run([...stills], threshold, signal);
  }

  /** Segment the pictures that were refused for want of a token; return how many. */
  async resume(threshold, signal) {
    const refused = this.stills.filter(({ failure }) => failure instanceof Unauthenticated);
    for (const still of refused) {
      still.failure = null;
      still.finding.textContent = "Waiting";
      still.finding.classList.remove("failed");
    }
    const { length } = refused;
    await this.run(refused, threshold, signal);
    return length;
  }

  async run(waiting, threshold, signal) {
    const worker = async () => {
      for (let still; (still = waiting.shift()) && !signal.aborted; ) await this.segment(still, threshold, signal, waiting);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, worker));
    if (!signal.aborted) this.saveAll.disabled = !this.stills.some(({ answer }) => answer);
  }

  async segment(still, threshold, signal, waiting) {
    if (this.stills.length > 1) await this.thumbnail(still);
    if (signal.aborted) return;
    try {
      await still.segment({ signal, waiting: this.on.waiting });
      if (still.upright) await this.thumbnail(still);
      await this.judge(still, threshold());
    } catch (error) {
      still.failure = error;
      const refused = error instanceof Unauthenticated;
      if (refused && !signal.aborted) this.refuse(waiting.splice(0), error);
      if ((refused || still === this.chosen) && !signal.aborted) this.on.complain(error);
    }
    if (signal.aborted) return;
    this.tell(still);
    if (still === this.chosen && still.answer) await this.on.segmented(still);
  }

  /** Pictures that are not asked for: they would be refused, too. */
  refuse(stills, error) {
    for (const still of stills) {
      still.failure = error;
      this.tell(still);
    }
  }

  /** Count the regions of a picture above a threshold. */
  async judge(still, threshold) {
    still.regions = regionsOf(await still.probability(), threshold).map(({ runs, ...region }) => region);
  }

  /** A new threshold: the findings of all rows change. */
  async judgeAgain(threshold, signal) {
    for (const still of this.stills.filter(({ answer }) => answer)) {
      await this.judge(still, threshold);
      if (signal.aborted) return;
      this.tell(still);
    }
  }

  row(still) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const [name, finding] = [document.createElement("span"), document.createElement("span")];
    still.thumbnail = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
    still.thumbnail.ariaHidden = "true";
    name.textContent = still.name;
    Object.assign(finding, { className: "quiet", textContent: "Waiting" });
    button.append(still.thumbnail, name, finding);
    button.addEventListener("click", () => this.choose(still));
    Object.assign(still, { button, finding });
    const item = document.createElement("li");
    item.append(button);
    return item;
  }

  async thumbnail(still) {
    const picture = await still.picture();
    if (!picture) return;
    still.thumbnail.height = THUMBNAIL;
    still.thumbnail.width = Math.round((THUMBNAIL * picture.width) / picture.height);
    still.thumbnail.getContext("2d").drawImage(picture, 0, 0, still.thumbnail.width, THUMBNAIL);
    picture.close();
  }

  choose(still) {
    this.chosen = still;
    for (const each of this.stills) each.button.ariaCurrent = String(each === still);
    this.on.chosen(still);
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const rows = [...this.list.querySelectorAll("button")];
    const next = rows[rows.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  tell(still) {
    still.finding.textContent = still.failure ? still.failure.message : sentenceOf(still.regions, still.presence);
    still.finding.classList.toggle("failed", Boolean(still.failure));
    const done = this.stills.filter(({ answer }) => answer);
    const { failed } = this;
    const positive = done.filter(({ regions, presence }) => polypIn(regions ?? [], presence)).length;
    const counts = [`${positive} with a polyp`, ...(failed ? [`${failed} failed`] : [])];
    const progress = done.length + failed < this.stills.length ? `${done.length + failed} of ` : "";
    this.summary.textContent = `${progress}${this.stills.length} pictures, ${counts.join(", ")}`;
  }

  /** The number of pictures that the service refused. */
  get failed() {
    return this.stills.filter(({ failure }) => failure).length;
  }

  /** Return a sentence about all pictures. */
  told() {
    const done = this.stills.filter(({ answer }) => answer).length;
    if (done === this.stills.length) return `All ${done} pictures are segmented.`;
    return `${done} of ${this.stills.length} pictures are segmented; the list says what is wrong with the others.`;
  }

  /** Return a zip of all masks and overlays, one CSV and one JSON. */
  async zip(settings) {
    const files = [], rows = [], described = [];
    const taken = new Set();
    for (const still of this.stills) {
      if (still.answer) await this.judge(still, settings.threshold);
      const file = still.answer && `${unused(stem(still.name), taken)}.png`;
      const row = rowOf({ ...still, file, error: still.failure?.message }, settings.threshold);
      rows.push(row);
      described.push({ ...row, polyps: still.regions });
      if (!still.answer) continue;
      const probability = await still.probability();
      const picture = (await still.picture()) ?? blank(probability);
      files.push([`masks/${file}`, await maskOf(probability, settings)]);
      files.push([`overlays/${file}`, await overlayOf(picture, probability, settings)]);
    }
    files.push(["results.csv", new Blob([csv(rows)])], ["results.json", new Blob([JSON.stringify(described, null, 2)])]);
    return zip(files);
  }
}

/** Return a name that no other picture has, whatever the case: pictures of two folders may be called the same. */
function unused(name, taken) {
  let free = name;
  for (let number = 2; taken.has(free.toLowerCase()); number += 1) free = `${name}-${number}`;
  taken.add(free.toLowerCase());
  return free;
}
