"""What the files of ``pranet segment`` hold, and how they are read and written."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from model import files
from model.transforms import Pixels
from service.answers import SegmentationBody
from service.commands.segment.jobs import LINES
from service.commands.video.pyav import SourceError
from service.frames import codec, shapes
from service.frames.frame import Options, Output, Segmentation


def suffix_of(options: Options) -> str:
    """Return the suffix of output files, ``.json`` or ``.png``."""
    return ".json" if options.output is Output.JSON else ".png"


def content(segmentation: Segmentation, name: str) -> bytes:
    """Return what a file of an answer holds: PNG, or JSON with ``name`` as its request id."""
    if segmentation.options.output is Output.JSON:
        return SegmentationBody.of(segmentation, request_id=name).model_dump_json(indent=2).encode()
    return segmentation.png


def asked(options: Options, masks: Path | None) -> Options:
    """Return what to ask of the network for each frame: what can be written, and also says where the polyps are."""
    if masks is not None and masks.suffix == LINES:
        return replace(options, output=Output.JSON)
    return replace(options, output=Output.MASK) if options.output is Output.OVERLAY else options


def mask_of(segmentation: Segmentation) -> Pixels:
    """Return the mask of an answer, uint8 (H, W), 255 for polyp."""
    options = segmentation.options
    if options.output is Output.JSON:
        return shapes.from_run_lengths(segmentation.run_lengths, segmentation.width, segmentation.height)
    levels = codec.read_mask(segmentation.png)
    if options.output is Output.MASK:
        return levels
    return np.where(levels > options.threshold * (2**options.depth - 1), np.uint8(255), np.uint8(0))


def read(path: Path, max_bytes: int, flag: str) -> bytes:
    """Return the content of a file.

    Raises:
        SourceError: it cannot be read, or has more than ``max_bytes``; the message names ``flag``, which sets them.

    """
    try:
        size = path.stat().st_size
        if size > max_bytes:
            raise SourceError(f"has {size} bytes, more than {max_bytes}; allow more with {flag}")
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error


def write(flag: str, path: Path, content: bytes) -> None:
    """Write a file whole or not at all, and make its folder.

    Raises:
        TargetError: it cannot be written; the message names ``flag``.

    """
    with files.writing(flag, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)
