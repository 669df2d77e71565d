// A rolling chart of a stream in columns of half a second: masks a second, the mean milliseconds of each stage, and drops.

const STAGES = ["window", "decode", "preprocess", "queue", "infer", "post", "encode"];
const COLOURS = ["#93a3ad", "#e0a04d", "#cdbb58", "#ad83bd", "#3c8fd0", "#48ad82", "#d2707f"];
const DROP_COLOUR = "#dc4a4a";
const FPS_COLOUR = "#1fa294";
const COLUMN_MS = 500;
const COLUMNS = 60;
const FPS_COLUMNS = 4; // over which a rate is taken
const AGES = 160; // newest masks, whose median is shown
const FRAME_MS = 33; // one frame of 30 a second
const ANNOTATION_MS = 120; // the delay that a marketed colonoscopy CADe keeps
const TICK_SECONDS = 10;
// Places in CSS pixels.
const GUTTER = 52; // for the labels
const FPS_BAND = 52;
const DROP_BAND = 14;
const GAP = 20;
const TIME_BAND = 18;
const LABEL = 13; // height

export class Chart {
  constructor(canvas, legend) {
    this.canvas = canvas;
    this.clear();
    const names = [["masks a second", FPS_COLOUR], ...STAGES.map((stage, number) => [stage, COLOURS[number]]), ["dropped", DROP_COLOUR]];
    legend.replaceChildren(...names.map(([name, colour]) => entry(name, colour)));
  }

  clear() {
    this.columns = []; // {number, masks, dropped, stages: sums of milliseconds}
    this.ages = []; // milliseconds
    this.began = performance.now();
    this.received = this.dropped = 0;
  }

  add(head) {
    const column = this.current();
    this.received += 1;
    if (head.outcome === "answered") {
      column.masks += 1;
      STAGES.forEach((stage, number) => (column.stages[number] += timeOf(head, stage)));
      this.ages = [...this.ages, head.age_ms].slice(-AGES);
    } else {
      column.dropped += 1;
      this.dropped += 1;
    }
    this.due ??= requestAnimationFrame(() => this.draw());
  }

  /** The service is gone: the ages of its last masks say nothing about what comes. */
  lost() {
    this.ages = [];
  }

  current() {
    const number = Math.floor(performance.now() / COLUMN_MS);
    if (this.columns.at(-1)?.number !== number) {
      this.columns.push({ number, masks: 0, dropped: 0, stages: STAGES.map(() => 0) });
      while (this.columns[0].number <= number - COLUMNS) this.columns.shift();
    }
    return this.columns.at(-1);
  }

  /** Return the masks a second over the seconds before a column: the current one is not over yet. */
  fps(before = Math.floor(performance.now() / COLUMN_MS)) {
    const recent = this.columns.filter(({ number }) => number < before && number >= before - FPS_COLUMNS);
    const since = Math.max((before - FPS_COLUMNS) * COLUMN_MS, this.began);
    return recent.reduce((sum, { masks }) => sum + masks, 0) / Math.max(1, (before * COLUMN_MS - since) / 1000);
  }

  /** Return the median age of the newest masks in whole milliseconds, "" before there is one. */
  medianAge() {
    const ages = this.ages.toSorted((a, b) => a - b);
    return ages.length ? Math.round(ages[ages.length >> 1]) : "";
  }

  draw() {
    this.due = undefined;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const density = window.devicePixelRatio;
    if (this.canvas.width !== Math.round(width * density)) this.canvas.width = Math.round(width * density);
    if (this.canvas.height !== Math.round(height * density)) this.canvas.height = Math.round(height * density);
    const context = this.canvas.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "12px system-ui, sans-serif";
    const step = (width - GUTTER) / COLUMNS;
    const newest = this.columns.at(-1)?.number ?? 0;
    const leftOf = ({ number }) => width - (newest - number + 1) * step;
    this.drawRate(context, width, leftOf, step);
    this.drawStages(context, width, height - TIME_BAND, leftOf, step);
    drawTimes(context, width, height, step);
  }

