"""Says which frames a Segmentation is of: its references, its dimensions, and the place of each frame.

Endoscopic pictures have no position in the patient. Viewers place a Segmentation by orientation and position
all the same, and some fail without one, so it has a frame of reference of its own in which the frames lie behind each
other, upright, one unit apart. PS3.3, A.51.5 allows these functional groups beside the references.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import highdicom as hd
from pydicom import Dataset
from pydicom.tag import Tag

UPRIGHT = [1, 0, 0, 0, 1, 0]  # rows run to the right, columns down


@dataclass(frozen=True, slots=True)
class Reference:
    """Reference from a Segmentation to one frame of a source object."""

    sop_class: str
    instance: str
    frame: int | None  # from 1; None for an object of a single frame


def frames(source: Dataset) -> int:
    """Return how many frames an object declares."""
    return int(source.get("NumberOfFrames") or 1)


def of(sources: Sequence[Dataset]) -> list[Reference]:
    """Return a reference to each frame of the sources, in order."""
    return [
        Reference(str(source.SOPClassUID), str(source.SOPInstanceUID), frame + 1 if frames(source) > 1 else None)
        for source in sources
        for frame in range(frames(source))
    ]


def refer(made: Dataset, references: Sequence[Reference], kept: Sequence[int], *, labels: bool) -> None:
    """Let a Segmentation of one frame refer to the sources of all its frames.

    Args:
        made: the Segmentation, changed in place.
        references: of all frames that were segmented.
        kept: the indices of those that the Segmentation holds.
        labels: it is a Label Map Segmentation, in which frames belong to no segment.

    """
    instances = dict.fromkeys((each.sop_class, each.instance) for each in references)
    made.ReferencedSeriesSequence[0].ReferencedInstanceSequence = [_instance(*each) for each in instances]
    made.SourceImageSequence = [_instance(*each) for each in instances]
    _index(made, labels=labels)
    shared, first = made.SharedFunctionalGroupsSequence[0], made.PerFrameFunctionalGroupsSequence[0]
    _place(made, shared)
    if not labels:  # allowed in either place; MONAI looks for it in each frame only
        first.SegmentIdentificationSequence = shared.pop("SegmentIdentificationSequence").value
    made.PerFrameFunctionalGroupsSequence = [
        _of_frame(first, references[index], index + 1, labels=labels) for index in kept
    ]


def _instance(sop_class: str, instance: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID, made.ReferencedSOPInstanceUID = sop_class, instance
    return made


def _index(made: Dataset, *, labels: bool) -> None:
    index = Dataset()
    index.DimensionOrganizationUID = made.DimensionOrganizationSequence[0].DimensionOrganizationUID
    index.DimensionIndexPointer = Tag("InStackPositionNumber")
    index.FunctionalGroupPointer = Tag("FrameContentSequence")
    index.DimensionDescriptionLabel = "Frame"
    made.DimensionIndexSequence = [index] if labels else [made.DimensionIndexSequence[0], index]


def _place(made: Dataset, shared: Dataset) -> None:
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = hd.UID(), None
    orientation, measures = Dataset(), Dataset()
    orientation.ImageOrientationPatient = UPRIGHT
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1, 1], 1, 1
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]


def _of_frame(first: Dataset, reference: Reference, number: int, *, labels: bool) -> Dataset:
    group = copy.deepcopy(first)
    source = group.DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = reference.sop_class, reference.instance
    if reference.frame is not None:
        source.ReferencedFrameNumber = reference.frame
    content = Dataset()
    content.StackID, content.InStackPositionNumber = "1", number
    content.DimensionIndexValues = [number] if labels else [1, number]
    position = Dataset()
    position.ImagePositionPatient = [0, 0, number - 1]
    group.FrameContentSequence, group.PlanePositionSequence = [content], [position]
    return group
