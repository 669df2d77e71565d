"""``pranet stream``: streams video to a server, shows live statistics, and saves video, masks or a recording."""

import argparse
import asyncio
import contextlib
import math
import sys
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from pathlib import Path

import uvloop

from model import files, targets
from model.errors import SourceError, TargetError
from model.targets import Targets
from model.transforms import Pixels
from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.credentials import NO_ACCESS, Access
from pranet_client.errors import ClientError
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from pranet_client.sources import in_thread
from service.commands.access import access_of
from service.commands.recording import Recorder
from service.commands.stream_statistics import StreamStatistics
from service.commands.video.source import Source, open_source, paced
from service.commands.video.suffixes import OVERLAYS
from service.commands.video.writer import OverlayWriter
from service.errors import ServiceError
from service.frames import codec
from service.signals import EndingSignals

LINE_SECONDS = 1.0  # between two lines of statistics
LATE_SECONDS = 0.25  # from a reply, and those before it, to its drawing, after which a dropped frame is left out
ENDINGS = (KeyboardInterrupt, ClientError, SourceError)  # of a stream, after which its video is kept

Take = Callable[[Reply], None]


def stream_config(arguments: argparse.Namespace) -> pb.StreamConfig:
    """Return the stream's first message, its configuration, from the command line."""
    config = pb.StreamConfig(
        policy=f"POLICY_{arguments.policy.upper()}",
        deadline_ms=arguments.deadline_ms,
        roi=arguments.roi,
        smoothing_ms=arguments.smoothing_ms,
        hysteresis=arguments.hysteresis,
        reuse=arguments.reuse,
    )
    if arguments.threshold is not None:
        config.threshold = arguments.threshold
    return config


def run(arguments: argparse.Namespace) -> int:
    """Stream until the source ends; return 1 if a frame failed or was not answered in order, or a file is damaged.

    Raises:
        KeyboardInterrupt: the user or a signal, which is its argument, ended it; the video is kept.
        TargetError: an output is an input, exists already, or cannot be written.
        SourceError: the source cannot be read, or the output cannot be written.
        AccessError: the token cannot be read.
        RequestFailed: the server refuses the stream or cannot be reached.

    """
    _check(arguments)
    until = time.monotonic() + (arguments.seconds or math.inf)
    source = open_source(arguments.source, raw=arguments.raw, fps=arguments.fps, until=until)
    hold = arguments.policy == "latest" or bool(arguments.fps)
    frames = _Frames(paced(source, arguments.fps, arguments.seconds, hold=hold))
    with contextlib.ExitStack() as stack:
        takers = list(_takers(arguments, source, stack))
        config, access = stream_config(arguments), access_of(arguments)
        signals = EndingSignals()

        async def session() -> StreamStatistics:
            signals.end_this_task()
            try:
                return await follow(arguments.server, in_thread(iter(frames)), config, takers, access, until)
            finally:
                source.close()  # the thread that reads a camera would wait for its return

        try:
            statistics = uvloop.run(session())
        except asyncio.CancelledError:
            raise KeyboardInterrupt(*signals.first) from None
        finally:
            signals.outlive_the_loop()
        if frames.error and (source.live or not statistics.received):
            raise frames.error
    if frames.error:
        print(f"pranet: {frames.error}", file=sys.stderr)
    return 0 if statistics.in_order and not statistics.outcomes["failed"] and not frames.error else 1


class _Frames:
    """The frames of a source, which end at its error, so that those before it are answered as before any end.

    At the end it tells how many were damaged, which are sent too, since live video goes on.
    """

    def __init__(self, frames: Iterable[VideoFrame]) -> None:
        self.error: SourceError | None = None
        self._frames = frames

    def __iter__(self) -> Iterator[VideoFrame]:
        damaged = 0
        try:
            for shot in self._frames:
                damaged += shot.damaged
                yield shot
        except SourceError as error:
            self.error = error
        finally:
            if damaged:
                came, whose = ("1 frame", "its") if damaged == 1 else (f"{damaged} frames", "their")
                print(f"pranet: {came} came damaged: a part of {whose} pixels is made up", file=sys.stderr)


