"""DICOM objects made of pictures, how they are sent, and what their answers hold."""

import io
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
    VideoEndoscopicImageStorage,
    VLEndoscopicImageStorage,
    generate_uid,
)

from service.dicom.availability import TOO_NEW
from tests.support.pictures import encoded, red_box
from tests.support.serving import Running

HAS_DICOM = sys.version_info < TOO_NEW  # the service; objects are made on every Python
NO_DICOM = "DICOM support needs Python 3.13 or earlier"
needs_dicom = pytest.mark.skipif(not HAS_DICOM, reason=NO_DICOM)

SECRETS = ("Doe^Jane", "PID-48213", "Endoskopie Nord")  # what nobody may find in a log
LOSSLESS = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
SYNTAXES = (*LOSSLESS, JPEGBaseline8Bit)
DICOM = {"content-type": "application/dicom"}
BOXES = ((10, 10, 60, 40), (0, 0, 0, 0), (5, 30, 45, 70))
PICTURES = [red_box(100, 80, box) for box in BOXES]
MASKS = [np.asarray(each)[..., 0] > 0 for each in PICTURES]


def dicom(pictures: Sequence[Image.Image], syntax: UID = ExplicitVRLittleEndian, **attributes: Any) -> Dataset:
    """Return an object of RGB pictures of one size."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = VLEndoscopicImageStorage, generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.PatientName, made.PatientID, made.InstitutionName = SECRETS
    made.PatientBirthDate, made.PatientSex, made.StudyID, made.AccessionNumber = "19700101", "F", "1", "A-48213"
    made.StudyDate, made.StudyTime = datetime(2026, 1, 2).strftime("%Y%m%d"), "101112"
    made.ReferringPhysicianName, made.Modality, made.SeriesNumber, made.InstanceNumber = "", "ES", 1, 1
    made.ImageType, made.Laterality, made.PatientOrientation = ["ORIGINAL", "PRIMARY"], "", ""
    made.Columns, made.Rows = pictures[0].size
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    if len(pictures) > 1:
        made.SOPClassUID = VideoEndoscopicImageStorage
        made.NumberOfFrames = len(pictures)
    if syntax == JPEGBaseline8Bit:
        made.PixelData = encapsulate([encoded(each, "JPEG", quality=90) for each in pictures])
        made["PixelData"].VR = "OB"
        made["PixelData"].is_undefined_length = True
        made.file_meta.TransferSyntaxUID = syntax
        made.PhotometricInterpretation = "YBR_FULL_422"
    else:
        made.PixelData = b"".join(np.asarray(each).tobytes() for each in pictures)
        made["PixelData"].VR = "OB"
        if syntax != ExplicitVRLittleEndian:
            made.compress(syntax, generate_instance_uid=False)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def grey(values: np.ndarray, bits: int = 12, photometric: str = "MONOCHROME2", **attributes: Any) -> Dataset:
    """Return an object of one grey picture, uint16 or int16 (H, W)."""
    made = dicom([Image.fromarray(np.zeros((*values.shape, 3), np.uint8))])
    del made.PlanarConfiguration
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, photometric
    _deepen(made, values, bits)
    made.PixelRepresentation = int(values.dtype == np.int16)
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def sixteen_bits(picture: Image.Image, bits: int = 16) -> Dataset:
    """Return an RGB object with ``bits`` of 16 in use."""
    made = dicom([picture])
    _deepen(made, np.asarray(picture).astype(np.uint16) << (bits - 8), bits)
    return made


def _deepen(made: Dataset, values: np.ndarray, bits: int) -> None:
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, bits, bits - 1
    made.PixelData = values.tobytes()
    made["PixelData"].VR = "OW"


def table(entries: Sequence[int], first: int, bits: int) -> list[Dataset]:
    """Return the sequence of one lookup table, whose first entry is for the value ``first``."""
    made = Dataset()
    made.LUTDescriptor = [len(entries), first, bits]
    made.LUTData = np.asarray(entries, "<u2").tobytes()
    made["LUTDescriptor"].VR, made["LUTData"].VR = "US", "OW"
    return [made]


def palette(picture: Image.Image, bits: int = 16) -> Dataset:
    """Return an object of at most 256 colours."""
    indexed = picture.quantize(256)
    colours = np.zeros((256, 3), np.uint16)
    found = np.array(indexed.getpalette(), np.uint16).reshape(-1, 3)
    colours[: len(found)] = found
    made = dicom([picture], SamplesPerPixel=1, PhotometricInterpretation="PALETTE COLOR")
    del made.PlanarConfiguration
    for name, levels in zip(("Red", "Green", "Blue"), colours.T, strict=True):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        data = (levels * 257).astype("<u2") if bits == 16 else levels.astype(np.uint8)
        setattr(made, f"{name}PaletteColorLookupTableData", data.tobytes())
    made.PixelData = np.asarray(indexed).tobytes()
    made["PixelData"].VR = "OB"
    return made


def ybr(picture: Image.Image, photometric: str = "YBR_FULL") -> Dataset:
    """Return an uncompressed object in YBR_FULL, or with half as many colours in a row in YBR_FULL_422."""
    samples = np.asarray(picture.convert("YCbCr"))
    if photometric == "YBR_FULL_422":
        pairs = samples.reshape(*samples.shape[:1], -1, 2, 3)  # (H, W / 2, 2, 3) -> Y, Y, Cb, Cr
        colours = pairs[..., 1:].mean(axis=2).astype(np.uint8)
        samples = np.concatenate([pairs[..., 0], colours], axis=-1)
    made = dicom([picture], PhotometricInterpretation=photometric)
    made.PixelData = samples.tobytes()
    made["PixelData"].VR = "OB"
    return made


def compressed(made: Dataset, syntax: UID, **options: Any) -> Dataset:
    """Return the object in a transfer syntax."""
    made.compress(syntax, generate_instance_uid=False, **options)
    return made


def written(made: Dataset) -> bytes:
    """Return an object's file."""
    buffer = io.BytesIO()
    made.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


async def sent(it: Running, made: Dataset | bytes, query: str = "", **headers: str) -> httpx.Response:
    body = made if isinstance(made, bytes) else written(made)
    return await it.rest.post(f"/segment{query}", content=body, headers=DICOM | headers)


def segmentation(content: bytes) -> Any:
    import highdicom  # not on every Python, see above

    return highdicom.seg.segread(io.BytesIO(content))


def valid(path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dciodvfy (Debian: dicom3tools)")
    done = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []
