// The picture with its polyps: drawing, zoom and pan, side by side, full screen.

import { highlighted, outlineAndFill } from "./overlay.js";

const LARGEST = 12; // times
const STEP = 1.25;
const MOVE = 40; // CSS pixels that an arrow key moves

export class View {
  constructor(frame, canvas, plain, hint) {
    Object.assign(this, { frame, canvas, plain, hint, chosen: null, pointers: new Map() });
    frame.addEventListener("keydown", (event) => this.key(event));
    frame.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    frame.addEventListener("pointerdown", (event) => this.hold(event));
    frame.addEventListener("pointermove", (event) => this.drag(event));
    for (const kind of ["pointerup", "pointercancel"]) frame.addEventListener(kind, ({ pointerId }) => this.pointers.delete(pointerId));
    this.clear();
  }

  clear() {
    this.picture = null;
    this.frame.hidden = true;
    this.hint.hidden = false;
    this.fit();
    for (const canvas of [this.canvas, this.plain]) canvas.width = canvas.height = 1; // also frees the pixels
  }

  /** Draw a picture; with a probability also what exceeds the threshold; regions are for the highlight. */
  draw(picture, probability, settings, region) {
    this.hint.hidden = true;
    this.frame.hidden = false;
    this.picture = picture;
    for (const canvas of [this.canvas, this.plain]) {
      if (canvas.width !== picture.width || canvas.height !== picture.height) {
        [canvas.width, canvas.height] = [picture.width, picture.height];
      }
    }
    if (!this.plain.hidden) this.plain.getContext("2d").drawImage(picture, 0, 0);
    const painter = this.canvas.getContext("2d");
    painter.drawImage(picture, 0, 0);
    if (!probability) return;
    const layers = [outlineAndFill(probability, settings)];
    if (region) layers.push(highlighted(probability, region));
    for (const layer of layers) painter.drawImage(layer, 0, 0, picture.width, picture.height);
  }

  sideBySide(wanted) {
    this.plain.hidden = !wanted;
    this.frame.classList.toggle("two", wanted);
    if (wanted && this.picture) this.plain.getContext("2d").drawImage(this.picture, 0, 0);
  }

  fit() {
    [this.scale, this.x, this.y] = [1, 0, 0];
    this.place();
  }

  /** Zoom by a factor around a point of the frame, in CSS pixels from its middle. */
  zoom(factor, x = 0, y = 0) {
    const scale = Math.min(LARGEST, Math.max(1, this.scale * factor));
    const ratio = scale / this.scale;
    [this.scale, this.x, this.y] = [scale, x - (x - this.x) * ratio, y - (y - this.y) * ratio];
    this.place();
  }

  move(x, y) {
    [this.x, this.y] = [this.x + x, this.y + y];
    this.place();
  }

  place() {
    const reach = (length) => (length * (this.scale - 1)) / 2; // so that the picture cannot be lost
    const within = (value, limit) => Math.min(limit, Math.max(-limit, value));
    this.x = within(this.x, reach(this.canvas.clientWidth));
    this.y = within(this.y, reach(this.canvas.clientHeight));
    for (const canvas of [this.canvas, this.plain]) {
      canvas.style.transform = this.scale === 1 ? "" : `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    }
    this.frame.classList.toggle("zoomed", this.scale > 1);
  }

  key(event) {
    const act = {
      "+": () => this.zoom(STEP),
      "=": () => this.zoom(STEP),
      "-": () => this.zoom(1 / STEP),
      0: () => this.fit(),
      ArrowLeft: () => this.move(MOVE, 0),
      ArrowRight: () => this.move(-MOVE, 0),
      ArrowUp: () => this.move(0, MOVE),
      ArrowDown: () => this.move(0, -MOVE),
    }[event.key];
    const scrolls = event.key.startsWith("Arrow") && this.scale === 1;
    if (!act || scrolls || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  }

  wheel(event) {
    if (!event.ctrlKey) return; // which a pinch on a touchpad sets too; without it, the page scrolls
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 200), ...this.fromMiddle(event.clientX, event.clientY));
  }

  fromMiddle(clientX, clientY) {
    const pane = [this.plain, this.canvas].find((canvas) => canvas.parentElement.matches(":hover")) ?? this.canvas;
    const { left, top, width, height } = pane.parentElement.getBoundingClientRect();
    return [clientX - left - width / 2, clientY - top - height / 2];
  }

  hold(event) {
    if (this.scale === 1 && event.pointerType === "mouse") return;
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.scale > 1) this.frame.setPointerCapture(event.pointerId);
  }

  drag(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (!other) return this.move(now[0] - last[0], now[1] - last[1]);
    const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]);
    const middle = [(now[0] + other[0]) / 2, (now[1] + other[1]) / 2];
    this.zoom(apart(now) / Math.max(1, apart(last)), ...this.fromMiddle(...middle));
  }
}
