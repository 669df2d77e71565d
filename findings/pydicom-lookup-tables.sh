#!/usr/bin/env bash
# pydicom's look-up tables for grey pictures: entries of 8 bits, and of 12.
#
# Guess:   pydicom 3's apply_voi and apply_modality_lut show a grey picture through any table that DICOM allows: 8 to 16
#          bits an entry, up to 65,536 entries (PS3.3, C.11.1.1 and C.11.2.1.1).
# Truth:   apply_voi computes the index into the table in the type of the table's entries. With entries of 8 bits the
#          index wraps at 256, so most pixels of a picture of 12 bits get the entry of another value; nothing warns.
#          apply_modality_lut raises an error for entries of 12 bits.
#          highdicom's apply_lut, given the same entries, is right in both.
# Versions: pydicom 3.0.2, highdicom 0.28.2, numpy 2.4.6
# Matters: a colonoscopy still in grey with such a table is shown, and so segmented, as a wrong picture. The service
#          looks values up with highdicom.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q pydicom==3.0.2 highdicom==0.28.2 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import highdicom
import numpy as np
import pydicom
from highdicom.pixels import apply_lut
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi
from pydicom.uid import ExplicitVRLittleEndian

print(f"pydicom {pydicom.__version__}, highdicom {highdicom.__version__}, numpy {np.__version__}")

ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # every value of 12 bits once


def table(entries: list[int], bits: int) -> Dataset:
    made = Dataset()
    made.add_new("LUTDescriptor", "US", [len(entries), 0, bits])
    made.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return made


def picture() -> Dataset:
    made = Dataset()
    made.BitsAllocated, made.BitsStored, made.PixelRepresentation = 16, 12, 0
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


eight = [value // 16 for value in range(4096)]  # 4096 entries of 8 bits: 0 to 255
expected = np.array(eight)[ramp]
seen = picture()
seen.VOILUTSequence = [table(eight, 8)]
shown = apply_voi(ramp, seen)
wrong = float(np.mean(shown != expected))
right = bool(np.array_equal(apply_lut(ramp, np.array(eight, np.uint8), 0), expected))
print(f"8 bits:  pydicom shows {wrong:.1%} of the pixels wrong; highdicom's apply_lut is right: {right}")

twelve = list(range(4095, -1, -1))
seen = picture()
seen.ModalityLUTSequence = [table(twelve, 12)]
seen.ModalityLUTSequence[0].ModalityLUTType = "US"
try:
    apply_modality_lut(ramp, seen)
    refused = ""
except Exception as error:
    refused = f"{type(error).__name__}: {error}"
print(f"12 bits: pydicom raises {refused or 'nothing'}")

sys.exit(not (wrong > 0.5 and right and refused))
PYTHON
