// Writes a zip (PKWARE's APPNOTE) without compression: masks are PNGs, which are compressed already.

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const VERSION = 20; // 2.0
const UTF8_NAMES = 0x0800; // flag bit 11
const FIRST_DAY = 0x21; // 1 January 1980, the earliest date of the format
const MOST_FILES = 0xffff; // without Zip64
const MOST_BYTES = 0xffffffff;

/** Return a zip as a Blob; files are [name, Blob]. Throws an Error with a sentence if they do not fit. */
export async function zip(files) {
  const parts = [], directory = [];
  let offset = 0;
  for (const [name, content] of files) {
    const bytes = new Uint8Array(await content.arrayBuffer());
    const encoded = new TextEncoder().encode(name);
    const described = [VERSION, UTF8_NAMES, 0, 0, FIRST_DAY, [checksum(bytes)], [bytes.length], [bytes.length], encoded.length, 0];
    const local = record([[LOCAL], ...described]);
    directory.push(record([[CENTRAL], VERSION, ...described, 0, 0, 0, [0], [offset]]), encoded);
    parts.push(local, encoded, bytes);
    offset += local.length + encoded.length + bytes.length;
  }
  const count = files.length;
  const size = directory.reduce((sum, part) => sum + part.length, 0);
  if (count > MOST_FILES || offset + size > MOST_BYTES) {
    throw new Error("The results are too large for one zip (4 GiB); save fewer pictures at once.");
  }
  const end = record([[END], 0, 0, count, count, [size], [offset], 0]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

/** Return numbers as little-endian bytes: a plain number takes two, one in brackets four. */
function record(fields) {
  const bytes = new DataView(new ArrayBuffer(fields.reduce((sum, field) => sum + (Array.isArray(field) ? 4 : 2), 0)));
  let place = 0;
  for (const field of fields) {
    if (Array.isArray(field)) bytes.setUint32(place, field[0], true);
    else bytes.setUint16(place, field, true);
    place += Array.isArray(field) ? 4 : 2;
  }
  return new Uint8Array(bytes.buffer);
}

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** Return the CRC-32 of bytes. */
function checksum(bytes) {
  let rest = -1;
  for (const byte of bytes) rest = TABLE[(rest ^ byte) & 255] ^ (rest >>> 8);
  return (rest ^ -1) >>> 0;
}
