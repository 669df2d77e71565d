"""Reads a DICOM object; each of its frames is decoded to RGB separately, and only when it is needed.

Messages of pydicom and highdicom may quote patient data. They therefore never go into logs or error texts.
"""

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom import Dataset, FileMetaDataset, config, dcmread
from pydicom.encaps import get_frame, parse_basic_offsets, parse_fragments
from pydicom.filereader import _read_file_meta_info, read_preamble
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGExtended12Bit,
    MediaStorageDirectoryStorage,
    ParametricMapStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
)

from pranet_client.pictures import Picture, PixelFormat, RawPicture
from service.dicom import jpeg, jpeg_2000, pixels, video
from service.dicom.codestream import declared_size
from service.dicom.detection import is_object
from service.errors import InvalidRequest, ServiceError, TooManyBytes, TooManyPixels, UndecodableImage, UnsupportedImage
from service.frames.codec import Packed

MAX_RLE_BYTES = 8 * 2**20  # of a frame; enough for 1920x1080. Run lengths can unpack to 64 times their size
EXTENDED_OFFSETS = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")  # of frames with one fragment each
MAX_FRAMES = 100_000  # an hour of video; the number is only declared, but memory is allocated for each frame
STANDARD = "1.2.840.10008."  # UIDs of DICOM itself, also those that are newer than pydicom
# Classes whose pixels are not what a camera saw.
NO_PICTURES = (
    SegmentationStorage,
    UID("1.2.840.10008.5.1.4.1.1.66.7"),  # Label Map Segmentation Storage, which pydicom 3.0 does not know
    ParametricMapStorage,
    RTDoseStorage,
)
NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelData")

config.settings.reading_validation_mode = config.IGNORE
for package in ("pydicom", "highdicom"):
    logging.getLogger(package).setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=package)


class NoPicture(UnsupportedImage):
    """An object is of a class without pictures, such as a Segmentation: a folder or archive may pass it by."""


@dataclass(frozen=True, slots=True)
class Study:
    """One object: its attributes, and a function for each frame that decodes it."""

    dataset: Dataset
    frames: tuple[Packed, ...]
    name: str = ""  # of its file, for messages to the user who gave it


def read(data: bytes, max_pixels: int) -> Study:
    """Parse an object without decoding its pixels.

    Raises:
        InvalidRequest: ``data`` is empty.
        UnsupportedImage: the data are not DICOM, or the transfer syntax or the kind of pixels is not supported.
        TooManyPixels: a frame declares more than ``max_pixels``.
        UndecodableImage: the data have no pixels, or are damaged.

    """
    if not data:
        raise InvalidRequest("the object is empty; send one DICOM object")
    if not is_object(data):
        raise UnsupportedImage("the file is not a DICOM object; send one, or send a picture under its own type")
    try:
        meta = _meta(data)
        if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise NoPicture(
                "this is a DICOMDIR, the directory of a medium, not a picture; send the files that it lists"
            )
        syntax = UID(meta.TransferSyntaxUID)
        decoder = None if syntax in video.SYNTAXES else _decoder(syntax)
        dataset = dcmread(io.BytesIO(data), force=True)
        dataset.file_meta = meta
        return _checked(dataset, decoder, max_pixels)
    except ServiceError:
        raise
    except Exception as error:  # pydicom raises many types of exceptions for damaged files
        raise _damaged("object", error) from None


def only_frame(data: bytes, max_pixels: int) -> Picture:
    """Return the picture of an object that has one frame.

    Raises:
        ServiceError: it has several (``UnsupportedImage``), or see ``read``.

    """
    frames = read(data, max_pixels).frames
    if len(frames) > 1:
        raise UnsupportedImage(f"the DICOM object has {len(frames)} frames, not one; send it alone to POST /segment")
    return frames[0]()


def _meta(data: bytes) -> FileMetaDataset:
    """Return the file meta information, without reading the rest (PS3.10, 7.1), and make what is missing of it."""
    file = io.BytesIO(data)
    read_preamble(file, force=True)
    meta = _read_file_meta_info(file)
    if "TransferSyntaxUID" not in meta:
        explicit = data[file.tell() + 4 : file.tell() + 6].isalpha()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    return meta


def _decoder(syntax: UID) -> Decoder:
    """Return the decoder of a transfer syntax. Deflated objects are refused: they inflate as a whole to any size."""
    try:
        decoder = None if syntax == DeflatedExplicitVRLittleEndian else get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None or not decoder.is_available:
        told = syntax.is_transfer_syntax or (syntax.is_valid and syntax.startswith(STANDARD))
        name = syntax.name if told else "unknown"  # it may be text about a patient
        raise UnsupportedImage(
            f"the transfer syntax {name} is not supported; send uncompressed, RLE, JPEG, JPEG-LS, JPEG 2000 or "
            "MPEG-2, H.264 or H.265 video"
        )
    return decoder


