"""Decodes JPEG frames in colour, and decides which colours they store: what an object declares is often wrong."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from pydicom.uid import JPEGBaseline8Bit, JPEGExtended12Bit

SYNTAXES = (JPEGBaseline8Bit, JPEGExtended12Bit)
RGB_IDS = [*b"RGB"]  # of components; libjpeg takes them for RGB too


def rgb(data: bytes, declared: str) -> npt.NDArray[np.uint8]:
    """Decode a JPEG of three components in 8 bits to RGB, uint8 (H, W, 3).

    libjpeg goes by the markers JFIF and Adobe, then by the ids of the components. If none of them says what is stored,
    it assumes YCbCr, whereas DICOM has RGB where the object declares it (PS3.5, 8.2.1), unless chroma is subsampled.
    pydicom 3.0 is not used: it believes a declared RGB that is subsampled, and converts Adobe's YCbCr twice.

    Args:
        data: of one frame.
        declared: photometric interpretation of the object.

    Raises:
        Exception: of many types, for damaged data.

    """
    image: Any = Image.open(io.BytesIO(data), formats=("JPEG",))
    if declared == "RGB" and not _says(image):
        image.draft("YCbCr", image.size)  # no conversion
    return np.asarray(image)


def _says(image: JpegImageFile) -> bool:
    ids = [component[0] for component in image.layer]
    subsampled = len({component[1:3] for component in image.layer}) > 1
    return "jfif" in image.info or "adobe" in image.info or ids == RGB_IDS or subsampled
