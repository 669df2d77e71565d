"""What a request or a command asks of a DICOM Segmentation; needs none of the optional packages."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """The DICOM Segmentation to make.

    Args:
        kind: ``binary`` or ``labelmap``, see ``service.dicom.seg.Kind``.
        omit_empty: whether frames without a polyp are left out.

    """

    kind: str
    omit_empty: bool
