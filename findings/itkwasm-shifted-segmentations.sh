#!/usr/bin/env bash
# Binary DICOM Segmentations whose frames end inside of a byte, in two builds of dcmqi.
#
# Guess:   frames of one bit a pixel follow each other without padding (PS3.5, 8.1.1), and dcmqi reads each at its
#          place, as a program and as itkwasm-dicom, which is dcmqi in WebAssembly.
# Truth:   if rows times columns leave 3, 5, 6 or 7 when divided by 8, itkwasm-dicom falls behind by whole bytes on its
#          way through the file: frames lie 8 pixels too far to the right, later ones 16, 24 and so on, at worst 8 more
#          in each frame. With other remainders all is right; nothing warns. The program of dcmqi 1.5.7 is always right.
# Versions: itkwasm-dicom 7.6.4, dcmqi 1.5.7, highdicom 0.28.2, pydicom 3.0.2, numpy 2.4.6
# Matters: full pictures of endoscopes have whole bytes (1920x1080, 720x576), and so tests pass. Cropped ones often do
#          not, such as 621x531 of Kvasir-SEG. Viewers on itk-wasm then show masks beside the polyps. Tests of a reader
#          need such a size, and more than two frames.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  itkwasm-dicom==7.6.4 dcmqi==1.5.7 highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON' | grep "^found: "  # dcmqi prints what it finds, in WebAssembly too
import gzip
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
from itkwasm_dicom import read_segmentation
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

folder = Path(sys.argv[1])
FRAMES, COLUMNS = 8, 41
EMPTY = "PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber".split()


def slices(rows: int) -> list[Dataset]:
    """Return what a Segmentation is of: slices behind each other, without pixels."""
    study, series, space = (generate_uid() for _ in range(3))
    made = []
    for number in range(FRAMES):
        each = Dataset()
        each.file_meta = FileMetaDataset()
        each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        each.SOPClassUID, each.SOPInstanceUID, each.Modality = CTImageStorage, generate_uid(), "CT"
        each.StudyInstanceUID, each.SeriesInstanceUID, each.FrameOfReferenceUID = study, series, space
        each.Rows, each.Columns, each.InstanceNumber, each.SeriesNumber = rows, COLUMNS, number + 1, 1
        each.ImagePositionPatient, each.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        each.PixelSpacing, each.SliceThickness = [1, 1], 1
        for name in (*EMPTY, "ReferringPhysicianName", "PositionReferenceIndicator"):
            setattr(each, name, "")
        made.append(each)
    return made


def segmentation(masks: np.ndarray) -> Path:
    category, kind = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    described = highdicom.seg.SegmentDescription(1, "Lesion", category, kind, "MANUAL")
    series, instance = generate_uid(), generate_uid()
    made = highdicom.seg.Segmentation(
        slices(masks.shape[1]), masks, "BINARY", [described], series, 1, instance, 1, "maker", "model", "1", "1",
        omit_empty_frames=False,
    )
    made.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def by_dcmqi(file: Path) -> np.ndarray:
    program = folder / "venv/bin/segimage2itkimage"
    command = [program, "--inputDICOM", file, "--outputDirectory", folder]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    head, _, body = (folder / "1.nrrd").read_bytes().partition(b"\n\n")
    form = "<i2" if b"type: short" in head else "u1"
    return np.frombuffer(gzip.decompress(body), form).reshape(FRAMES, -1, COLUMNS) != 0


def by_itkwasm(file: Path) -> np.ndarray:
    return np.asarray(read_segmentation(str(file))[0].data) != 0


def moved(seen: np.ndarray, mask: np.ndarray) -> int | None:
    """Return by how many pixels a mask lies too far to the right; None if it is another mask."""
    distances = (by for by in range(8 * FRAMES) if np.array_equal(np.roll(seen.ravel(), -by), mask.ravel()))
    return next(distances, None)


print("found:", *(f"{name} {version(name)}" for name in ("itkwasm-dicom", "dcmqi", "highdicom", "pydicom", "numpy")))
found, right = {}, True
for rows in range(40, 48):
    y, x = np.mgrid[:rows, :COLUMNS]
    masks = np.stack([(y - 20) ** 2 + (x - 20) ** 2 < (8 + number) ** 2 for number in range(FRAMES)])
    file = segmentation(masks.astype(np.uint8))
    right &= np.array_equal(by_dcmqi(file), masks)
    seen = by_itkwasm(file)
    stored = reversed(range(FRAMES))  # highdicom stores the last slice first
    remainder = rows * COLUMNS % 8
    found[remainder] = [moved(seen[number], masks[number]) for number in stored]
    print(f"found: {COLUMNS}x{rows}, remainder {remainder}: itkwasm-dicom moves the frames by", *found[remainder])
print("found: dcmqi is right in all:", right)
affected = {remainder for remainder, distances in found.items() if any(distances)}
sys.exit(not (right and affected == {3, 5, 6, 7} and found[7] == [0, 0, 8, 16, 24, 32, 40, 48]))
PYTHON
