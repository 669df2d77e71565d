// Records what the view shows, the video with its polyps, as a file in a format that this browser can write.

import { save, stem } from "./results.js";

const FORMATS = { "video/mp4": "mp4", "video/webm": "webm" }; // most programs play the first

export class Recorder {
  constructor(button, canvas) {
    Object.assign(this, { button, canvas });
    this.format = Object.keys(FORMATS).find((format) => globalThis.MediaRecorder?.isTypeSupported(format));
    button.addEventListener("click", () => (this.recording ? this.recording.stop() : this.begin()));
  }

  /** Offer to record the video of this name until the signal aborts; a recording ends, and is saved, with it. */
  open(name, signal) {
    this.name = name;
    this.button.hidden = !this.format;
    signal.addEventListener("abort", () => {
      this.button.hidden = true;
      this.recording?.stop();
    });
  }

  begin() {
    const parts = [];
    const { name, format } = this;
    const recording = (this.recording = new MediaRecorder(this.canvas.captureStream(), { mimeType: format }));
    recording.addEventListener("dataavailable", ({ data }) => parts.push(data));
    recording.addEventListener("stop", () => {
      this.recording = null;
      this.label();
      save(new Blob(parts, { type: format }), `${stem(name)}-polyps.${FORMATS[format]}`);
    });
    recording.start();
    this.label();
  }

  label() {
    this.button.textContent = this.recording ? "Save recording" : "Record";
  }
}
