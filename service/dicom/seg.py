"""Masks of an object's frames -> a DICOM Segmentation that refers to it."""

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

MAX_PIXELS = 2**30  # of all frames together, a byte each while the object is made
ABNORMAL = codes.SCT.MorphologicallyAbnormalStructure
POLYP = Code("68496003", "SCT", "Polyp of colon")
INTELLIGENCE = codes.DCM.ArtificialIntelligence
# Type 2 of the patient and study modules: present, if empty (PS3.3, C.7.1.1 and C.7.2.1).
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
NOT_OF_STILLS = ("SOPClassUID", "PixelData", "NumberOfFrames", "FrameOfReferenceUID")
NEEDED = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def check(source: Dataset, frames: int) -> None:
    """Refuse what no Segmentation can be made of, before any frame is segmented.

    Raises:
        UndecodableImage: the source lacks what a Segmentation refers to.
        TooManyPixels: its frames have more than ``MAX_PIXELS`` together.

    """
    missing = [name for name in NEEDED if not UID(str(source.get(name, ""))).is_valid]
    if missing:
        raise UndecodableImage(
            f"no Segmentation can refer to the DICOM object: it has no valid {', '.join(missing)}; ask for PNG"
        )
    if frames * source.Rows * source.Columns > MAX_PIXELS:
        raise TooManyPixels(f"a Segmentation of more than {MAX_PIXELS} pixels is not made; ask for PNG or send parts")


def write(source: Dataset, masks: Sequence[bytes], model: ModelRef, *, omit_empty: bool) -> bytes:
    """Return the file of a Segmentation.

    Args:
        source: the object that was segmented.
        masks: of each frame in order, one bit a pixel, rows padded to whole bytes.
        model: the weights that made them.
        omit_empty: leave out frames without a polyp, unless all are.

    Raises:
        UndecodableImage: the source's attributes do not make a Segmentation.

    """
    rows = [np.frombuffer(mask, np.uint8).reshape(source.Rows, -1) for mask in masks]
    pixels = np.stack([np.unpackbits(each, axis=1, count=source.Columns) for each in rows])  # (N, H, W), 0 or 1
    kept = [index for index in range(len(pixels)) if pixels[index].any()] if omit_empty else []
    kept = kept or list(range(len(pixels)))
    try:
        made = _of_one_frame(source, pixels[0], model)
        _extend(made, source, pixels[kept], kept)
    except Exception as error:  # highdicom raises nearly everything over attributes that do not fit
        reason = f"no Segmentation can be made of this DICOM object ({type(error).__name__}); ask for PNG or JSON"
        raise UndecodableImage(reason) from None
    buffer = io.BytesIO()
    made.save_as(buffer)
    return buffer.getvalue()


def _of_one_frame(source: Dataset, mask: npt.NDArray[np.uint8], model: ModelRef) -> hd.seg.Segmentation:
    """Make a Segmentation of a still image that has the source's attributes.

    An endoscope's frames have no place in a patient's coordinates, and highdicom makes only single frames without.
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
    made.PatientOrientation = None  # type 2C: present where nothing else tells (PS3.3, C.7.6.1)
    return made


def _extend(made: Dataset, source: Dataset, masks: npt.NDArray[np.uint8], numbers: Sequence[int]) -> None:
    """Put all frames, uint8 (N, H, W) of 0 and 1, in the place of the one; ``numbers`` count the source's from 0."""
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
