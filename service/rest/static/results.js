// What a reader takes away: masks, overlays, tables, and the same call for a program.

import { outlineAndFill } from "./overlay.js";
import { address } from "./service.js";

const COLUMNS = ["name", "file", "polyps", "area_fraction", "presence", "presence_threshold", "threshold", "model", "error"];

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // a browser may begin to read only after a question
}

/** Return the name without its ending. */
export const stem = (name) => name.replace(/(?<=.)\.[^.]*$/, "");

export const png = (canvas) => new Promise((resolve) => canvas.toBlob(resolve, "image/png"));

/** Return the black and white mask of a probability as PNG. */
export const maskOf = (probability, settings) => png(outlineAndFill(probability, { ...settings, style: "binary" }));

/** Return the picture with its polyps as PNG. */
export function overlayOf(picture, probability, settings) {
  const { width, height } = picture;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const painter = canvas.getContext("2d");
  painter.drawImage(picture, 0, 0);
  painter.drawImage(outlineAndFill(probability, settings), 0, 0, width, height);
  return png(canvas);
}

/** Return one picture's row for a table, from its name, the name of its mask, regions, presence, threshold and model. */
export function rowOf({ name, file, regions, presence, model, error }, threshold) {
  if (error || !regions) return { name, error: error ?? "not segmented" };
  const area = regions.reduce((sum, { area_fraction }) => sum + area_fraction, 0);
  return {
    name,
    file,
    polyps: regions.length,
    area_fraction: Number(area.toFixed(6)),
    presence: presence?.score,
    presence_threshold: presence?.threshold,
    threshold,
    model,
  };
}

/** Return rows as CSV (RFC 4180) with a head. */
export function csv(rows) {
  const lines = rows.map((row) => COLUMNS.map((column) => cell(row[column])).join(","));
  return [COLUMNS.join(","), ...lines, ""].join("\r\n");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Return the call of a shell for a picture; with a token, where the service asks for one. */
export function curlOf(name, threshold, token) {
  const given = token ? ' -H "Authorization: Bearer $PRANET_TOKEN"' : "";
  return `curl -sS${given} --data-binary @${quoted(name)} '${address("segment")}?output=json&threshold=${threshold}'`;
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** Return the program for a picture. */
export function pythonOf(name, threshold, token) {
  const access = token ? ', access=Access(os.environ["PRANET_TOKEN"])' : "";
  return [
    ...(token ? ["import os", ""] : []),
    `from pranet_client import ${token ? "Access, " : ""}Client`,
    "",
    `with Client("${address("").href.replace(/\/$/, "")}"${access}) as client:`,
    `    found = client.segment(${JSON.stringify(name)}, threshold=${threshold})`,
    "print(len(found.polyps), found.presence)",
    "",
  ].join("\n");
}
