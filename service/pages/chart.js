// A rolling chart of the answers of a stream: time by stage as a stacked bar each, drops as ticks at the foot.

const STAGES = ["window", "decode", "preprocess", "queue", "infer", "post", "encode"];
const COLOURS = ["#7a8794", "#d17a00", "#b8a200", "#a05fc0", "#2a84c7", "#2e9e5b", "#c2475f"];
const DROP_COLOUR = "#d0302f";
const SHOWN = 160; // answers
const FPS_SECONDS = 3;

export class Chart {
  constructor(canvas, legend) {
    this.canvas = canvas;
    this.clear();
    legend.replaceChildren(...STAGES.map((stage, number) => entry(stage, COLOURS[number])), entry("dropped", DROP_COLOUR));
  }

  clear() {
    this.heads = [];
    this.times = []; // of masks, milliseconds
    this.received = this.dropped = 0;
  }

  add(head) {
    this.received += 1;
    if (head.outcome === "answered") this.times.push(performance.now());
    else this.dropped += 1;
    this.heads.push(head);
    this.heads.splice(0, this.heads.length - SHOWN);
    this.times.splice(0, this.times.length - 1000);
    this.due ??= requestAnimationFrame(() => this.draw());
  }

  fps() {
    const since = performance.now() - FPS_SECONDS * 1000;
    return this.times.filter((time) => time > since).length / FPS_SECONDS;
  }

  medianAge() {
    const ages = this.heads.filter((head) => head.outcome === "answered").map((head) => head.age_ms).sort((a, b) => a - b);
    return ages[ages.length >> 1] ?? 0;
  }

  draw() {
    this.due = undefined;
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const stacks = this.heads.map((head) => (head.times_ms ? STAGES.map((stage) => timeOf(head, stage)) : null));
    const highest = Math.max(40, ...stacks.filter(Boolean).map((stack) => stack.reduce((sum, time) => sum + time, 0)));
    stacks.forEach((stack, place) => {
      const x = (place * width) / SHOWN;
      if (!stack) {
        context.fillStyle = DROP_COLOUR;
        context.fillRect(x, height - 6, width / SHOWN - 1, 6);
        return;
      }
      let y = height - 8;
      stack.forEach((time, number) => {
        const tall = (time / highest) * (height - 24);
        context.fillStyle = COLOURS[number];
        context.fillRect(x, (y -= tall), width / SHOWN - 1, tall);
      });
    });
    context.fillStyle = getComputedStyle(this.canvas).color;
    context.fillText(`${Math.round(highest)} ms`, 4, 12);
  }
}

function timeOf(head, stage) {
  return (stage === "window" ? head.window_ms : head.times_ms[stage]) ?? 0;
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
