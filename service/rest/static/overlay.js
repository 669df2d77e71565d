// A grey picture of probabilities as a coloured overlay.

// Red, green, blue, opacity from the lowest byte up. Green does not occur in mucosa.
const COLOUR = 0x0060ff40;
const OPAQUE = 0xff000000;
const WHITE = 0xffffffff;
const CHOSEN = "rgb(255 170 0 / 75%)";
const HEAT = [[40, 0, 120], [150, 20, 150], [230, 60, 60], [255, 160, 30], [255, 240, 90]]; // red, green, blue

/** Return the levels (0 to 255) of a grey picture. */
export function probabilityOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const levels = new Uint8Array(bitmap.width * bitmap.height);
  for (let pixel = 0; pixel < levels.length; pixel += 1) levels[pixel] = data[4 * pixel];
  return { width: bitmap.width, height: bitmap.height, levels };
}

/** Return a canvas with one region in the colour of a choice: {runs: [[y, left, right], ...]}. */
export function highlighted({ width, height }, { runs }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.fillStyle = CHOSEN;
  for (const [y, left, right] of runs) context.fillRect(left, y, right - left, 1);
  return canvas;
}

/** Return a canvas with every probability as a colour, from clear over violet and red to yellow. */
function heat({ width, height, levels }, opacity) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const pixels = new Uint32Array(drawn.data.buffer);
  const colours = Uint32Array.from({ length: 256 }, (_, level) => heatOf(level / 255, opacity));
  for (let here = 0; here < levels.length; here += 1) pixels[here] = colours[levels[here]];
  context.putImageData(drawn, 0, 0);
  return canvas;
}

function heatOf(probability, opacity) {
  const place = probability * (HEAT.length - 1);
  const [from, to] = [HEAT[Math.floor(place)], HEAT[Math.ceil(place)]];
  const [red, green, blue] = from.map((value, channel) => Math.round(value + (to[channel] - value) * (place % 1)));
  const alpha = Math.round(255 * Math.min(1, probability * 4) * (0.4 + 0.6 * opacity));
  return (alpha << 24) | (blue << 16) | (green << 8) | red;
}

/** Return a canvas of what exceeds the threshold: style is mask, outline, both, none, binary (black and white), or heat. */
export function outlineAndFill(probability, { style, threshold, opacity }) {
  if (style === "heat") return heat(probability, opacity);
  const { width, height, levels } = probability;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const drawn = context.createImageData(width, height);
  const pixels = new Uint32Array(drawn.data.buffer); // one number a pixel: a frame is drawn in a few milliseconds
  const limit = threshold * 255;
  const binary = style === "binary";
  const fill = binary ? WHITE : style === "mask" || style === "both" ? COLOUR | (Math.round(255 * opacity) << 24) : 0;
  const outlined = style === "outline" || style === "both";
  const reach = Math.max(1, Math.round(Math.min(width, height) / 250)); // half the width of the outline, pixels
  for (let y = 0, here = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, here += 1) {
      if (!(levels[here] > limit)) {
        if (binary) pixels[here] = OPAQUE;
        continue;
      }
      const edge =
        outlined &&
        (x < reach || y < reach || x >= width - reach || y >= height - reach ||
          levels[here - reach] <= limit || levels[here + reach] <= limit ||
          levels[here - reach * width] <= limit || levels[here + reach * width] <= limit);
      pixels[here] = edge ? COLOUR | OPAQUE : fill;
    }
  }
  context.putImageData(drawn, 0, 0);
  return canvas;
}
