// The live page: sources, controls and results. The network is asked for probabilities, so that the threshold slider
// acts at once, without another question to the service.

import { headers, remember } from "/pages/access.js";
import { Chart } from "/pages/chart.js";
import { outlineAndFill, probabilityOf } from "/pages/overlay.js";
import { VideoStream } from "/pages/stream.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const painter = canvas.getContext("2d");
const chart = new Chart(byId("chart"), byId("legend"));

let shown = null; // {picture, probability: {width, height, levels}} on the canvas now
let still = null; // the encoded picture, where the source is one
let source = 0; // counts sources, so that the answer for an earlier one is not shown
let stopSource = () => {};

const settings = () => ({
  style: document.querySelector("#style :checked").value,
  threshold: Number(byId("threshold").value),
  opacity: Number(byId("opacity").value),
});

function draw() {
  if (!shown) return;
  byId("hint").hidden = true;
  canvas.hidden = false;
  if (canvas.width !== shown.picture.width || canvas.height !== shown.picture.height) {
    canvas.width = shown.picture.width;
    canvas.height = shown.picture.height;
  }
  painter.drawImage(shown.picture, 0, 0);
  if (shown.probability) painter.drawImage(outlineAndFill(shown.probability, settings()), 0, 0, canvas.width, canvas.height);
}

function say(text) {
  byId("status").textContent = text;
}

function complain(text) {
  byId("error").textContent = text;
  if (text) say("");
}

function showFlags(flags) {
  byId("flags").replaceChildren(
    ...flags.map((flag) => Object.assign(document.createElement("li"), { textContent: flag.replaceAll("_", " ") })),
  );
}

async function ask(query, image) {
  const answer = await fetch(`/segment?${new URLSearchParams(query)}`, { method: "POST", headers: headers(), body: image });
  return granted(answer);
}

async function granted(answer) {
  if (answer.ok) return answer;
  if (answer.status === 401) {
    byId("access").hidden = false;
    if (!headers().Authorization) throw new Error("This service asks for a token: enter it under Access.");
  }
  const problem = await answer.json().catch(() => ({}));
  throw new Error(problem.detail ?? `the service answered ${answer.status}`);
}

async function begin(file) {
  clear();
  if (file.type.startsWith("video/")) await streamVideo(file);
  else await segmentStill(file);
}

function clear() {
  stopSource();
  source += 1;
  complain("");
  showFlags([]);
  byId("maps").hidden = byId("live").hidden = true;
  still = null;
}

async function segmentStill(file) {
  const mine = source;
  say("Segmenting…");
  const image = new Blob([file]); // without a type: the service looks at the bytes
  const began = performance.now();
  const answer = await ask({ output: "probability" }, image);
  const probability = probabilityOf(await createImageBitmap(await answer.blob()));
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error("The service can read this picture, but this browser cannot show it; convert it to PNG or JPEG.");
  });
  if (mine !== source) return;
  shown = { picture, probability };
  still = image;
  enableResults(true);
  draw();
  say(`Segmented in ${Math.round(performance.now() - began)} ms.`);
}

async function streamVideo(file) {
  const video = document.createElement("video");
  video.src = URL.createObjectURL(file);
  video.loop = true;
  await stream(video, source, () => URL.revokeObjectURL(video.src));
}

async function streamCamera() {
  clear();
  const mine = source;
  const media = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480, facingMode: "environment" } });
  const video = document.createElement("video");
  video.srcObject = media;
  await stream(video, mine, () => media.getTracks().forEach((track) => track.stop()));
}