def _checked(dataset: Dataset, decoder: Decoder | None, max_pixels: int) -> Study:
    """Return an object whose header was checked; without a decoder, it is a video."""
    kind = UID(str(dataset.get("SOPClassUID", "")))
    no_image = kind.type == "SOP Class" and not {"Rows", "PixelData"}.intersection(dataset.dir())
    if kind in NO_PICTURES or no_image:
        raise NoPicture(f"the DICOM object has the SOP class {kind.name}, which is not a picture; send the pictures")
    missing = [name for name in NEEDED if name not in dataset]
    if missing:
        raise UndecodableImage(f"the DICOM object is not an image: it has no {', '.join(missing)}; send an image")
    if decoder is not None:
        if JPEGExtended12Bit == decoder.UID and dataset.BitsStored > 8:
            raise UnsupportedImage("JPEG with more than 8 bits is not supported; send the object as JPEG 2000")
        pixels.check(dataset)
        _check_layout(dataset, decoder)
        for table in EXTENDED_OFFSETS:  # a decoder would find frames by it that were not checked
            if table in dataset:
                del dataset[table]
    if min(dataset.Rows, dataset.Columns) < 1:
        raise UndecodableImage("the DICOM object declares no rows or no columns; send an image")
    if dataset.Rows * dataset.Columns > max_pixels:
        raise _too_many(max_pixels)
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= MAX_FRAMES:
        raise UndecodableImage(f"the DICOM object declares {count} frames; send 1 to {MAX_FRAMES}")
    if decoder is None:
        opened = video.Video(dataset.PixelData, dataset.Columns, dataset.Rows, count)
        return Study(dataset, tuple(partial(opened.frame, index) for index in range(count)))
    if not decoder.is_encapsulated:
        _check_length(dataset, count)
    places = _places(dataset.PixelData, count) if decoder.is_encapsulated else {}
    return Study(dataset, tuple(partial(_frame, dataset, decoder, index, count, places) for index in range(count)))


def _check_layout(dataset: Dataset, decoder: Decoder) -> None:
    """Check that an object tells how its samples are stored; to guess could show another picture."""
    if dataset.SamplesPerPixel == 3 and dataset.get("PixelRepresentation") is None:
        dataset.PixelRepresentation = 0  # colours have no sign
    needed = ["PixelRepresentation"]
    if dataset.SamplesPerPixel == 3 and not decoder.is_encapsulated:
        needed.append("PlanarConfiguration")
    if missing := [name for name in needed if dataset.get(name) is None]:
        reason = f"the DICOM object has no {', '.join(missing)}, so its pixels can be read in two ways"
        raise UndecodableImage(f"{reason}; add the attribute")


def _places(encapsulated: bytes, count: int) -> dict[str, Any]:
    """Return where frames of one fragment each are, for pydicom, which else looks through all of them for each frame.

    Its functions take that as ``extended_offsets``: places from the first item on, and lengths. It is empty if a table
    tells, if frames have several fragments, or if the data are damaged, so that each frame has an error of its own.
    """
    buffer = io.BytesIO(encapsulated)
    try:
        if parse_basic_offsets(buffer):
            return {}
        first = buffer.tell()
        _, items = parse_fragments(buffer)
        lengths = [struct.unpack_from("<L", encapsulated, item + 4)[0] for item in items]
    except (ValueError, struct.error):
        return {}
    return {"extended_offsets": ([item - first for item in items], lengths)} if len(items) == count else {}


def _check_length(dataset: Dataset, count: int) -> None:
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated * count
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        bits = bits * 2 // 3
    if len(dataset.PixelData) < bits // 8:
        raise UndecodableImage(
            f"the DICOM object has {len(dataset.PixelData)} of {bits // 8} bytes of pixels; send the complete object"
        )


def _frame(dataset: Dataset, decoder: Decoder, index: int, count: int, places: dict[str, Any]) -> RawPicture:
    """Decode the frame at ``index``, counted from 0; see ``_places``."""
    try:
        encoded = _codestream(dataset, decoder, index, count, places) if decoder.is_encapsulated else b""
        if decoder.UID in jpeg.SYNTAXES and dataset.SamplesPerPixel == 3:
            rgb = pixels.rgb(jpeg.rgb(encoded, str(dataset.PhotometricInterpretation)), "RGB", dataset)
        else:
            options = places | _layout(dataset, decoder, encoded)
            samples, about = decoder.as_array(dataset, index=index, raw=False, **options)
            rgb = pixels.rgb(samples, str(about["photometric_interpretation"]), dataset)
    except ServiceError:
        raise
    except Exception as error:  # each codec raises its own exceptions
        raise _damaged("frame", error) from None
    height, width, _ = rgb.shape
    return RawPicture(PixelFormat.RGB24, width, height, 3 * width, rgb.tobytes())


def _layout(dataset: Dataset, decoder: Decoder, encoded: bytes) -> dict[str, Any]:
    """Return what a codec makes of colours, where the object may still declare what they were before (PS3.5, 8.2.4)."""
    if not encoded or dataset.SamplesPerPixel != 3:
        return {}
    is_rgb = decoder.UID in JPEG2000TransferSyntaxes and jpeg_2000.has_transform(encoded)
    return {"planar_configuration": 0} | ({"photometric_interpretation": "RGB"} if is_rgb else {})


def _codestream(dataset: Dataset, decoder: Decoder, index: int, count: int, places: dict[str, Any]) -> bytes:
    """Return a compressed frame, after checking that it has the encoding and size that its object declares."""
    frame: bytes = get_frame(dataset.PixelData, index, number_of_frames=count, **places)
    if RLELossless == decoder.UID:  # its frames declare no size
        if len(frame) > MAX_RLE_BYTES:
            raise TooManyBytes(f"the frame has more than {MAX_RLE_BYTES} bytes of RLE data; send it as JPEG 2000")
        return frame
    declared = declared_size(frame, decoder.UID)
    if declared is None:
        raise UndecodableImage(f"the frame is not encoded as {decoder.UID.name}; encode it again")
    if declared != (dataset.Columns, dataset.Rows):
        raise UndecodableImage(
            "the frame differs in size from what the DICOM object declares; correct Rows and Columns"
        )
    return frame


def _damaged(part: str, error: Exception) -> UndecodableImage:
    return UndecodableImage(f"the DICOM {part} is damaged or incomplete ({type(error).__name__}); send it again")


def _too_many(max_pixels: int) -> TooManyPixels:
    return TooManyPixels(f"a frame declares more than {max_pixels} pixels (MAX_IMAGE_PIXELS); send smaller ones")
