"""Segments a video file without a server, as a stream in which nothing is dropped and no frame has a deadline."""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TextIO

import numpy as np

from model.transforms import Pixels
from pranet_client.connection import VideoFrame
from pranet_client.sources import in_thread
from service.answers import SegmentationBody, describe
from service.commands.video.pyav import SourceError
from service.commands.video.source import Source, paced
from service.commands.video.writer import MAX_PIXELS, OverlayWriter
from service.errors import ServiceError
from service.frames import codec, shapes
from service.frames.frame import Options, Output, Segmentation
from service.runtime import Service
from service.streams.frame import StreamFrame
from service.streams.registry import Streams
from service.streams.stream import StreamOptions
from service.streams.window import Policy

OVERLAYS = frozenset({".mp4", ".m4v", ".mov", ".mkv"})  # what ``--out`` may be for one video
LINES = ".ndjson"

Write = Callable[[Path, bytes], None]


@dataclass(slots=True)
class Findings:
    """What was seen in a video."""

    frames: int = 0  # segmented
    failed: int = 0
    with_polyp: int = 0
    first_seconds: float | None = None  # presentation time of the first frame with a polyp

    def count(self, seconds: float, *, polyp: bool) -> None:
        """Count one segmented frame."""
        self.frames += 1
        self.with_polyp += polyp
        if polyp and self.first_seconds is None:
            self.first_seconds = seconds

    def summary(self) -> str:
        """Return the figures on one line."""
        total = self.frames + self.failed
        if self.first_seconds is None:
            return f"{self.frames} of {total} frames, no polyp found"
        share = self.with_polyp / self.frames
        return f"{self.frames} of {total} frames, a polyp in {share:.1%} of them, first at {self.first_seconds:.2f} s"


class Results:
    """Writes what a video gave: files in a folder, one line per frame, an overlay; use it as ``with``.

    Args:
        masks: a folder for one file per frame, or X.ndjson for one line per frame; None: neither.
        overlay: a video of all frames with outlines; None: none.
        source: the video.
        options: what files shall hold.
        write: writes the content of a file.

    """

    def __init__(
        self, masks: Path | None, overlay: Path | None, source: Source, options: Options, write: Write
    ) -> None:
        self._masks = masks
        self._overlay = overlay
        self._source = source
        self._output = options.output
        self._suffix = suffix_of(options)
        self._write = write
        self._lines: TextIO | None = None
        self._video: OverlayWriter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._masks is not None and self._masks.suffix == LINES:
                self._masks.parent.mkdir(parents=True, exist_ok=True)
                self._lines = stack.enter_context(self._masks.open("w"))
            if self._overlay is not None:
                self._overlay.parent.mkdir(parents=True, exist_ok=True)
                self._video = stack.enter_context(
                    OverlayWriter(self._overlay, self._source.fps, self._source.time_base)
                )
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    def take(self, frame: VideoFrame, outcome: Segmentation | ServiceError, mask: Pixels | None) -> None:
        """Write one frame; ``mask`` is uint8 (H, W), None if it failed."""
        if self._lines is not None:
            print(_line(frame, outcome), file=self._lines)
        elif self._masks is not None and isinstance(outcome, Segmentation):
            name = f"{frame.frame_id:08d}{self._suffix}"
            self._write(self._masks / name, self._content(frame, outcome, mask, name))
        if self._video is not None:
            self._video.add(frame.picture, frame.presented or 0.0, mask)

    def _content(self, frame: VideoFrame, outcome: Segmentation, mask: Pixels | None, name: str) -> bytes:
        if self._output is Output.OVERLAY and mask is not None:
            picture = np.asarray(codec.to_rgb(frame.picture, MAX_PIXELS)[0])
            return codec.encode_png(shapes.draw_overlay(picture, mask))
        return content(outcome, name)


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


async def segment_video(
    service: Service,
    source: Source,
    results: Results,
    options: Options,
    done: Callable[[int, ServiceError | None], None],
) -> Findings:
    """Segment every frame of a video in order.

    Args:
        service: the data path.
        source: the video, with raw pictures.
        results: open.
        options: see ``asked``.
        done: called with the number of each frame, and its error if it failed.

    Raises:
        SourceError: the video is damaged; the frames before were segmented.

    """
    findings, sent = Findings(), deque[VideoFrame]()
    broken: SourceError | None = None

    async def frames() -> AsyncIterator[StreamFrame]:
        nonlocal broken
        try:
            async for frame in in_thread(paced(source, None, None, hold=False)):
                sent.append(frame)
                moment = round((frame.presented or 0.0) * 1e6)
                yield StreamFrame(frame_id=frame.frame_id, source=frame.picture, presentation_time_us=moment)
        except SourceError as error:  # ends the video, after the frames before it were answered
            broken = error

    async def take(answer: StreamFrame) -> None:
        frame, outcome = sent.popleft(), answer.outcome
        assert isinstance(outcome, Segmentation | ServiceError)  # ``EVERY`` without a deadline drops nothing
        mask = await asyncio.to_thread(_mask, outcome) if isinstance(outcome, Segmentation) else None
        if mask is None:
            findings.failed += 1
        else:
            findings.count(frame.presented or 0.0, polyp=bool(mask.any()))
        await asyncio.to_thread(results.take, frame, outcome, mask)
        done(frame.frame_id, outcome if isinstance(outcome, ServiceError) else None)

    # Limits of a server, on time and on the number of streams, mean nothing here.
    streams = Streams(
        service.segmenter, service.metrics, max_streams=1, window=service.streams.window, frame_timeout=math.inf
    )
    with streams.open(StreamOptions(Policy.EVERY, frame=options)) as stream:
        await stream.run(frames(), take)
    if broken is not None:
        raise broken
    return findings


def _mask(segmentation: Segmentation) -> Pixels:
    """Return the mask of an answer, uint8 (H, W), 255 for polyp."""
    options = segmentation.options
    if options.output is Output.JSON:
        return shapes.from_run_lengths(segmentation.run_lengths, segmentation.width, segmentation.height)
    levels = codec.read_mask(segmentation.png)
    if options.output is Output.MASK:
        return levels
    return np.where(levels > options.threshold * (2**options.depth - 1), np.uint8(255), np.uint8(0))


def _line(frame: VideoFrame, outcome: Segmentation | ServiceError) -> str:
    """Return a frame's line of X.ndjson: its number and time, and the JSON of its answer or its error."""
    head = {"frame_id": frame.frame_id, "seconds": round(frame.presented or 0.0, 6)}
    if isinstance(outcome, ServiceError):
        return json.dumps(head | {"outcome": "failed", "cause": outcome.slug, "detail": outcome.detail})
    return json.dumps(head | {"outcome": "answered"} | describe(outcome))
