#!/usr/bin/env bash
# DICOM Segmentations in dcmjs-imaging, which renders DICOM in Node and in browsers.
#
# Guess:   a label map with one label is rendered in black and white, and each frame of a binary Segmentation as stored.
# Truth:   a label map of one label is white all over, with and without a mask. Its window is computed from the values 0
#          and 1: width 1, centre 0.5. By PS3.3, C.11.2.1.2.1, 0 is then black; dcmjs-imaging makes it white. With a window
#          of width 2 at 1, given by the caller or by a second label, both levels appear. Frames of a binary one whose
#          pixels leave a remainder when divided by 8 drift to the left, each by what is missing to a whole byte more
#          than the one before, and the last lacks its end. Nothing warns.
# Versions: dcmjs-imaging 0.2.5, dcmjs 0.52.2, highdicom 0.28.2, pydicom 3.0.2, numpy 2.4.6, Node 20 and npm
# Matters: docs/dicom.md advises label maps where a viewer cannot read bits. With this library neither kind shows the mask
#          of a cropped picture, such as 621x531, unless the caller sets the window of a label map. It says so now.
#
# Exit code 0: as described. 1: something changed. 2: Node or npm is not installed.
set -euo pipefail
command -v node npm > /dev/null || exit 2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip --disable-pip-version-check install -q highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
npm install --silent --no-audit --no-fund dcmjs-imaging@0.2.5 dcmjs@0.52.2 > /dev/null
cat > render.cjs <<'JAVASCRIPT'
const fs = require("fs");
const { DicomImage, WindowLevel } = require("dcmjs-imaging");

const [file, width, centre] = process.argv.slice(2);
const bytes = fs.readFileSync(file);
const image = new DicomImage(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
const chosen = width ? { windowLevel: new WindowLevel(Number(width), Number(centre)) } : {};
const frames = [];
for (let frame = 0; frame < image.getNumberOfFrames(); frame++) {
  const pixels = new Uint8Array(image.render({ frame, ...chosen }).pixels);
  frames.push(Array.from(pixels.filter((_, index) => index % 4 === 0), (level) => (level > 127 ? "1" : "0")).join(""));
}
console.log(`frames: ${JSON.stringify(frames)}`);
JAVASCRIPT
venv/bin/python - <<'PYTHON'
import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

FRAMES, COLUMNS = 4, 41
EMPTY = (
    "PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber"
    " ReferringPhysicianName PositionReferenceIndicator"
).split()


def slices(rows: int) -> list[Dataset]:
    """Return what the Segmentation is of, without pixels."""
    study, series, space = (generate_uid() for _ in range(3))
    made = []
    for number in range(FRAMES):
        each = Dataset()
        each.file_meta = FileMetaDataset()
        each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        each.SOPClassUID, each.SOPInstanceUID, each.Modality = CTImageStorage, generate_uid(), "CT"
        each.StudyInstanceUID, each.SeriesInstanceUID, each.FrameOfReferenceUID = study, series, space
        each.Rows, each.Columns, each.InstanceNumber, each.SeriesNumber = rows, COLUMNS, number + 1, 1
        each.ImagePositionPatient, each.ImageOrientationPatient = [0, 0, -number], [1, 0, 0, 0, 1, 0]
        each.PixelSpacing, each.SliceThickness = [1, 1], 1
        for name in EMPTY:
            setattr(each, name, "")
        made.append(each)
    return made


def segmentation(masks: np.ndarray, kind: str, labels: int = 1) -> str:
    category, lesion = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    described = [highdicom.seg.SegmentDescription(n + 1, "Lesion", category, lesion, "MANUAL") for n in range(labels)]
    series, instance = generate_uid(), generate_uid()
    highdicom.seg.Segmentation(
        slices(masks.shape[1]), masks, kind, described, series, 1, instance, 1, "maker", "model", "1", "1",
        omit_empty_frames=False,
    ).save_as("seg.dcm")  # fmt: skip
    return "seg.dcm"


def rendered(*arguments: str) -> np.ndarray:
    out = subprocess.run(["node", "render.cjs", *arguments], check=True, capture_output=True, text=True).stdout
    frames = json.loads(re.search(r"^frames: (.*)$", out, re.M)[1])
    return np.array([[level == "1" for level in frame] for frame in frames])


def moved(seen: np.ndarray, mask: np.ndarray) -> int | None:
    """Return by how many pixels a mask lies too far to the left, but for its last rows; None if it is another mask."""
    inside = slice(0, 30 * COLUMNS)
    return next((by for by in range(40) if np.array_equal(np.roll(mask.ravel(), -by)[inside], seen[inside])), None)


def discs(rows: int) -> np.ndarray:
    y, x = np.mgrid[:rows, :COLUMNS]
    return np.stack([(y - 15) ** 2 + (x - 15) ** 2 < (6 + number) ** 2 for number in range(FRAMES)]).astype(np.uint8)


print(*(f"{name} {version(name)}" for name in ("highdicom", "pydicom", "numpy")))
for name in ("dcmjs-imaging", "dcmjs"):
    print(name, json.loads(Path(f"node_modules/{name}/package.json").read_text())["version"])
masks = discs(40)
flat = masks.reshape(FRAMES, -1).astype(bool)
white = rendered(segmentation(masks, "LABELMAP")).all()
helped = np.array_equal(rendered("seg.dcm", "2", "1"), flat)
both = masks.copy()
both[:, 35, 35] = 2
second = np.array_equal(rendered(segmentation(both, "LABELMAP", 2)), both.reshape(FRAMES, -1) > 0)
print(f"label map: white all over: {white}; right with a window: {helped}; right with two labels: {second}")
right = white and helped and second
for rows in range(40, 48):
    masks = discs(rows)
    seen = rendered(segmentation(masks, "BINARY"))
    drift = [moved(one, mask) for one, mask in zip(seen, masks, strict=True)]
    missing = -rows * COLUMNS % 8
    print(f"binary, {COLUMNS}x{rows}, {missing} bits to a whole byte: frames moved by", *drift)
    right &= drift == [missing * number for number in range(FRAMES)]
sys.exit(not right)
PYTHON
