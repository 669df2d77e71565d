"""What the files of ``pranet segment`` hold, and how they are read and written."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from model import files, targets
from model.errors import SourceError, TargetError
from model.targets import Targets
from model.transforms import Pixels
from service.answers import SegmentationBody
from service.commands.segment.inputs import DASH, shown
from service.commands.segment.jobs import frame
from service.commands.segment.rows import Row
from service.commands.video.suffixes import LINES
from service.commands.video.writer import MAX_PIXELS
from service.frames import codec, shapes
from service.frames.codec import Packed
from service.frames.frame import Options, Output, Segmentation


def suffix_of(options: Options) -> str:
    """Return the suffix of output files, ``.json`` or ``.png``."""
    return ".json" if options.output is Output.JSON else ".png"


def content(segmentation: Segmentation, options: Options, mask: Pixels, picture: Packed, name: str) -> bytes:
    """Return what a file of an answer holds: PNG, or JSON with ``name`` as its request id.

    Args:
        segmentation: the answer to ``asked(options)``.
        options: what the file shall hold.
        mask: see ``mask_of``.
        picture: returns what was segmented; an overlay is drawn on it.
        name: of the file.

    Raises:
        ServiceError: the picture cannot be decoded.

    """
    if options.output is Output.OVERLAY:
        pixels = np.asarray(codec.to_rgb(picture(), MAX_PIXELS)[0])
        return codec.encode_png(shapes.draw_overlay(pixels, mask))
    if options.output is Output.JSON:
        readable = os.fsencode(name).decode(errors="replace")  # a name may have bytes that are no text
        return SegmentationBody.of(segmentation, request_id=readable).model_dump_json(indent=2).encode()
    return segmentation.png


def asked(options: Options, masks: Path | None = None) -> Options:
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


def row_of(source: Path, number: int | None, segmentation: Segmentation, mask: Pixels) -> Row:
    """Return the row of a report about an answer; ``number`` is that of a frame, from 0."""
    presence, times = segmentation.presence, segmentation.times.milliseconds()
    return Row(
        shown(source),
        number,
        shapes.count(mask),
        round(float(np.count_nonzero(mask)) / mask.size, 6),
        None if presence is None else round(presence, 6),
        times.get("total"),
    )


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
    """Write a file whole or not at all, and make its folder; ``-`` is standard output.

    Raises:
        TargetError: it cannot be written; the message names ``flag``.

    """
    if path == DASH:
        try:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
        except OSError as error:
            raise TargetError(
                f"{flag} - cannot be written ({error.strerror}): what reads the output has ended, or its disk is full; "
                "give a file instead"
            ) from error
        return
    with targets.writing(flag, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, content)


class EarlierFrames:
    """The files in a folder that are named as frames when a run with ``--overwrite`` begins; of another run, none.

    Args:
        flag: names the folder in errors.
        folder: where the frames of the run go; None: nowhere.
        options: what files shall hold.
        targets: what may be written.

    """

    def __init__(self, flag: str, folder: Path | None, options: Options, targets: Targets) -> None:
        self._flag = flag
        self._folder = folder
        self._suffix = suffix_of(options)
        self._left = set(folder.glob("[0-9]" * 8 + self._suffix)) if folder and targets.overwrites else set()

    def replaced(self, number: int, *, failed: bool = False) -> None:
        """Note that the run had a frame, by its number from 0; the file of one that ``failed`` is deleted.

        Raises:
            TargetError: it cannot be deleted.

        """
        if self._folder is None or (path := frame(self._folder, number, self._suffix)) not in self._left:
            return
        self._left.remove(path)
        if failed:
            with targets.writing(self._flag, path):
                path.unlink(missing_ok=True)

    def rest(self) -> str | None:
        """Return a line for the user about those of which the run had no frame: they may be the user's own."""
        if not self._left:
            return None
        count = f"{len(self._left)} frame{'' if len(self._left) == 1 else 's'}"
        begin = f"also has {count} from {min(self._left).name} on, which this run did not make"
        return f"{begin}; delete them if they are of an earlier run"
