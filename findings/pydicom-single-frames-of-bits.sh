#!/usr/bin/env bash
# One frame of a binary DICOM Segmentation, asked for by its number, in pydicom and highdicom.
#
# Guess:   pixel_array(file, index=n), iter_pixels(file, indices=[n]) and highdicom's lazy_frame_retrieval give the frame
#          that pixel_array(file)[n] gives; to read one of a thousand frames is what they are for.
# Truth:   a frame that begins inside of a byte can touch a byte more than its own bits fill. pydicom reads only as many
#          as they fill, and lacks the last bits: ValueError, "cannot reshape array of size 1762 into shape (43,41)". It
#          hits some of the frames if rows times columns leave 3, 5, 6 or 7 when divided by 8, none otherwise, and never
#          the first. highdicom reads through pydicom when it is lazy, and gets the same error. All frames at once are
#          right in both.
# Versions: pydicom 3.0.2, highdicom 0.28.2, numpy 2.4.6
# Matters: a script that walks through the masks of a long video to save memory ends in the middle, for cropped pictures
#          only. docs/dicom.md says to read all frames, or to ask for a label map.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q pydicom==3.0.2 highdicom==0.28.2 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys
from collections.abc import Callable
from importlib.metadata import version

import highdicom
import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

FRAMES, COLUMNS = 9, 41
EMPTY = "PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber".split()


def source(rows: int, number: int, study: str, series: str, space: str) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = CTImageStorage, generate_uid(), "CT"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = study, series, space
    made.Rows, made.Columns, made.InstanceNumber, made.SeriesNumber = rows, COLUMNS, number + 1, 1
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, -number], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.SliceThickness = [1, 1], 1
    for name in (*EMPTY, "ReferringPhysicianName", "PositionReferenceIndicator"):
        setattr(made, name, "")
    return made


def segmentation(masks: np.ndarray) -> str:
    category, kind = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    described = highdicom.seg.SegmentDescription(1, "Lesion", category, kind, "MANUAL")
    ids = [generate_uid() for _ in range(3)]
    sources = [source(masks.shape[1], number, *ids) for number in range(FRAMES)]
    series, instance = generate_uid(), generate_uid()
    highdicom.seg.Segmentation(
        sources, masks, "BINARY", [described], series, 1, instance, 1, "maker", "model", "1", "1",
        omit_empty_frames=False,
    ).save_as("seg.dcm")  # fmt: skip
    return "seg.dcm"


def failing(read: Callable[[int], np.ndarray], masks: np.ndarray) -> set[int]:
    """Return the frames that cannot be read; all others are right."""
    failed = set()
    for number, mask in enumerate(masks):
        try:
            frame = read(number)
        except ValueError as error:
            assert "cannot reshape" in str(error)
            failed.add(number)
        else:
            assert np.array_equal(frame, mask)
    return failed


print(*(f"{name} {version(name)}" for name in ("pydicom", "highdicom", "numpy")))
right, affected = True, set()
for rows in range(40, 48):
    masks = np.random.default_rng(rows).integers(0, 2, (FRAMES, rows, COLUMNS), np.uint8)
    file = segmentation(masks)
    lazy = highdicom.imread(file, lazy_frame_retrieval=True)
    readers = {
        "pixel_array": lambda number: pixel_array(file, index=number),
        "iter_pixels": lambda number: next(iter_pixels(file, indices=[number])),
        "highdicom": lambda number: lazy.get_frame(number + 1),
    }
    found = [failing(read, masks) for read in readers.values()]
    remainder, whole = rows * COLUMNS % 8, np.array_equal(pixel_array(file), masks)
    print(f"{COLUMNS}x{rows}, remainder {remainder}: all at once right: {whole}; alone fail", *sorted(found[0]))
    begins = [number * remainder % 8 for number in range(FRAMES)]
    expected = {number for number in range(FRAMES) if remainder and begins[number] > -remainder % 8}
    right &= whole and found == [expected] * 3
    if found[0]:
        affected.add(remainder)
print("remainders with frames that fail:", *sorted(affected))
sys.exit(not (right and affected == {3, 5, 6, 7}))
PYTHON
