"""A DICOM object -> its frames as RGB, each decoded alone and only when its turn comes.

What pydicom says of an object may quote it, so that no message of it reaches a log or an answer.
"""

import io
import logging
import warnings
from dataclasses import dataclass
from functools import partial

from pydicom import Dataset, config, dcmread
from pydicom.encaps import get_frame
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, RLELossless

from pranet_client.pictures import PixelFormat, RawPicture
from service.dicom import pixels
from service.dicom.codestream import declared_size
from service.errors import InvalidRequest, ServiceError, TooManyBytes, TooManyPixels, UndecodableImage, UnsupportedImage
from service.frames.codec import Packed

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
        raise UndecodableImage(f"the DICOM object is no image: it has no {', '.join(missing)}; send one with pixels")
    pixels.check(dataset)
    if min(dataset.Rows, dataset.Columns) < 1:
        raise UndecodableImage("the DICOM object declares no rows or no columns; send one with pixels")
    if dataset.Rows * dataset.Columns > max_pixels:
        raise _too_many(max_pixels)
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= MAX_FRAMES:
        raise UndecodableImage(f"the DICOM object declares {count} frames; send 1 to {MAX_FRAMES}")
    if not decoder.is_encapsulated:
        _check_length(dataset, count)
    return Study(dataset, tuple(partial(_frame, dataset, decoder, index, count) for index in range(count)))


def _check_length(dataset: Dataset, count: int) -> None:
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated * count
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    if len(dataset.PixelData) < bits // 8:
        raise UndecodableImage(
            f"the DICOM object has {len(dataset.PixelData)} bytes of pixels, not {bits // 8}; send it whole"
        )


def _frame(dataset: Dataset, decoder: Decoder, index: int, count: int) -> RawPicture:
    """Decode one frame, numbered from 0."""
    try:
        if decoder.is_encapsulated:
            _check_codestream(dataset, decoder, index, count)
        samples, about = decoder.as_array(dataset, index=index, raw=False)
        rgb = pixels.rgb(samples, str(about["photometric_interpretation"]), dataset)
    except ServiceError:
        raise
    except Exception as error:  # each codec has exceptions of its own
        raise _damaged(f"frame {index + 1}", error) from None
    height, width, _ = rgb.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, rgb.tobytes())


def _check_codestream(dataset: Dataset, decoder: Decoder, index: int, count: int) -> None:
    """Hold a frame to the coding and the size that its object declares, which the limit was applied to."""
    frame = get_frame(dataset.PixelData, index, number_of_frames=count)
    if RLELossless == decoder.UID:  # has no size of its own
        if len(frame) > MAX_RLE_BYTES:
            raise TooManyBytes(f"frame {index + 1} has more than {MAX_RLE_BYTES} bytes of run lengths; send JPEG 2000")
        return
    declared = declared_size(frame, decoder.UID)
    if declared is None:
        raise UndecodableImage(f"frame {index + 1} is not coded as {decoder.UID.name}; send it so, or uncompressed")
    if declared != (dataset.Columns, dataset.Rows):
        raise UndecodableImage(f"frame {index + 1} is not of the size that the DICOM object declares; send it again")


def _damaged(part: str, error: Exception) -> UndecodableImage:
    return UndecodableImage(f"the DICOM {part} is damaged or incomplete ({type(error).__name__}); send it again")


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"a frame declares more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send smaller ones")