  drawRate(context, width, leftOf, step) {
    const numbers = range(this.columns[0]?.number, this.columns.at(-1)?.number); // also those without an answer
    const rates = numbers.map((number) => ({ left: leftOf({ number }), rate: this.fps(number) }));
    const highest = Math.max(5, ...rates.map(({ rate }) => rate));
    rule(context, width, FPS_BAND, "0 fps");
    rule(context, width, 8, `${Math.round(highest)} fps`);
    context.strokeStyle = FPS_COLOUR;
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    for (const { left, rate } of rates) context.lineTo(left, FPS_BAND - (rate / highest) * (FPS_BAND - 8));
    context.stroke();
  }

  drawStages(context, width, height, leftOf, step) {
    const foot = height - DROP_BAND;
    const tallest = foot - FPS_BAND - GAP;
    const means = this.columns.map(({ masks, stages }) => stages.map((sum) => (masks ? sum / masks : 0)));
    const highest = Math.max(ANNOTATION_MS, ...means.map((stages) => stages.reduce((sum, time) => sum + time, 0)));
    const yOf = (milliseconds) => foot - (milliseconds / highest) * tallest;
    const apart = (one, other) => Math.abs(yOf(one) - yOf(other)) >= LABEL;
    rule(context, width, yOf(ANNOTATION_MS), `${ANNOTATION_MS} ms`, 0.5);
    rule(context, width, yOf(FRAME_MS), apart(FRAME_MS, ANNOTATION_MS) && apart(FRAME_MS, 0) ? `${FRAME_MS} ms` : "", 0.5);
    rule(context, width, foot, apart(0, ANNOTATION_MS) ? "0 ms" : "");
    if (apart(highest, ANNOTATION_MS)) rule(context, width, yOf(highest), `${Math.round(highest)} ms`);
    this.columns.forEach((column, place) => {
      const left = leftOf(column);
      let top = foot;
      means[place].forEach((time, number) => {
        const tall = (time / highest) * tallest;
        context.fillStyle = COLOURS[number];
        context.fillRect(left, (top -= tall), step - 1, tall);
      });
      const share = column.dropped / (column.dropped + column.masks);
      context.fillStyle = DROP_COLOUR;
      context.fillRect(left, foot + 2, step - 1, share * (DROP_BAND - 4));
    });
  }
}

/** Return all whole numbers from first to last. */
function range(first, last) {
  return Array.from({ length: last === undefined ? 0 : last - first + 1 }, (_, place) => first + place);
}

/** Draw a line across, with its label in the gutter. */
function rule(context, width, y, label, strength = 0.15) {
  write(context, label, 0, y + 4);
  context.globalAlpha = strength;
  context.fillRect(GUTTER, Math.round(y), width - GUTTER, 1);
  context.globalAlpha = 1;
}

/** Write the seconds before the newest column below everything. */
function drawTimes(context, width, height, step) {
  const seconds = (COLUMNS * COLUMN_MS) / 1000;
  for (let before = 0; before <= seconds; before += TICK_SECONDS) {
    const x = width - (before * 1000 * step) / COLUMN_MS;
    context.textAlign = before === 0 ? "right" : before === seconds ? "left" : "center";
    write(context, before ? `\u2212${before} s` : "now", x, height - 3);
  }
  context.textAlign = "left";
}

function write(context, text, x, y) {
  context.fillStyle = getComputedStyle(context.canvas.parentElement).color;
  context.globalAlpha = 0.75;
  context.fillText(text, x, y);
}

function timeOf(head, stage) {
  return (stage === "window" ? head.window_ms : head.timings_ms[stage]) ?? 0;
}

function entry(name, colour) {
  const swatch = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const context = swatch.getContext("2d");
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const item = document.createElement("li");
  item.append(swatch, ` ${name}`);
  return item;
}
