"""Writes a DICOM Segmentation with the masks of an object's frames, which refers to that object."""

import copy
import io
from collections.abc import Sequence

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import UID, VLEndoscopicImageStorage

from model.engines.predictor import ModelRef
from service import __version__
from service.errors import TooManyPixels, UndecodableImage

MAX_PIXELS = 2**30  # of all frames together; each takes one byte while the object is built
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
POLYP = Code("68496003", "SCT", "Polyp of colon")
INTELLIGENCE = codes.DCM.ArtificialIntelligence
# Type 2 attributes of the patient and study modules: must be present, but may be empty (PS3.3, C.7.1.1 and C.7.2.1).
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
NOT_OF_STILLS = ("SOPClassUID", "PixelData", "NumberOfFrames", "FrameOfReferenceUID")
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def check(source: Dataset, frames: int) -> None:
    """Check before segmenting that a Segmentation of the source can be written.

    Raises:
        UndecodableImage: the source lacks an identifier that a Segmentation needs.
        TooManyPixels: its frames together have more than ``MAX_PIXELS``.

    """
    missing = [name for name in NEEDED if not UID(str(source.get(name, ""))).is_valid]
    if missing:
        raise UndecodableImage(
            f"a Segmentation cannot refer to this DICOM object: it has no valid {', '.join(missing)}; request PNG"
        )
    if frames * source.Rows * source.Columns > MAX_PIXELS:
        raise TooManyPixels(f"a Segmentation may have at most {MAX_PIXELS} pixels; request PNG, or send fewer frames")


def write(source: Dataset, masks: Sequence[bytes], model: ModelRef, *, omit_empty: bool) -> bytes:
    """Return the bytes of a DICOM Segmentation.

    Args:
        source: the object that was segmented.
        masks: one for each frame in order: one bit per pixel, rows padded to whole bytes.
        model: the weights that made the masks.
        omit_empty: leave out frames without a polyp, unless all are empty.

    Raises:
        UndecodableImage: the source's attributes do not fit into a Segmentation.

    """
    rows = [np.frombuffer(mask, np.uint8).reshape(source.Rows, -1) for mask in masks]
    pixels = np.stack([np.unpackbits(each, axis=1, count=source.Columns) for each in rows])  # (N, H, W), 0 or 1
    kept = [index for index in range(len(pixels)) if pixels[index].any()] if omit_empty else []
    kept = kept or list(range(len(pixels)))
    try:
        made = _of_one_frame(source, pixels[0], model)
        _extend(made, source, pixels[kept], kept)
    except Exception as error:  # highdicom raises many types of exceptions for unusual attributes
        reason = f"no Segmentation can be made of this DICOM object ({type(error).__name__}); request PNG or JSON"
        raise UndecodableImage(reason) from None
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def _of_one_frame(source: Dataset, mask: npt.NDArray[np.uint8], model: ModelRef) -> hd.seg.Segmentation:
    """Make a Segmentation of one still image with the source's attributes; ``_extend`` adds the other frames.

    Endoscopic frames have no position in patient coordinates, and without one highdicom supports single frames only.
    """
    still = Dataset()
    still.update({element.tag: element for element in source if element.keyword not in NOT_OF_STILLS})
    still.SOPClassUID = VLEndoscopicImageStorage
    still.file_meta = source.file_meta
    for name in MAY_BE_EMPTY:
        if name not in still:
            setattr(still, name, None)
    made = hd.seg.Segmentation(
        source_images=[still],
        pixel_array=mask,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(model)],
        series_instance_uid=hd.UID(),
        series_number=1,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="PraNet service",
        manufacturer_model_name=model.model_id,
        software_versions=__version__,
        device_serial_number="none",
        content_label="POLYP",
        omit_empty_frames=False,
    )
    made.PatientOrientation = None  # type 2C: required without other orientation attributes (PS3.3, C.7.6.1)
    return made


def _extend(made: Dataset, source: Dataset, masks: npt.NDArray[np.uint8], numbers: Sequence[int]) -> None:
    """Replace the single frame by N frames.

    Args:
        made: the Segmentation, changed in place.
        source: the object that was segmented.
        masks: uint8 (N, H, W), 0 or 1.
        numbers: the N indices of the frames in the source, from 0.

    """
    for element in made.iterall():
        if element.keyword == "ReferencedSOPClassUID":
            element.value = source.SOPClassUID
    if int(source.get("NumberOfFrames") or 1) > 1:
        index = Dataset()
        index.DimensionOrganizationUID = made.DimensionOrganizationSequence[0].DimensionOrganizationUID
        index.DimensionIndexPointer = Tag("InStackPositionNumber")
        index.FunctionalGroupPointer = Tag("FrameContentSequence")
        made.DimensionIndexSequence.append(index)
        first = made.PerFrameFunctionalGroupsSequence[0]
        made.PerFrameFunctionalGroupsSequence = [_of_frame(first, number) for number in numbers]
    made.NumberOfFrames = len(masks)
    packed = np.packbits(masks.reshape(-1), bitorder="little").tobytes()
    made.PixelData = packed + bytes(len(packed) % 2)


def _of_frame(first: Dataset, number: int) -> Dataset:
    group = copy.deepcopy(first)
    group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber = number + 1
    content = group.FrameContentSequence[0]
    content.StackID, content.InStackPositionNumber = "1", number + 1
    content.DimensionIndexValues = [1, number + 1]
    return group


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
    )
