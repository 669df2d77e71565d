"""A DICOM object -> its frames as RGB, each decoded alone and only when its turn comes.

What pydicom says of an object may quote it, so that no message of it reaches a log or an answer.
"""

import io
import logging
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset, config, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.multival import MultiValue
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.pixels.processing import apply_color_lut
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from model.transforms import Pixels
from service.codec import Packed, PixelFormat, RawPicture
from service.dicom.codestream import declared_size
from service.errors import (
    InvalidRequest,
    ServiceError,
    TooManyBytes,
    TooManyPixels,
    UndecodableImage,
    UnsupportedImage,
)

MAX_RLE_BYTES = 8 * 2**20  # of a frame, more than any of 1920x1080 takes: run lengths may unpack to 64 times as many
MAX_FRAMES = 100_000  # an hour of video; the number is only declared, and each takes memory
NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelData")

config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
for package in ("pydicom", "highdicom"):
    warnings.filterwarnings("ignore", module=package)


@dataclass(frozen=True, slots=True)
class Study:
    """One object: its attributes, and a function for each frame that decodes it."""

    dataset: Dataset
    frames: tuple[Packed, ...]


def read(data: bytes, max_pixels: int) -> Study:
    """Parse an object; no pixel is decoded.

    Raises:
        InvalidRequest: no bytes.
        UnsupportedImage: no image, or its transfer syntax is not read here.
        TooManyPixels: a frame declares more than ``max_pixels``.
        UndecodableImage: no DICOM, or damaged.

    """
    if not data:
        raise InvalidRequest("the body is empty; send one DICOM object")
    try:
        decoder = _decoder(_transfer_syntax(data))
        return _checked(dcmread(io.BytesIO(data)), decoder, max_pixels)
    except ServiceError:
        raise
    except Exception as error:  # pydicom raises nearly everything over damaged files
        raise _damaged("object", error) from None


def _transfer_syntax(data: bytes) -> UID:
    """Return how an object is encoded from its head, before any of the rest is read (PS3.10, 7.1)."""
    file = io.BytesIO(data)
    read_preamble(file, force=False)
    return UID(_read_file_meta_info(file).TransferSyntaxUID)


def _decoder(syntax: UID) -> Decoder:
    """Return what decodes frames; there is none of a deflated object, which would be inflated whole, however large."""
    try:
        decoder = None if syntax == DeflatedExplicitVRLittleEndian else get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        name = syntax.name if syntax.is_transfer_syntax else "unknown"
        raise UnsupportedImage(
            f"the transfer syntax {name} is not read here; send uncompressed, RLE, JPEG, JPEG-LS or JPEG 2000"
        )
    return decoder


def _checked(dataset: Dataset, decoder: Decoder, max_pixels: int) -> Study:
    missing = [name for name in NEEDED if name not in dataset]
    if missing:
        raise UndecodableImage(f"the DICOM object is no image: it has no {', '.join(missing)}")
    if min(dataset.Rows, dataset.Columns) < 1:
        raise UndecodableImage("the DICOM object declares no rows or no columns")
    if dataset.Rows * dataset.Columns > max_pixels:
        raise _too_many(max_pixels)
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= MAX_FRAMES:
        raise UndecodableImage(f"the DICOM object declares {count} frames; between 1 and {MAX_FRAMES} are read here")
    if not decoder.is_encapsulated:
        _check_length(dataset, count)
    return Study(dataset, tuple(partial(_frame, dataset, decoder, index, count) for index in range(count)))


def _check_length(dataset: Dataset, count: int) -> None:
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated * count
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    if len(dataset.PixelData) < bits // 8:
        raise UndecodableImage(f"the DICOM object has {len(dataset.PixelData)} bytes of pixels, not {bits // 8}")


def _frame(dataset: Dataset, decoder: Decoder, index: int, count: int) -> RawPicture:
    """Decode one frame, numbered from 0."""
    try:
        if decoder.is_encapsulated:
            _check_codestream(dataset, decoder, index, count)
        pixels, about = decoder.as_array(dataset, index=index, raw=False)
        rgb = _rgb(pixels, str(about["photometric_interpretation"]), dataset)
    except ServiceError:
        raise
    except Exception as error:  # each codec has exceptions of its own
        raise _damaged(f"frame {index + 1}", error) from None
    height, width, _ = rgb.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, rgb.tobytes())


def _check_codestream(dataset: Dataset, decoder: Decoder, index: int, count: int) -> None:
    """Hold a frame to the size that its object declares, which the limit was applied to."""
    frame = get_frame(dataset.PixelData, index, number_of_frames=count)
    if RLELossless == decoder.UID:  # has no size of its own
        if len(frame) > MAX_RLE_BYTES:
            raise TooManyBytes(f"frame {index + 1} has more than {MAX_RLE_BYTES} bytes of run lengths; send JPEG 2000")
        return
    declared = declared_size(frame)
    if declared != (dataset.Columns, dataset.Rows):
        raise UndecodableImage(f"frame {index + 1} is not of the size that the DICOM object declares; send it again")


def _rgb(pixels: npt.NDArray[Any], photometric: str, dataset: Dataset) -> Pixels:
    """Make RGB uint8 (H, W, 3) of decoded samples."""
    if photometric == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return _eight_bits(pixels, int(dataset.RedPaletteColorLookupTableDescriptor[2]))
    if photometric == "RGB" and pixels.ndim == 3:
        return _eight_bits(pixels, dataset.BitsStored)
    if photometric in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        grey = _grey(pixels, dataset)
        grey = 255 - grey if photometric == "MONOCHROME1" else grey
        return np.repeat(grey[..., None], 3, axis=2)
    raise UnsupportedImage("the photometric interpretation is not read here; send RGB, YBR, MONOCHROME or palette")


def _grey(pixels: npt.NDArray[Any], dataset: Dataset) -> Pixels:
    """Apply the window where there is one (PS3.3, C.11.2.1.2.1), else the whole range of the stored bits."""
    if "WindowCenter" not in dataset or "WindowWidth" not in dataset:
        signed = bool(dataset.get("PixelRepresentation", 0))
        offset = 2 ** (dataset.BitsStored - 1) if signed else 0
        return _eight_bits(pixels.astype(np.int64) + offset, dataset.BitsStored)
    values = pixels * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    centre, width = (_first(dataset[name].value) for name in ("WindowCenter", "WindowWidth"))
    level: npt.NDArray[np.float64] = ((values - (centre - 0.5)) / max(width - 1, 1) + 0.5) * 255
    return np.clip(np.rint(level), 0, 255).astype(np.uint8)


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, MultiValue) else value)


def _eight_bits(pixels: npt.NDArray[Any], bits: int) -> Pixels:
    if bits == 8:
        return pixels.astype(np.uint8)
    scaled: npt.NDArray[np.float64] = np.rint(pixels * (255 / (2**bits - 1)))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _damaged(part: str, error: Exception) -> UndecodableImage:
    return UndecodableImage(f"the DICOM {part} is damaged or incomplete ({type(error).__name__}); send it again")


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"a frame declares more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send smaller ones")
