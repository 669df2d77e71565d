// What was found, in words: one line to see and to hear, and a list of the polyps.

const SPEAK_MS = 2000; // between two announcements of a video, whose line changes with every frame
const LISTED = 12; // polyps at most: specks beyond that are counted, not listed

/** Tell whether a picture shows a polyp: by its presence, {score, threshold}, where the weights have one. */
export function polypIn(regions, presence) {
  return presence ? presence.score >= presence.threshold : regions.length > 0;
}

/** Return one sentence for the regions of a picture and its presence, {score, threshold} or null. */
export function sentenceOf(regions, presence) {
  const score = presence ? `presence ${scoreOf(presence)}` : "";
  const from = presence ? `${score} (from ${presence.threshold.toFixed(2)} on)` : "";
  const present = polypIn(regions, presence);
  if (!regions.length && !present) return score ? `No polyp found, ${score}` : "No polyp found";
  if (!regions.length) return `No pixel is above the threshold, but ${from} means a polyp: lower the threshold`;
  const covered = share(regions.reduce((sum, { area_fraction }) => sum + area_fraction, 0));
  if (present) return `${counted(regions.length, "polyp")}, ${covered} of the picture${from && `, ${from}`}`;
  return `Probably no polyp: ${counted(regions.length, "region")} marked, ${covered} of the picture, but ${from}`;
}

/** Return a score in two decimals, which never seem to reach a threshold that it does not reach. */
function scoreOf({ score, threshold }) {
  const [text, limit] = [score, threshold].map((each) => each.toFixed(2));
  return score < threshold && text === limit ? Math.max(0, limit - 0.01).toFixed(2) : text;
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

function share(fraction) {
  return fraction < 0.001 ? "less than 0.1 %" : `${(100 * fraction).toFixed(1)} %`;
}

export class Found {
  /** `choose(region)` highlights a region, and nothing for null. */
  constructor({ line, spoken, list, canvas }, choose) {
    Object.assign(this, { line, spoken, list, canvas, choose });
    this.clear();
  }

  clear() {
    this.say("", "");
    this.canvas.ariaLabel = "No picture";
    this.list.replaceChildren();
  }

  /** The picture is shown, but not answered: nothing is said about it. */
  expect(name) {
    this.clear();
    this.canvas.ariaLabel = `${name}, not segmented`;
  }

  /** Show what was found. Of a video only a change of `kind` is spoken, and rarely. */
  show({ name, regions, presence, quality = [], moving = false }) {
    const flags = quality.length ? `. Quality: ${quality.join(", ").replaceAll("_", " ")}` : "";
    const sentence = `${sentenceOf(regions, presence)}${flags}`;
    const kind = moving ? `${regions.length} ${flags}` : sentence;
    const due = !moving || (kind !== this.kind && performance.now() - this.spokenAt > SPEAK_MS);
    this.line.textContent = sentence;
    this.canvas.ariaLabel = `${name}: ${sentence}`;
    if (due) this.say(sentence, kind);
    this.showList(regions);
  }

  say(sentence, kind) {
    this.kind = kind;
    this.spokenAt = sentence ? performance.now() : -Infinity;
    this.spoken.textContent = sentence;
    if (!sentence) this.line.textContent = "";
  }

  showList(regions) {
    const listed = regions.slice(0, LISTED);
    while (this.list.children.length > listed.length) this.list.lastChild.remove();
    while (this.list.children.length < listed.length) this.list.append(this.entry(this.list.children.length));
    this.regions = listed;
    listed.forEach((region, number) => {
      const probability = region.mean_probability.toFixed(2);
      const text = `Polyp ${number + 1}: ${share(region.area_fraction)}, mean probability ${probability}`;
      this.list.children[number].firstChild.textContent = text;
    });
  }

  entry(number) {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "button" });
    for (const kind of ["mouseenter", "focus"]) button.addEventListener(kind, () => this.choose(number));
    for (const kind of ["mouseleave", "blur"]) button.addEventListener(kind, () => this.choose(null));
    const item = document.createElement("li");
    item.append(button);
    return item;
  }
}
