// Reads a Segmentation as OHIF does, for a source of N frames without a position; prints the indices of the pixels of
// each frame that belong to a segment.
//   node load.mjs SEGMENTATION SOURCE_UID FRAMES ROWS COLUMNS
import { readFileSync } from "node:fs";

globalThis.window = globalThis;
globalThis.self = globalThis;
globalThis.document ??= { createElement: () => ({ getContext: () => null, style: {} }) };

const { metaData } = await import("@cornerstonejs/core");
const { adaptersSEG } = await import("@cornerstonejs/adapters");

const [file, uid, ...numbers] = process.argv.slice(2);
const [frames, rows, columns] = numbers.map(Number);
const images = Array.from({ length: frames }, (_, index) => `wadors:/instances/${uid}/frames/${index + 1}`);

const modules = {
  instance: () => ({ SOPInstanceUID: uid, Rows: rows, Columns: columns, NumberOfFrames: frames }),
  generalImageModule: () => ({ sopInstanceUID: uid }),
  generalSeriesModule: () => ({ seriesInstanceUID: "1.2", modality: "ES" }),
  imagePixelModule: () => ({ bitsAllocated: 8, bitsStored: 8, samplesPerPixel: 1, highBit: 7, pixelRepresentation: 0 }),
  imagePlaneModule: () => ({
    rows, columns, rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: [0, 0, 0],
    imageOrientationPatient: [1, 0, 0, 0, 1, 0], rowPixelSpacing: 1, columnPixelSpacing: 1, pixelSpacing: [1, 1],
    usingDefaultValues: true,
  }),
};
const custom = new Map();
const provider = {
  get: (module, id) => custom.get(`${module} ${id}`) ?? (images.includes(id) ? modules[module]?.() : undefined),
  addCustomMetadata: (id, module, value) => custom.set(`${module} ${id}`, value),
};
metaData.addProvider((module, id) => provider.get(module, id), 10);

const content = readFileSync(file);
const buffer = content.buffer.slice(content.byteOffset, content.byteOffset + content.length);
const made = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(images, buffer, {
  metadataProvider: provider,
});
const found = made.labelMapImages[0].map((image) => {
  const pixels = [...(image.voxelManager?.getScalarData() ?? image.getPixelData())];
  return pixels.flatMap((value, index) => (value ? [index] : []));
});
console.log(JSON.stringify(found));
process.exit(0);
