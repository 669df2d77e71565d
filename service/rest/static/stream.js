// Sends the frames of a playing <video> to WS /stream, and gives each answer back with the picture that it belongs to.

import { protocols } from "/pages/access.js";

const WIDTH = 640; // pixels that a frame is reduced to, if it has more
const JPEG_QUALITY = 0.85;
const FPS = 30;
const BACKLOG_BYTES = 1_000_000; // unsent, above which a frame is left out: the network is the bottleneck

export class VideoStream {
  /** `on` has answered(picture, head, probability), counted(head), refused() and ended(problem). */
  constructor(video, on) {
    this.video = video;
    this.on = on;
    this.pictures = new Map(); // by frame_id: what was sent and is not answered
    this.next = 0;
    this.problem = "";
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.socket = new WebSocket(`${scheme}//${location.host}/stream`, protocols());
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.start();
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onclose = (event) => this.end(event);
  }

  start() {
    this.socket.send(JSON.stringify({ policy: "latest", output: "probability" }));
    this.timer = setInterval(() => this.send(), 1000 / FPS);
  }

  async send() {
    if (this.encoding || this.socket.bufferedAmount > BACKLOG_BYTES || !this.video.videoWidth) return;
    this.encoding = true;
    const captured = performance.now();
    const scale = Math.min(1, WIDTH / this.video.videoWidth);
    const canvas = new OffscreenCanvas(this.video.videoWidth * scale, this.video.videoHeight * scale);
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    const jpeg = await canvas.convertToBlob({ type: "image/jpeg", quality: JPEG_QUALITY });
    const bytes = new Uint8Array(await jpeg.arrayBuffer());
    this.encoding = false;
    if (this.socket.readyState !== WebSocket.OPEN) return;
    const number = this.next++;
    this.pictures.set(number, canvas);
    this.socket.send(pack({ frame_id: number, capture_time_us: Math.round(captured * 1000) }, bytes));
  }

  async receive(data) {
    if (typeof data === "string") {
      this.problem = JSON.parse(data).detail;
      return;
    }
    const [head, payload] = unpack(data);
    const picture = this.pictures.get(head.frame_id);
    this.pictures.delete(head.frame_id);
    this.on.counted(head);
    if (head.outcome !== "answered") return;
    const probability = await createImageBitmap(new Blob([payload], { type: "image/png" }));
    this.on.answered(picture, head, probability);
  }

  end(event) {
    clearInterval(this.timer);
    if (this.closed) return;
    if (!this.timer) this.on.refused(); // a browser does not tell with which status
    else this.on.ended(this.problem || `The connection was closed (${event.code}); start again.`);
  }

  close() {
    this.closed = true;
    clearInterval(this.timer);
    this.socket.close();
  }
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