async def follow(
    server: str,
    frames: AsyncIterable[VideoFrame],
    config: pb.StreamConfig,
    takers: list[Take],
    access: Access = NO_ACCESS,
    until: float = math.inf,
) -> StreamStatistics:
    """Stream all frames and show live statistics; print the totals at the end, also when interrupted.

    Args:
        server: HOST:PORT of the gRPC interface.
        frames: in the order in which they were captured.
        config: the configuration of the stream.
        takers: functions that are called with every reply, in a thread.
        access: token and TLS files.
        until: a time of ``time.monotonic``, seconds; later, no new connection is tried.

    Raises:
        RequestFailed: the server refuses the stream or cannot be reached; see ``AsyncClient.stream``.

    """
    statistics = StreamStatistics()
    showing = asyncio.create_task(_show(statistics))
    try:
        async with AsyncClient(target=server, access=access) as client:
            async for reply in client.stream(frames, config, until):
                statistics.count(reply)
                for take in takers:
                    await asyncio.to_thread(take, reply)
    finally:
        showing.cancel()
        if statistics.received:
            print(("\r\x1b[K" if sys.stdout.isatty() else "") + statistics.summary(), flush=True)
    return statistics


async def _show(statistics: StreamStatistics) -> None:
    """Print live statistics: rewrite one line on a terminal, or append lines to a file or pipe."""
    while True:
        await asyncio.sleep(LINE_SECONDS)
        if not statistics.received:
            continue
        if sys.stdout.isatty():
            print("\r\x1b[K" + statistics.line(), end="", flush=True)
        else:
            print(statistics.line(), flush=True)


def _takers(arguments: argparse.Namespace, source: Source, stack: contextlib.ExitStack) -> Iterator[Take]:
    if arguments.out:
        stack.enter_context(targets.writing("--out", arguments.out))
        writer = OverlayWriter(
            arguments.out, source.fps, source.time_base, pixel_aspect=source.pixel_aspect, partial=ENDINGS
        )
        drawing = _Drawing(stack.enter_context(writer))
        stack.callback(drawing.tell)
        yield drawing.take
    if arguments.save_masks:
        stack.enter_context(targets.writing("--save-masks", arguments.save_masks))
        arguments.save_masks.mkdir(parents=True, exist_ok=True)
        yield lambda reply: _save_mask(reply, arguments.save_masks)
    if arguments.record:
        stack.enter_context(targets.writing("--record", arguments.record))
        yield stack.enter_context(Recorder(arguments.record, arguments)).take


def _check(arguments: argparse.Namespace) -> None:
    """Refuse to write over the source, over a video that is there, or into a folder that holds another session."""
    targets = Targets.of(arguments, "out", "save_masks", "record", also=[Path(arguments.source)])
    if arguments.out:
        if arguments.out.suffix.lower() not in OVERLAYS:
            raise TargetError(f"--out {arguments.out} is no video that can be written; end it with .mp4")
        targets.wants("--out", arguments.out)
    for flag, folder in (("--save-masks", arguments.save_masks), ("--record", arguments.record)):
        if folder:
            targets.empty(flag, folder)


class _Drawing:
    """Writes the frames of a stream, dropped ones too, at their presentation times or, of a camera, capture times.

    If it falls behind the stream, it leaves out dropped frames, otherwise the newest frames would wait for them.
    """

    def __init__(self, writer: OverlayWriter) -> None:
        self._writer = writer
        self._left_out = 0
        self._began: float | None = None  # capture time of the first frame, seconds
        self._came = -math.inf  # when this reply and all before it had arrived, time.monotonic(), seconds
        self._mask: Pixels | None = None  # the newest, which dropped frames show; none after a frame that failed

    def take(self, reply: Reply) -> None:
        """Append one frame, or leave it out if it cannot be decoded; the frame before it is then shown for longer."""
        frame = reply.frame
        self._began = frame.captured if self._began is None else self._began
        self._came = max(self._came, frame.captured + reply.age_seconds)
        seconds = frame.captured - self._began if frame.presented is None else frame.presented
        if reply.response is not None and reply.outcome == "answered":
            self._mask = codec.read_mask(reply.response.mask.png)
        elif reply.outcome == "failed":
            self._mask = None
        elif time.monotonic() - self._came > LATE_SECONDS:
            self._left_out += 1
            return
        with contextlib.suppress(ServiceError):
            self._writer.add(frame.picture, seconds, self._mask)

    def tell(self) -> None:
        """Say how many frames were left out because drawing, encoding or the disk was too slow."""
        if self._left_out:
            dropped = f"{self._left_out} dropped frame{'' if self._left_out == 1 else 's'}"
            advice = "send fewer frames with --fps, or use a faster processor or disk"
            print(f"pranet: --out lacks {dropped}, since the video was written too slowly; {advice}", file=sys.stderr)


def _save_mask(reply: Reply, folder: Path) -> None:
    if reply.response is not None and reply.outcome == "answered":
        files.write(folder / f"{reply.frame.frame_id:08d}.png", reply.response.mask.png, durable=False)