async function stream(video, mine, release) {
  video.muted = video.playsInline = true;
  try {
    await video.play();
  } catch {
    release();
    throw new Error("This browser cannot play the video; convert it to H.264 or VP9, or use pranet stream.");
  }
  if (mine !== source) return release();
  enableResults(false);
  byId("live").hidden = byId("stop").hidden = false;
  chart.clear();
  say("Streaming.");
  const live = new VideoStream(video, {
    answered(picture, head, probability) {
      shown = { picture, probability: probabilityOf(probability) };
      draw();
      showFlags(head.quality ?? []);
      enableResults(true);
    },
    counted(head) {
      chart.add(head);
      byId("fps").textContent = chart.fps().toFixed(1);
      byId("age").textContent = Math.round(chart.medianAge());
      byId("dropped").textContent = chart.dropped;
      byId("received").textContent = chart.received;
    },
    refused: guarded(async () => {
      stopSource();
      await introduce();
      throw new Error("The service refused the stream; try again.");
    }),
    ended(problem) {
      stopSource();
      complain(problem);
    },
  });
  stopSource = () => {
    stopSource = () => {};
    live.close();
    video.pause();
    release();
    byId("stop").hidden = true;
    say("Stopped.");
  };
}

function enableResults(enabled) {
  for (const id of ["save-mask", "save-json", "show-maps"]) byId(id).disabled = !enabled;
}

function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}

function saveMask() {
  const drawn = outlineAndFill(shown.probability, { ...settings(), style: "binary" });
  drawn.toBlob((blob) => save(blob, "mask.png"));
}

/** Return the picture that is shown now, encoded; of a video the current frame. */
const encoded = async () => still ?? shown.picture.convertToBlob({ type: "image/png" });

async function saveJson() {
  const answer = await ask({ output: "json", threshold: settings().threshold }, await encoded());
  save(await answer.blob(), "polyps.json");
}

async function showMaps() {
  say("Computing the four side outputs…");
  const sheet = await createImageBitmap(await (await ask({ output: "maps" }, await encoded())).blob());
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

// Every action ends in a result or in one sentence for the reader.
const guarded = (action) => (...given) =>
  Promise.resolve(action(...given)).catch((error) => complain(error.message || String(error)));

byId("samples").addEventListener(
  "click",
  guarded(async (event) => {
    const sample = event.target.closest("[data-sample]");
    if (sample) await begin(await (await fetch(`/samples/${sample.dataset.sample}`)).blob());
  }),
);
byId("file").addEventListener("click", (event) => (event.target.value = "")); // the same file may be chosen again
byId("file").addEventListener("change", guarded(async (event) => event.target.files[0] && begin(event.target.files[0])));
byId("camera").addEventListener("click", guarded(streamCamera));
byId("stop").addEventListener("click", () => stopSource());
byId("save-mask").addEventListener("click", saveMask);
byId("save-json").addEventListener("click", guarded(saveJson));
byId("show-maps").addEventListener("click", guarded(showMaps));
byId("style").addEventListener("change", draw);
for (const id of ["threshold", "opacity"]) {
  byId(id).addEventListener("input", () => {
    byId(`${id}-value`).textContent = Number(byId(id).value).toFixed(2);
    draw();
  });
}

const drop = byId("drop");
for (const kind of ["dragover", "drop"]) {
  window.addEventListener(kind, (event) => event.preventDefault()); // else a browser opens what is dropped, here or near
}
drop.addEventListener("dragover", () => drop.classList.add("over"));
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener(
  "drop",
  guarded(async (event) => {
    drop.classList.remove("over");
    if (event.dataTransfer.files[0]) await begin(event.dataTransfer.files[0]);
  }),
);

byId("camera").disabled = !navigator.mediaDevices; // which browsers give to secure pages only
byId("insecure").hidden = Boolean(navigator.mediaDevices);

async function introduce() {
  const { model, threshold } = await (await granted(await fetch("/info", { headers: headers() }))).json();
  byId("access").hidden = true;
  if (byId("model").textContent) return;
  byId("model").textContent = `${model.model_id} on ${model.device}, ${model.engine} ${model.precision}`;
  byId("threshold").value = threshold;
  byId("threshold").dispatchEvent(new Event("input"));
}

byId("access").addEventListener(
  "submit",
  guarded(async (event) => {
    event.preventDefault();
    remember(byId("token").value.trim());
    await introduce();
    byId("token").value = "";
    complain("");
    say("Ready.");
  }),
);

guarded(introduce)();
