// Sends the frames of a <video> to WS /stream, and gives each answer back with the picture that it belongs to.

import { protocols } from "./access.js";
import { address, Backoff, countdown, sentence } from "./service.js";

const WIDTH = 640; // pixels that a frame is reduced to, if it has more
const JPEG_QUALITY = 0.85;
const FPS = 30;
const BACKLOG_BYTES = 1_000_000; // unsent, above which a frame is left out: the network is the bottleneck
const OURS = [1002, 1003, 1007, 1009]; // close codes that tell of a fault of what was sent: again would not help
const SILENT_MS = 2000; // without a mask: the last one is not of what the video shows now
const DEAD_MS = 45_000; // without an answer: longer than the service itself waits (REQUEST_TIMEOUT_MS)
const LOST = "The connection to the service was lost.";
const REFUSED = "The service did not accept the stream.";
const STILL = "No new picture for 2 seconds.";
const UNFED = "No new picture for 2 seconds: check the camera, or what it is connected to.";
const SLOW = "No mask for 2 seconds: the service is slow, or cannot be reached.";
const FULL = "The service leaves out frames: it is full, or the limit of the token is reached.";
const UNPLUGGED = "The camera was disconnected: connect it, then press Camera again.";

export class VideoStream {
  /**
   * `on` has answered(picture, head, probability, time), counted(head), connected(), silent(reason), after which the last
   * mask is too old, lost() and waiting(reason, seconds), reach(), which resolves once the service can be reached, and
   * failed(error), after which it is over.
   * An abort of the signal closes the stream.
   */
  constructor(video, on, signal) {
    Object.assign(this, { video, on, signal, backoff: new Backoff() });
    signal.addEventListener("abort", () => this.socket?.close());
    video.srcObject?.getVideoTracks()[0].addEventListener("ended", () => on.failed(new Error(UNPLUGGED)), { signal });
    this.shown = 0; // frames
    this.watch();
    this.connect();
  }

  /** Count the frames that the video shows, so that none is sent twice. Browsers do not tell of a page that is hidden. */
  watch() {
    this.video.requestVideoFrameCallback?.(() => {
      this.shown++;
      if (!this.signal.aborted) this.watch();
    });
  }

  get fresh() {
    if (this.video.paused) return this.sent !== this.video.currentTime;
    return !this.video.requestVideoFrameCallback || document.hidden || this.shown !== this.taken;
  }

  connect() {
    const stream = address("stream");
    stream.protocol = stream.protocol.replace("http", "ws");
    const socket = new WebSocket(stream, protocols());
    socket.binaryType = "arraybuffer";
    socket.onopen = () => this.start();
    socket.onmessage = (event) => this.receive(event.data);
    socket.onclose = (event) => this.end(event);
    this.pictures = new Map(); // by frame_id: what was sent and is not answered
    this.next = 0;
    this.problem = "";
    this.timer = this.sent = undefined;
    this.isSilent = false;
    this.refusal = "";
    this.socket = socket;
  }

  start() {
    this.socket.send(JSON.stringify({ policy: "latest", output: "probability" }));
    this.timer = setInterval(() => (this.check(), this.send()), 1000 / FPS);
    this.answeredAt = performance.now();
    this.on.connected();
  }

  /** Notice that no masks come, and in the end give the connection up: no browser does that by itself. */
  check() {
    const now = performance.now();
    const [oldest] = this.pictures.values();
    if (oldest && now - oldest.sentAt > DEAD_MS) return this.giveUp();
    if (this.video.paused) this.answeredAt = now;
    if (this.isSilent || now - this.answeredAt < SILENT_MS) return;
    this.isSilent = true;
    this.on.silent(this.refusal || (oldest ? SLOW : this.video.srcObject ? UNFED : STILL));
  }

  giveUp() {
    const { socket } = this;
    socket.onclose = socket.onmessage = null; // it would wait for the other side
    socket.close();
    this.end({});
  }

  async send() {
    const { video, socket } = this;
    if (!socket || this.encoding || socket.bufferedAmount > BACKLOG_BYTES || !video.videoWidth || video.seeking) return;
    if (!this.fresh) return;
    this.encoding = true;
    this.taken = this.shown;
    const captured = performance.now();
    const time = (this.sent = video.currentTime);
    const picture = drawn(video);
    const jpeg = await new Promise((resolve) => picture.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
    const bytes = new Uint8Array(await jpeg.arrayBuffer());
    this.encoding = false;
    if (socket !== this.socket || socket.readyState !== WebSocket.OPEN) return;
    const head = { frame_id: this.next++, capture_time_us: Math.round(captured * 1000) };
    // A file is paused and sought in: its own time tells the service which frames follow each other.
    if (Number.isFinite(video.duration)) head.presentation_time_us = Math.round(time * 1e6);
    this.pictures.set(head.frame_id, { picture, time, sentAt: performance.now() });
    socket.send(pack(head, bytes));
  }

  async receive(data) {
    if (typeof data === "string") {
      this.problem = JSON.parse(data).detail;
      return;
    }
    const [head, payload] = unpack(data);
    const { picture, time } = this.pictures.get(head.frame_id);
    this.pictures.delete(head.frame_id);
    this.backoff.reset();
    this.on.counted(head);
    if (head.outcome !== "answered") {
      this.refusal = head.detail ? sentence(head.detail) : head.outcome === "overload" ? FULL : "";
      if (this.sent === time) this.sent = undefined; // a paused video gives no other frame
      return;
    }
    const { socket } = this;
    const probability = await createImageBitmap(new Blob([payload], { type: "image/png" }));
    if (this.signal.aborted || socket !== this.socket) return;
    this.answeredAt = performance.now();
    this.refusal = "";
    if (this.isSilent) this.on.connected();
    this.isSilent = false;
    this.on.answered(picture, head, probability, time);
  }

  async end(event) {
    clearInterval(this.timer);
    if (this.signal.aborted) return;
    const reason = this.problem ? sentence(this.problem) : this.timer ? LOST : REFUSED; // no browser tells why
    this.socket = null;
    this.on.lost();
    try {
      if (OURS.includes(event.code)) throw new Error(reason);
      await countdown(reason, this.backoff.next(), this.on.waiting, this.signal);
      await this.on.reach();
      this.signal.throwIfAborted();
      this.connect();
    } catch (error) {
      this.on.failed(error);
    }
  }
}

/** Return a canvas with the frame that a video shows now, not wider than WIDTH. */
function drawn(video) {
  const scale = Math.min(1, WIDTH / video.videoWidth);
  const [width, height] = [video.videoWidth, video.videoHeight].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage(video, 0, 0, width, height);
  return canvas;
}

function pack(head, payload) {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const message = new Uint8Array(4 + text.length + payload.length);
  new DataView(message.buffer).setUint32(0, text.length, true);
  message.set(text, 4);
  message.set(payload, 4 + text.length);
  return message;
}

function unpack(data) {
  const end = 4 + new DataView(data).getUint32(0, true);
  return [JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, end - 4))), new Uint8Array(data, end)];
}
