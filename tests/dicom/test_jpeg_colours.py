"""JPEG in DICOM: its own markers and sampling say which colours it stores, whatever the object declares."""

import io
import re

import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, JPEGExtended12Bit

from tests.support.dicom_objects import MASKS, PICTURES, dicom, needs_dicom, sent
from tests.support.pictures import dice, mask_of
from tests.support.serving import serving

pytestmark = needs_dicom

PICTURE, MASK = PICTURES[0], MASKS[0]
JFIF, ADOBE = b"\xff\xe0", b"\xff\xee"
FULL, HALF, QUARTER = "4:4:4", "4:2:2", "4:2:0"


def jpeg(picture: Image.Image = PICTURE, sampling: str = FULL, *, rgb: bool = False, ids: bytes = b"\1\2\3") -> bytes:
    """Return a JPEG without JFIF and Adobe markers, in YCbCr or RGB, its components named ``ids``."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, keep_rgb=rgb, **({} if rgb else {"subsampling": sampling}))
    data = buffer.getvalue()
    for marker in (JFIF, ADOBE):
        data = re.sub(re.escape(marker) + rb"\0.(?:JFIF|Adobe)[^\xff]*", b"", data, flags=re.DOTALL)
    for start, first, step in ((b"\xff\xc0", 10, 3), (b"\xff\xda", 5, 2)):  # the ids in the frame's and scan's header
        changed = bytearray(data)
        for number, name in enumerate(ids):
            changed[data.index(start) + first + step * number] = name
        data = bytes(changed)
    return data


def with_adobe(data: bytes, transform: int) -> bytes:
    return data[:2] + ADOBE + b"\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + data[2:]


def with_jfif(data: bytes) -> bytes:
    return data[:2] + JFIF + b"\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" + data[2:]


STORED = {
    "as declared, RGB": ("RGB", jpeg(rgb=True)),
    "as declared, YBR_FULL": ("YBR_FULL", jpeg()),
    "RGB declared, but a quarter of the chroma": ("RGB", jpeg(sampling=QUARTER)),
    "RGB declared, but half of the chroma": ("RGB", jpeg(sampling=HALF)),
    "RGB declared, but JFIF": ("RGB", with_jfif(jpeg())),
    "RGB declared, but Adobe's YCbCr": ("RGB", with_adobe(jpeg(), 1)),
    "RGB declared, and Adobe's RGB": ("RGB", with_adobe(jpeg(rgb=True), 0)),
    "YBR declared, and Adobe's YCbCr": ("YBR_FULL_422", with_adobe(jpeg(sampling=HALF), 1)),
    "YBR declared, but Adobe's RGB": ("YBR_FULL_422", with_adobe(jpeg(rgb=True), 0)),
    "YBR declared, but components named RGB": ("YBR_FULL_422", jpeg(rgb=True, ids=b"RGB")),
    "RGB declared, and components named RGB": ("RGB", jpeg(rgb=True, ids=b"RGB")),
}


def stored(data: bytes, declared: str, syntax: UID = JPEGBaseline8Bit) -> Dataset:
    made = dicom([PICTURE], JPEGBaseline8Bit, PhotometricInterpretation=declared)
    made.PixelData = encapsulate([data])
    made.file_meta.TransferSyntaxUID = syntax
    return made


@pytest.mark.parametrize("name", STORED)
async def test_a_jpeg_is_seen_in_the_colours_that_it_stores(name: str) -> None:
    declared, data = STORED[name]
    extended = data.replace(b"\xff\xc0", b"\xff\xc1", 1)
    async with serving() as it:
        for made in (stored(data, declared), stored(extended, declared, JPEGExtended12Bit)):
            answer = await sent(it, made)
            assert answer.status_code == 200, answer.text
            assert dice(mask_of(answer.content), MASK) > 0.95
