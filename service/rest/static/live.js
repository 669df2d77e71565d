// The live page: sources, controls and results. The network is asked for probabilities, so that the threshold slider
// acts at once, without another question to the service.

import { remember } from "./access.js";
import { Chart } from "./chart.js";
import { Found, polypIn } from "./found.js";
import { Gallery } from "./gallery.js";
import { takeFiles } from "./intake.js";
import { complain, explain, guarded, say, wait } from "./messages.js";
import { probabilityOf } from "./overlay.js";
import { Player } from "./player.js";
import { Recorder } from "./recorder.js";
import { regionsOf } from "./regions.js";
import { save } from "./results.js";
import { call } from "./service.js";
import { blank, Still } from "./stills.js";
import { VideoStream } from "./stream.js";
import { offer, offerActions } from "./takeaway.js";
import { fromCamera, fromFile } from "./videos.js";
import { View } from "./view.js";

const byId = (id) => document.getElementById(id);
const listen = (id, kind, action) => byId(id).addEventListener(kind, guarded(action));

const chart = new Chart(byId("chart"), byId("legend"));
const view = new View(byId("frame"), byId("canvas"), byId("plain"), byId("hint"));
const found = new Found({ line: byId("found"), spoken: byId("spoken"), list: byId("polyps"), canvas: byId("canvas") }, (number) => {
  chosen = number;
  draw();
});
const player = new Player({
  bar: byId("player"),
  pause: byId("pause"),
  back: byId("back"),
  forward: byId("forward"),
  seek: byId("seek"),
  time: byId("time"),
  first: byId("first"),
});
const recorder = new Recorder(byId("record"), byId("canvas"));
const gallery = new Gallery(
  { section: byId("gallery"), summary: byId("gallery-summary"), rows: byId("rows"), saveAll: byId("save-zip") },
  { chosen: (still) => guarded(choose)(still), segmented: showNew, waiting: wait, complain: explain },
);

let shown = null; // {name, picture}, and once it is segmented {probability, presence, quality, regions}
let chosen = null; // number of the region that is marked
let threshold = 0.5; // the slider has it in steps of 0.01 only
let weights = ""; // that the head of the page names
let work = new AbortController(); // of all that is done for the present source; the next source aborts it

const settings = () => ({
  style: document.querySelector("#style :checked").value,
  threshold,
  opacity: Number(byId("opacity").value),
});

/** Show a picture, with what was found in it if it is segmented. */
function show(next) {
  shown = next;
  byId("tools").hidden = false;
  judge();
}

function judge() {
  if (!shown) return;
  if (shown.probability) {
    shown.regions = regionsOf(shown.probability, settings().threshold);
    found.show(shown);
  } else {
    found.expect(shown.name);
  }
  offer(shown, settings());
  byId("polyps-card").hidden = shown.moving || !shown.regions?.length; // of a playing video it would jump
  showFlags(shown.quality ?? []);
  draw();
}

function draw() {
  if (shown) view.draw(shown.picture, shown.probability, settings(), shown.regions?.[chosen]);
}

/** Take away the picture and everything that was found in it. */
function takeAway() {
  shown = chosen = null;
  view.clear();
  found.clear();
  showFlags([]);
  byId("tools").hidden = byId("polyps-card").hidden = byId("maps").hidden = true;
  offer(null, settings());
}

/** Begin with another source: what belongs to the one before ends, and is taken away. */
function renew() {
  work.abort();
  work = new AbortController();
  takeAway();
  gallery.clear();
  complain("");
  say("");
  byId("live").hidden = byId("stop").hidden = true;
  return work.signal;
}

function showFlags(flags) {
  byId("flags").replaceChildren(
    ...flags.map((flag) => Object.assign(document.createElement("li"), { textContent: flag.replaceAll("_", " ") })),
  );
}

async function begin(files) {
  const signal = renew();
  if (files.length === 1 && files[0].type.startsWith("video/")) return play(fromFile(files[0], signal), files[0].name, signal);
  await gallery.open([...files].map((file) => new Still(file)), () => settings().threshold, signal);
  if (files.length > 1 && !signal.aborted && !byId("error").textContent) say(gallery.told());
}

async function choose(still) {
  takeAway();
  complain("");
  const { signal } = work;
  const current = () => !signal.aborted && gallery.chosen === still;
  if (still.failure) explain(still.failure);
  else if (!still.answer) say("Segmenting…");
  const picture = await still.picture();
  if (!current() || shown?.still === still) return;
  if (picture) show({ name: still.name, picture, still });
  if (still.answer) await showStill(still);
}

async function showStill(still) {
  const { signal } = work;
  const probability = await still.probability();
  // What stands there already may not be upright.
  const picture = (!still.upright && shown?.picture) || (await still.picture());
  if (signal.aborted || gallery.chosen !== still) return;
  const { name, presence, quality } = still;
  show({ name, still, picture: picture ?? blank(probability), probability, presence, quality });
  const unseen = picture ? "" : " This browser cannot show the picture itself, so its polyps are drawn on black.";
  say(`Segmented in ${still.milliseconds} ms.${unseen}`);
}

async function showNew(still) {
  heed(still.model, work.signal);
  await showStill(still);
}

/** Send what a playing video shows to the service, until the signal aborts. */
function stream(video, name, signal) {
  byId("live").hidden = byId("stop").hidden = false;
  chart.clear();
  player.open(video, signal);
  recorder.open(name, signal);
  const on = {
    answered(picture, head, probability, time) {
      heed(head.model.model_id, signal);
      show({ name, picture, probability: probabilityOf(probability), presence: head.presence, quality: head.quality, moving: !video.paused });
      player.saw(polypIn(shown.regions, shown.presence), time);
    },
    counted(head) {
      chart.add(head);
      byId("fps").textContent = chart.fps().toFixed(1);
      byId("age").textContent = chart.medianAge();
      byId("dropped").textContent = chart.dropped;
      byId("received").textContent = chart.received;
    },
    connected: () => say("Streaming."),
    silent(reason) {
      this.lost();
      say(reason);
    },
    lost() {
      chart.lost();
      byId("fps").textContent = "0.0";
      byId("age").textContent = chart.medianAge();
      if (shown) show({ name, picture: shown.picture }); // without a mask, which would grow old
    },
    waiting: wait,
    reach: () => introduce(signal),
    failed(error) {
      if (!signal.aborted) stop();
      explain(error);
    },
  };
  new VideoStream(video, on, signal);
}

async function play(source, name, signal) {
  const video = await source;
  if (video) stream(video, name, signal);
}

/** End the stream; the last frame and its results stay. */
function stop() {
  work.abort();
  work = new AbortController();
  byId("stop").hidden = true;
  if (shown) show({ ...shown, moving: false });
  say("Stopped.");
}

listen("samples", "click", async ({ target }) => {
  const sample = target.closest("[data-sample]")?.dataset.sample;
  if (!sample) return;
  const signal = renew();
  const answer = await call(`samples/${sample}`, { signal, waiting: wait });
  const file = new File([await answer.blob()], sample);
  if (!signal.aborted) await begin([file]);
});
listen("camera", "click", () => {
  const signal = renew();
  return play(fromCamera(signal), "camera", signal);
});
listen("stop", "click", stop);
listen("save-zip", "click", async () => save(await gallery.zip(settings()), "pranet-results.zip"));
listen("style", "change", draw);
listen("opacity", "input", draw);
listen("threshold", "input", () => mark(Number(byId("threshold").value)));
listen("threshold", "change", () => gallery.judgeAgain(threshold, work.signal));
listen("opacity", "input", () => (byId("opacity-value").textContent = settings().opacity.toFixed(2)));

listen("zoom-in", "click", () => view.zoom(1.25));
listen("zoom-out", "click", () => view.zoom(0.8));
listen("fit", "click", () => view.fit());
listen("side-by-side", "click", ({ target }) => {
  target.ariaPressed = String(target.ariaPressed !== "true");
  view.sideBySide(target.ariaPressed === "true");
});
listen("full-screen", "click", () => (document.fullscreenElement ? document.exitFullscreen() : byId("picture").requestFullscreen()));
byId("full-screen").hidden = !document.fullscreenEnabled;
offerActions({ shown: () => shown, settings, calling: () => ({ signal: work.signal, waiting: wait }) });
takeFiles(byId("file"), byId("drop"), guarded(begin));
byId("camera").disabled = !navigator.mediaDevices; // which browsers give to secure pages only
byId("insecure").hidden = Boolean(navigator.mediaDevices);

/** Mark what is above a threshold. */
function mark(value) {
  threshold = value;
  byId("threshold-value").textContent = value.toFixed(3).replace(/0$/, "");
  judge();
}

/** Notice that an answer is of other weights than the head of the page names. */
function heed(modelId, signal) {
  if (!weights || modelId === weights) return;
  weights = modelId;
  guarded(introduce)(signal);
}

/** Say which weights answer; waits until the service can be reached. */
async function introduce(signal) {
  const { model, threshold: chosenByService } = await (await call("info", { signal, waiting: wait })).json();
  byId("access").hidden = true;
  const first = !weights;
  weights = model.model_id;
  byId("model").textContent = `${model.model_id} on ${model.device}, ${model.engine} ${model.precision}`;
  if (!first) return;
  byId("threshold").value = chosenByService;
  mark(chosenByService);
  await gallery.judgeAgain(threshold, work.signal); // pictures that were answered before
  if (!shown) say("Ready.");
}

listen("access", "submit", async (event) => {
  event.preventDefault();
  remember(byId("token").value.trim());
  const { signal } = work;
  await introduce(signal);
  byId("token").value = "";
  complain("");
  say("Ready.");
  const resumed = await gallery.resume(() => threshold, signal);
  if (resumed && gallery.stills.length > 1 && !signal.aborted && !byId("error").textContent) say(gallery.told());
});

guarded(introduce)(new AbortController().signal);
