#!/usr/bin/env bash
# DICOM Segmentations without their empty frames, and label maps, in SimpleITK.
#
# Guess:   SimpleITK places each frame of a Segmentation where the file says that it lies (PlanePositionSequence). Where
#          empty frames are left out, it fills the gaps, as dcmqi does, or says that it cannot. It reads label maps, too.
# Truth:   frames at equal distances are right, also in descending order. At other distances only the first position and
#          SpacingBetweenSlices count: frames at 5, 2 and 1 come to lie at 5, 6 and 7, on the other side of the first
#          one; nothing warns. The values are 0 and 255 instead of 0 and the segment's number. Label maps are refused
#          ("Unable to determine ImageIO reader"). dcmqi 1.5.7 is right in all of these.
# Versions: SimpleITK 2.5.7, dcmqi 1.5.7, highdicom 0.28.2, pydicom 3.0.2, numpy 2.4.6
# Matters: highdicom leaves empty frames out unless it is told otherwise, and so does the service with
#          omit_empty=true. A mask then belongs to another frame of the video. docs/dicom.md says to keep all frames.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q \
  SimpleITK==2.5.7 dcmqi==1.5.7 highdicom==0.28.2 pydicom==3.0.2 numpy==2.4.6
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import highdicom
import numpy as np
import SimpleITK
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

folder = Path(sys.argv[1])
SLICES, ROWS, COLUMNS = 6, 48, 40
EMPTY = "PatientName PatientID PatientBirthDate PatientSex StudyID StudyDate StudyTime AccessionNumber".split()


def slices() -> list[Dataset]:
    """Return what a Segmentation is of: slices one unit apart, without pixels."""
    study, series, space = (generate_uid() for _ in range(3))
    made = []
    for number in range(SLICES):
        each = Dataset()
        each.file_meta = FileMetaDataset()
        each.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        each.SOPClassUID, each.SOPInstanceUID, each.Modality = CTImageStorage, generate_uid(), "CT"
        each.StudyInstanceUID, each.SeriesInstanceUID, each.FrameOfReferenceUID = study, series, space
        each.Rows, each.Columns, each.InstanceNumber, each.SeriesNumber = ROWS, COLUMNS, number + 1, 1
        each.ImagePositionPatient, each.ImageOrientationPatient = [0, 0, number], [1, 0, 0, 0, 1, 0]
        each.PixelSpacing, each.SliceThickness = [1, 1], 1
        for name in (*EMPTY, "ReferringPhysicianName", "PositionReferenceIndicator"):
            setattr(each, name, "")
        made.append(each)
    return made


def segmentation(sizes: dict[int, int], kind: str) -> Path:
    """Write squares, their sides in pixels by the slice that they are in; the other slices are left out."""
    masks = np.zeros((SLICES, ROWS, COLUMNS), np.uint8)
    for number, side in sizes.items():
        masks[number, 5 : 5 + side, 8 : 8 + side] = 1
    category, property_type = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Lesion
    described = highdicom.seg.SegmentDescription(1, "Lesion", category, property_type, "MANUAL")
    series, instance = generate_uid(), generate_uid()
    made = highdicom.seg.Segmentation(
        slices(), masks, kind, [described], series, 1, instance, 1, "maker", "model", "1", "1"
    )
    made.save_as(folder / "seg.dcm")
    return folder / "seg.dcm"


def read(file: Path) -> tuple[dict[int, int], set[int]]:
    """Return the sides of the squares that SimpleITK shows, by their places, and all values."""
    image = SimpleITK.ReadImage(str(file))
    voxels = SimpleITK.GetArrayFromImage(image)
    places = [round(image.TransformIndexToPhysicalPoint((0, 0, number))[2]) for number in range(len(voxels))]
    sides = [round(float(np.count_nonzero(each)) ** 0.5) for each in voxels]
    return {place: side for place, side in zip(places, sides, strict=True) if side}, set(np.unique(voxels).tolist())


def by_dcmqi(file: Path) -> tuple[dict[int, int], set[int]]:
    program = folder / "venv/bin/segimage2itkimage"
    command = [program, "--inputDICOM", file, "--outputDirectory", folder]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return read(folder / "1.nrrd")


print(*(f"{name} {version(name)}" for name in ("simpleitk", "dcmqi", "highdicom", "pydicom", "numpy")))
found = {}
for name, given, kind in (
    ("no gap", {number: 10 + number for number in range(SLICES)}, "BINARY"),
    ("equal gaps", {1: 11, 3: 13, 5: 15}, "BINARY"),
    ("other gaps", {1: 11, 2: 12, 5: 15}, "BINARY"),
    ("label map", {1: 11, 2: 12, 5: 15}, "LABELMAP"),
):
    file = segmentation(given, kind)
    try:
        seen, values = read(file)
    except RuntimeError as error:
        seen, values = str(error).strip().rpartition("sitk::ERROR: ")[2].partition(" for ")[0], set()
    found[name] = seen if kind == "LABELMAP" else (seen == given, values)
    other, labels = by_dcmqi(file)
    print(f"{name}: sides by place {given}; SimpleITK {seen} {values or ''}; dcmqi {other} {labels}")
    if (other, labels) != (given, {0, 1}):
        sys.exit("dcmqi reads it otherwise")
both = {0, 255}
sys.exit(
    found
    != {
        "no gap": (True, both),
        "equal gaps": (True, both),
        "other gaps": (False, both),
        "label map": "Unable to determine ImageIO reader",
    }
)
PYTHON
