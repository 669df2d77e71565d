// Prints what dcmjs reads in a DICOM object, by names instead of tags, with the values of its pixels.
//   node read.mjs OBJECT
import { readFileSync } from "node:fs";
import dcmjs from "dcmjs";

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;
const content = readFileSync(process.argv[2]);
const buffer = content.buffer.slice(content.byteOffset, content.byteOffset + content.length);
const read = DicomMessage.readFile(buffer);
const named = DicomMetaDictionary.naturalizeDataset(read.dict);
const stored = new Uint8Array([named.PixelData].flat()[0]);
const pixels = named.BitsAllocated === 1 ? dcmjs.data.BitArray.unpack(stored) : stored;
console.log(JSON.stringify({ ...named, PixelData: [...pixels] }));
