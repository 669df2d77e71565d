"""Writes a DICOM Segmentation with the masks of the frames of objects, which refers to those objects."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import highdicom as hd
import numpy as np
import numpy.typing as npt
from highdicom.color import CIELabColor
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, VLEndoscopicImageStorage

from model.engines.predictor import ModelRef
from service import __version__
from service.dicom import lossy, patient_attributes, references
from service.errors import InvalidRequest, TooManyPixels, UndecodableImage

MAX_PIXELS = 2**30  # of all frames together; each takes one byte while the object is built
ADVICE = "correct it, or make masks instead"  # whoever asks, over REST, C-STORE or the command line
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
POLYP = Code("68496003", "SCT", "Polyp of colon")
INTELLIGENCE = codes.DCM.ArtificialIntelligence
COLOUR = (88.7, -76.6, 61.3)  # L*a*b* of the outlines in an overlay
SERIES = 9000  # added to the number of the source's series, so that viewers list the Segmentation after it
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
SHARED = ("StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")  # by all sources of one Segmentation


class Kind(StrEnum):
    """How a Segmentation stores its pixels."""

    BINARY = "binary"  # one bit each, in a Segmentation; any program reads it
    LABELMAP = "labelmap"  # one byte each, in a Label Map Segmentation, which is new in DICOM 2024


@dataclass(frozen=True, slots=True)
class Written:
    """A Segmentation's file."""

    content: bytes
    frames: int  # segmented, with or without a polyp
    with_polyp: int
    left_out: tuple[str, ...]  # attributes of the patient and study whose values break the standard
    model_id: str  # of the weights


def check(sources: Sequence[Dataset]) -> None:
    """Check before segmenting that a Segmentation of the sources can be written.

    Raises:
        UndecodableImage: a source lacks an identifier that a Segmentation needs.
        InvalidRequest: the sources are of several series or sizes.
        TooManyPixels: their frames together have more than ``MAX_PIXELS``.

    """
    for source in sources:
        missing = [name for name in NEEDED if not UID(str(source.get(name, ""))).is_valid]
        if missing:
            raise UndecodableImage(
                f"the DICOM object has no valid {', '.join(missing)}, which a Segmentation needs; {ADVICE}"
            )
    for name in SHARED:
        if len({source.get(name) for source in sources}) > 1:
            part = "size" if name in ("Rows", "Columns") else "series"
            raise InvalidRequest(
                f"the objects differ in {name}, but a Segmentation covers one {part}; segment each {part} on its own"
            )
    first = sources[0]
    if sum(map(references.frames, sources)) * first.Rows * first.Columns > MAX_PIXELS:
        advice = "send fewer frames, or make masks instead"
        raise TooManyPixels(f"more than {MAX_PIXELS} pixels are too many for a Segmentation; {advice}")


def write(
    sources: Sequence[Dataset], masks: Sequence[bytes], model: ModelRef, kind: Kind, *, omit_empty: bool
) -> Written:
    """Return a DICOM Segmentation.

    Args:
        sources: the objects that were segmented, of one series.
        masks: one for each frame of each object in order: one bit per pixel, rows padded to whole bytes.
        model: the weights that made the masks.
        kind: how pixels are stored.
        omit_empty: leave out frames without a polyp, unless all are empty.

    Raises:
        UndecodableImage: the sources' attributes do not fit into a Segmentation.

    """
    first = sources[0]
    rows = [np.frombuffer(mask, np.uint8).reshape(first.Rows, -1) for mask in masks]
    pixels = np.stack([np.unpackbits(each, axis=1, count=first.Columns) for each in rows])  # (N, H, W), 0 or 1
    kept = [index for index in range(len(pixels)) if pixels[index].any()] if omit_empty else []
    kept = kept or list(range(len(pixels)))
    try:
        made = _of_one_frame(first, pixels[0], model, kind)
        left_out = patient_attributes.copy_patient_and_study(made, first)
        made.ContentCreatorName = None  # type 2, and it was no person
        lossy.state(made, sources)
        references.refer(made, references.of(sources), kept, labels=kind is Kind.LABELMAP)
        _store(made, pixels[kept], kind)
        buffer = io.BytesIO()
        made.save_as(buffer)
    except Exception as error:  # highdicom raises many types of exceptions for unusual attributes
        reason = f"no Segmentation can be made of this DICOM object ({type(error).__name__}); {ADVICE}"
        raise UndecodableImage(reason) from None
    return Written(
        buffer.getvalue(), len(masks), sum(mask.count(0) < len(mask) for mask in masks), left_out, model.model_id
    )


def _of_one_frame(source: Dataset, mask: npt.NDArray[np.uint8], model: ModelRef, kind: Kind) -> hd.seg.Segmentation:
    """Make a Segmentation of one still image, which only has what highdicom needs of the source.

    highdicom would check the rest, and refuses for example Japanese character sets that begin with an empty value.
    Endoscopic frames have no position in patient coordinates, and without one it supports single frames only.
    """
    still = Dataset()
    still.file_meta = source.file_meta
    still.SOPClassUID = VLEndoscopicImageStorage
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns"):
        setattr(still, name, source[name].value)
    for name in patient_attributes.MAY_BE_EMPTY:
        setattr(still, name, None)
    return hd.seg.Segmentation(
        source_images=[still],
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues[kind.name],
        segment_descriptions=[_description(model)],
        series_instance_uid=hd.UID(),
        series_number=SERIES + _number(source),
        series_description="PraNet polyp segmentation",
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="PraNet service",
        manufacturer_model_name=model.model_id,
        software_versions=__version__,
        device_serial_number="none",
        content_label="POLYP",
        omit_empty_frames=False,
    )


def _number(source: Dataset) -> int:
    try:
        return max(0, min(int(source.SeriesNumber), 10**6))
    except (AttributeError, TypeError, ValueError):
        return 0


def _store(made: Dataset, masks: npt.NDArray[np.uint8], kind: Kind) -> None:
    made.NumberOfFrames = len(masks)
    flat = masks.reshape(-1)
    packed = flat.tobytes() if kind is Kind.LABELMAP else np.packbits(flat, bitorder="little").tobytes()
    made.PixelData = packed + bytes(len(packed) % 2)


def _description(model: ModelRef) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Polyp",
        segmented_property_category=ABNORMAL,
        segmented_property_type=POLYP,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="PraNet", family=INTELLIGENCE, version=model.model_id
        ),
        display_color=CIELabColor(*COLOUR),
    )
