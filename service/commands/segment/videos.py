"""Segments a video file without a server, as a stream in which nothing is dropped and no frame has a deadline."""

import asyncio
import json
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from model import files, targets
from model.errors import SourceError
from model.targets import Targets
from model.transforms import Pixels
from pranet_client.pictures import Picture, VideoFrame
from pranet_client.sources import in_thread
from service.answers import describe
from service.commands.segment.jobs import OUT, frame
from service.commands.segment.outputs import content, mask_of, suffix_of, write
from service.commands.video.source import Source, paced
from service.commands.video.suffixes import LINES
from service.commands.video.writer import OverlayWriter
from service.errors import ServiceError, UndecodableImage
from service.frames.frame import Options, Segmentation
from service.processes.memory import Places
from service.runtime import Service
from service.streams.frame import StreamFrame
from service.streams.registry import Streams
from service.streams.stream import StreamOptions
from service.streams.window import Policy
from service.tasks import to_its_end

KEPT_AFTER = (SourceError,)  # what came before the damage of a video


@dataclass(slots=True)
class Findings:
    """Counts of the frames of a video, and the time of its first polyp."""

    frames: int = 0  # segmented
    failed: int = 0
    passed: int = 0  # they had their output already
    with_polyp: int = 0
    first_seconds: float | None = None  # presentation time of the first frame with a polyp

    def count(self, seconds: float, *, polyp: bool) -> None:
        """Count one segmented frame."""
        self.frames += 1
        self.with_polyp += polyp
        if polyp and self.first_seconds is None:
            self.first_seconds = seconds

    def summary(self) -> str:
        """Return the counts as one line for the user, which says nothing about frames that nobody looked at."""
        done = f"{self.frames} of {self.frames + self.failed + self.passed} frames"
        them = "them"
        if self.passed:
            done += f" ({self.passed} had their output already)"
            them = "those segmented now"
        if not self.frames:
            return done
        if self.first_seconds is None:
            return f"{done}, no polyp found in {them}"
        share = self.with_polyp / self.frames
        return f"{done}, a polyp in {share:.1%} of {them}, first at {self.first_seconds:.2f} s"


class Results:
    """Writes what a video gave: files in a folder, one line per frame, an overlay; use it as ``with``.

    Args:
        masks: a folder for one file per frame, or X.ndjson for one line per frame; None: neither.
        overlay: a video of all frames with outlines; None: none.
        source: the video.
        options: what files shall hold.
        flag: names ``masks`` in errors.
        targets: what may be written.

    Raises:
        TargetError: on entry, or from ``take``: something cannot be written; the message names its flag.

    """

    def __init__(
        self,
        masks: Path | None,
        overlay: Path | None,
        source: Source,
        options: Options,
        flag: str,
        targets: Targets,
    ) -> None:
        self._masks = masks
        self._overlay = overlay
        self._source = source
        self._options = options
        self._flag = flag
        self._targets = targets
        self._lines: TextIO | None = None
        self._video: OverlayWriter | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if self._masks is not None and self._masks.suffix == LINES:
                _prepare(stack, self._flag, self._masks)
                draft = stack.enter_context(files.replacing(self._masks, partial=KEPT_AFTER))
                self._lines = stack.enter_context(draft.open("w"))
            if self._overlay is not None:
                _prepare(stack, OUT, self._overlay)
                video = OverlayWriter(
                    self._overlay,
                    self._source.fps,
                    self._source.time_base,
                    pixel_aspect=self._source.pixel_aspect,
                    partial=KEPT_AFTER,
                )
                self._video = stack.enter_context(video)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self._open.__exit__(*exc_info)

    def take(self, shot: VideoFrame, outcome: Segmentation | ServiceError, mask: Pixels | None) -> None:
        """Write one frame; ``mask`` is uint8 (H, W), None if it failed."""
        if self._lines is not None:
            print(_line(shot, outcome), file=self._lines)
        elif self._masks is not None and isinstance(outcome, Segmentation):
            path = frame(self._masks, shot.frame_id, suffix_of(self._options))
            assert mask is not None
            if self._targets.wants(self._flag, path):
                write(self._flag, path, content(outcome, self._options, mask, lambda: shot.picture, path.name))
        if self._video is not None:
            self._video.add(shot.picture, shot.presented or 0.0, mask)


def _prepare(stack: ExitStack, flag: str, path: Path) -> None:
    stack.enter_context(targets.writing(flag, path))
    path.parent.mkdir(parents=True, exist_ok=True)


async def segment_video(
    service: Service,
    source: Source,
    results: Results,
    options: Options,
    done: Callable[[int, Segmentation | ServiceError, Pixels | None], None],
    findings: Findings,
    wants: Callable[[int], bool] = lambda number: True,
) -> None:
    """Segment every frame of a video in order.

    Args:
        service: the data path.
        source: the video, with raw pictures.
        results: open.
        options: see ``asked``.
        done: called with the number of each frame, its answer or error, and its mask.
        findings: counts the frames.
        wants: says by its number whether a frame is to be segmented; others are skipped.

    Raises:
        SourceError: the video is damaged; the frames before were segmented.

    """
    sent = deque[VideoFrame]()
    broken: SourceError | None = None

    async def frames() -> AsyncIterator[StreamFrame]:
        nonlocal broken
        try:
            async for shot in in_thread(paced(source, None, None, hold=False)):
                if not await asyncio.to_thread(wants, shot.frame_id):
                    findings.passed += 1
                    continue
                sent.append(shot)
                moment = round((shot.presented or 0.0) * 1e6)
                picture = _refused if shot.damaged else shot.picture
                yield StreamFrame(frame_id=shot.frame_id, source=picture, presentation_time_us=moment)
        except SourceError as error:  # ends the video, after the frames before it were answered
            broken = error

    async def take(answer: StreamFrame) -> None:
        await to_its_end(record(sent.popleft(), answer.outcome))

    async def record(shot: VideoFrame, outcome: object) -> None:
        assert isinstance(outcome, Segmentation | ServiceError)  # ``EVERY`` without a deadline drops nothing
        mask = await asyncio.to_thread(mask_of, outcome) if isinstance(outcome, Segmentation) else None
        if mask is None:
            findings.failed += 1
        else:
            findings.count(shot.presented or 0.0, polyp=bool(mask.any()))
        await asyncio.to_thread(results.take, shot, outcome, mask)
        done(shot.frame_id, outcome, mask)

    with _streams(service).open(StreamOptions(Policy.EVERY, frame=options)) as stream:
        await stream.run(frames(), take)
    if broken is not None:
        raise broken


def _streams(service: Service) -> Streams:
    """Return streams without the limits of a server, on time and on their number, which mean nothing here."""
    return Streams(
        service.segmenter,
        service.metrics,
        places=Places(1),
        window=service.streams.window,
        frame_timeout=math.inf,
        unread_timeout=None,
    )


def _refused() -> Picture:
    """Stand for a frame that is damaged: a mask of pixels that a decoder made up would pass for a finding."""
    raise UndecodableImage("this frame is damaged: a part of its pixels is lost; copy the video again")


def _line(shot: VideoFrame, outcome: Segmentation | ServiceError) -> str:
    """Return a frame's line of X.ndjson: its number and time, and the JSON of its answer or its error."""
    head = {"frame_id": shot.frame_id, "seconds": round(shot.presented or 0.0, 6)}
    if isinstance(outcome, ServiceError):
        return json.dumps(head | {"outcome": "failed", "cause": outcome.slug, "detail": outcome.detail})
    return json.dumps(head | {"outcome": "answered", "quality": outcome.quality} | describe(outcome))
