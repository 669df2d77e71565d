// Pictures in files, and what the service found in them.

import { probabilityOf } from "./overlay.js";
import { ask } from "./service.js";

const UNREADABLE = "This file cannot be read: open it again or, if it is a folder, the pictures inside it.";
const SEVERAL = "This file has several frames: send it from a program, or with pranet segment.";
const EXIF_OF_PNG_OR_WEBP = /^(.PNG.*?eXIf|RIFF.*?EXIF)/s;
const PICTURE_ALONE = { output: "overlay", threshold: 1 }; // which nothing exceeds

export class Still {
  constructor(file, name = file.name) {
    this.file = file;
    this.name = name || "picture";
    this.image = new Blob([file]); // without a type: the service looks at the bytes
    this.quality = []; // problems of the picture
    this.presence = null; // {score, threshold}, if the weights have such a score
  }

  /** Ask the service; `options` are those of its call. Throws as it does. */
  async segment(options) {
    if (this.file.type.startsWith("video/")) throw new Error("This is a video; open it alone.");
    const content = await this.file.arrayBuffer().catch(() => {
      throw new Error(UNREADABLE); // fetch would tell the same of it as of a service that is away
    });
    const began = performance.now();
    const answer = await ask({ output: "probability" }, content, options);
    if (answer.headers.get("content-type") !== "image/png") {
      await answer.body.cancel(); // so that the service stops, too
      throw new Error(SEVERAL);
    }
    this.presence = presenceOf(answer.headers.get("x-presence"));
    this.quality = answer.headers.get("x-quality")?.split(", ") ?? [];
    this.model = answer.headers.get("x-model");
    this.milliseconds = Math.round(performance.now() - began);
    // Browsers turn a JPEG by its EXIF as the service does, but not every PNG and WebP.
    if (EXIF_OF_PNG_OR_WEBP.test(new TextDecoder("latin1").decode(content))) {
      this.upright = await (await ask(PICTURE_ALONE, content, options)).blob();
    }
    this.answer = await answer.blob();
  }

  /** Return the picture, upright once it is segmented, or null if this browser cannot show it. */
  picture() {
    return createImageBitmap(this.upright ?? this.file).catch(() => null);
  }

  /** Return {width, height, levels}, which only a segmented picture has. */
  async probability() {
    return probabilityOf(await createImageBitmap(this.answer));
  }
}

/** Return a black picture, for what the service can read but the browser cannot. */
export function blank({ width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").fillRect(0, 0, width, height);
  return canvas;
}

/** Parse the header X-Presence: a score and its operating point, "0.973;threshold=0.5". */
function presenceOf(header) {
  const [score, threshold] = header?.split(";threshold=").map(Number) ?? [];
  return header ? { score, threshold } : null;
}
