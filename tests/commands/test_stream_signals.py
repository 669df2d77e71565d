"""How signals end ``pranet stream``: its video is kept."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import monotonic

import pytest

from service.signals import ENDING, EndingSignals
from tests.support import videos
from tests.support.patching import Patches
from tests.support.pictures import ROOT
from tests.support.processes import PROGRAM
from tests.support.serving import serving

PIPE = asyncio.subprocess.PIPE
HANGING = """
import sys, threading
from service import signals
from service.commands import main, stream
from service.commands.video import writer

{} = lambda *_: print("hangs", flush=True) or threading.Event().wait()
signals.AGAIN_SECONDS = 0.0
sys.exit(main.main(sys.argv[1:]))
"""


def hanging(function: str) -> Sequence[str]:
    """Return the program with a function that never returns."""
    return (sys.executable, "-c", HANGING.format(function))


@contextlib.asynccontextmanager
async def streaming(
    *arguments: object, program: Sequence[str] = PROGRAM
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Stream the test source to a service; yield the process, and what it prints."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, *ENDING)}
    async with serving() as it, asyncio.timeout(60):
        words = ["stream", "demo:", "--server", f"127.0.0.1:{it.grpc_port}", *map(str, arguments)]
        try:  # else the program ignores what ``nohup pytest`` does
            process = await asyncio.create_subprocess_exec(*program, *words, cwd=ROOT, stdout=PIPE)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        assert process.stdout is not None
        try:
            yield process, process.stdout
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                process.kill()
            await process.wait()


async def told(printed: asyncio.StreamReader, word: bytes) -> None:
    while word not in (line := await printed.readline()):
        assert line, "the program has ended"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_that_ends_a_stream_leaves_its_video_and_sets_the_exit_code(
    number: signal.Signals, tmp_path: Path
) -> None:
    out = tmp_path / "out.mp4"
    async with streaming("--fps", 10, "--out", out) as (process, printed):
        await told(printed, b"answered")
        process.send_signal(number)
        assert await process.wait() == 128 + number
    assert len(videos.read(out)[0]) > 1


async def ended_by_more_signals(process: asyncio.subprocess.Process) -> bool:
    """Send SIGTERM until the process ends: the first one may not have been handled yet."""
    while process.returncode is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await process.wait()
    return process.returncode == 128 + signal.SIGTERM


async def test_a_second_signal_ends_a_stream_whose_disk_hangs(tmp_path: Path) -> None:
    masks = ("--save-masks", tmp_path / "masks")
    async with streaming(*masks, program=hanging("stream._save_mask")) as (process, printed):
        await told(printed, b"hangs")
        assert await ended_by_more_signals(process)


@pytest.mark.parametrize("by", ["its source", "Ctrl-C", "SIGTERM"])
async def test_a_second_signal_ends_a_stream_whose_video_is_completed_on_a_disk_that_hangs(
    by: str, tmp_path: Path
) -> None:
    video = ("--fps", 10, "--seconds", 0.5 if by == "its source" else 600, "--out", tmp_path / "out.mp4")
    async with streaming(*video, program=hanging("writer.VideoWriter._finish")) as (process, printed):
        await told(printed, b"answered")
        if by != "its source":
            process.send_signal(signal.SIGINT if by == "Ctrl-C" else signal.SIGTERM)
        await told(printed, b"hangs")
        assert await ended_by_more_signals(process)


def test_the_signal_that_timeout_sends_twice_leaves_time_for_the_video(patched: Patches) -> None:
    signals, ended, exits = EndingSignals(), [], []
    patched(os, "_exit", exits.append)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP):
        signals._receive(number, lambda: ended.append(True))
    assert (ended, exits, signals.first) == ([True], [], (signal.SIGTERM,))
    signals._again = monotonic() - 1
    signals._receive(signal.SIGHUP)
    assert not exits
    signals._receive(signal.SIGTERM)
    assert exits == [128 + signal.SIGTERM]
