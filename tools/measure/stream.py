"""Measures live video on a running ``pranet serve``; run it on an idle machine, from the root of the repository.

python -m tools.measure.stream steady      one stream of 30 fps for a minute, against closed-loop POST /segment
python -m tools.measure.stream overload    eight streams of 30 fps for five minutes, then one minute in which none is
                                           dropped
python -m tools.measure.stream priority    one stream of 10 fps alone, beside continuous archives, and alone again
python -m tools.measure.stream flicker     smoothing and hysteresis on a flickering synthetic sequence; needs no server
"""

import argparse
import asyncio
import io
import itertools
import re
import time
import zipfile
from collections import defaultdict
from collections.abc import AsyncIterator

import httpx
import numpy as np
import uvloop

from model.transforms import SIZE
from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from service.commands.stream_statistics import StreamStatistics
from service.commands.video.demo import sweep
from service.frames.regions import Box
from service.streams.temporal import TemporalFilter

FPS = 30
STREAMS = 8
LIVE_FPS = 10
ARCHIVE_PICTURES = 500
ARCHIVE_ALONE_SECONDS = 10
SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'(\w+)="([^"]*)"')


async def live(seconds: float, pictures: list[bytes], fps: int = FPS) -> AsyncIterator[VideoFrame]:
    """Yield frames at the rate of a camera."""
    began = time.monotonic()
    for number, picture in zip(range(round(seconds * fps)), itertools.cycle(pictures), strict=False):
        await asyncio.sleep(max(0.0, began + number / fps - time.monotonic()))
        yield VideoFrame(number, picture, time.monotonic())


async def unpaced(count: int, pictures: list[bytes]) -> AsyncIterator[VideoFrame]:
    """Yield frames as fast as they are consumed."""
    for number, picture in zip(range(count), itertools.cycle(pictures), strict=False):
        yield VideoFrame(number, picture, time.monotonic())


async def stream(client: AsyncClient, frames: AsyncIterator[VideoFrame], policy: pb.Policy) -> StreamStatistics:
    """Stream to the end and return the statistics."""
    statistics = StreamStatistics()
    reply: Reply
    async for reply in client.stream(frames, pb.StreamConfig(policy=policy)):
        statistics.count(reply)
    return statistics


async def closed_loop(client: AsyncClient, pictures: list[bytes], seconds: float) -> float:
    """Return the pictures per second of one client that waits for each answer."""
    began, count = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        await client.render(pictures[count % len(pictures)])
        count += 1
    return count / (time.monotonic() - began)


async def scrape(url: str) -> dict[str, float]:
    """Return the sums of all samples of /metrics by name, and of frames by outcome."""
    async with httpx.AsyncClient(base_url=url, trust_env=False) as rest:
        text = (await rest.get("/metrics")).text
    sums: dict[str, float] = defaultdict(float)
    for line in text.splitlines():
        if match := SAMPLE.match(line):
            name, labels, value = match.groups()
            outcome = dict(LABEL.findall(labels or "")).get("outcome")
            sums[f"{name}:{outcome}" if outcome else name] += float(value)
    return sums


async def report_identity(url: str) -> None:
    """Print, from the server's metrics, whether all received frames are accounted for, and how many were decoded."""
    samples = await scrape(url)
    outcomes = {
        name.partition(":")[2]: int(value) for name, value in samples.items() if name.startswith("pranet_frames_total:")
    }
    received = int(samples["pranet_frames_received_total"])
    print(f"/metrics: received {received} = {sum(outcomes.values())} = {outcomes}")
    decodes, inferred = samples["pranet_decodes_total"], samples["pranet_batch_size_sum"]
    lost = outcomes["failed"] + outcomes["abandoned"]
    print(f"/metrics: decodes {decodes:.0f} <= inferred {inferred:.0f} + failed or abandoned {lost}")


async def steady(url: str, target: str) -> None:
    """Measure one live stream, between two closed loops on the same frames."""
    pictures = sweep()
    async with AsyncClient(url, target) as client:
        before = await closed_loop(client, pictures, 20)
        statistics = await stream(client, live(60, pictures), pb.POLICY_LATEST)
        after = await closed_loop(client, pictures, 20)
    closed = (before + after) / 2
    print(statistics.summary())
    print(f"closed loop {before:.2f} and {after:.2f} fps; stream / closed loop {statistics.fps / closed:.3f}")
    print(f"p99 / p50 of the age {statistics.age_ms(99) / statistics.age_ms(50):.2f}")
    await report_identity(url)


async def overload(url: str, target: str, seconds: float) -> None:
    """Measure eight live streams at once, and then eight that drop nothing."""
    pictures = sweep()
    async with AsyncClient(url, target) as client:
        before = await closed_loop(client, pictures, 20)
        resident = asyncio.create_task(_resident(url, seconds))
        all_statistics = await asyncio.gather(
            *(stream(client, live(seconds, pictures), pb.POLICY_LATEST) for _ in range(STREAMS))
        )
        service_ms = 2e3 / (before + await closed_loop(client, pictures, 20))
        answered = [statistics.outcomes["answered"] for statistics in all_statistics]
        worst = max(statistics.age_ms(99) for statistics in all_statistics)
        print(f"answers by stream {answered}: fewest / most {min(answered) / max(answered):.3f}")
        print(
            f"one frame {service_ms:.0f} ms; worst p99 age {worst:.0f} ms = "
            f"{worst / STREAMS / service_ms:.2f} x streams x one frame"
        )
        minute, end = await resident
        print(
            f"resident memory {minute / 2**20:.1f} MiB after a minute, {end / 2**20:.1f} at the end: {end / minute:.4f}"
        )
        print(f"order kept: {all(statistics.in_order for statistics in all_statistics)}")
        await report_identity(url)
        began = time.monotonic()
        every = await asyncio.gather(*(stream(client, unpaced(40, pictures), pb.POLICY_EVERY) for _ in range(STREAMS)))
        seconds = time.monotonic() - began
        outcomes = [dict(statistics.outcomes) for statistics in every]
        print(f"every: {outcomes}, slowed to {STREAMS * 40 / seconds:.2f} fps in all")
        await report_identity(url)


async def priority(url: str, target: str, seconds: float) -> None:
    """Measure a live stream alone and beside an archive."""
    pictures = sweep()
    async with AsyncClient(url, target) as client:

        async def streamed() -> StreamStatistics:
            return await stream(client, live(seconds, pictures, LIVE_FPS), pb.POLICY_LATEST)

        before = await streamed()
        answered: list[float] = []
        archiving = asyncio.create_task(_archives(url, pictures, answered))
        await asyncio.sleep(ARCHIVE_ALONE_SECONDS)
        rate = len(answered) / ARCHIVE_ALONE_SECONDS
        began = time.monotonic()
        beside = await streamed()
        shared = sum(moment > began for moment in answered)
        archiving.cancel()
        await asyncio.gather(archiving, return_exceptions=True)
        after = await streamed()
    for name, statistics in {"alone": before, "beside an archive": beside, "alone again": after}.items():
        print(f"{name}: {statistics.summary()}")
    alone, late = (before.age_ms(99) + after.age_ms(99)) / 2, beside.age_ms(99)
    print(f"p99 of the age: {alone:.0f} ms alone, {late:.0f} ms beside an archive: {late / alone:.2f} times")
    print(f"archive: {rate:.2f} pictures a second alone, {shared / seconds:.2f} beside the stream")


async def _archives(url: str, pictures: list[bytes], answered: list[float]) -> None:
    """Send one archive after another, and record when each picture is answered."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(ARCHIVE_PICTURES):
            archive.writestr(f"{number}.jpg", pictures[number % len(pictures)])
    headers = {"content-type": "application/zip"}
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=None) as rest:
        while True:
            async with rest.stream("POST", "/segment/batch", content=buffer.getvalue(), headers=headers) as answer:
                async for line in answer.aiter_lines():
                    assert '"status": 200' in line, line
                    answered.append(time.monotonic())


def flicker() -> None:
    """Print flicker, delay and time to first detection for a polyp that appears after a second, on against off."""
    print("| smoothing | hysteresis | flicker index | added delay, ms | first detection, ms |")
    print("|---|---|---|---|---|")
    for smoothing, hysteresis in itertools.product((0.0, 0.1, 0.2), (False, True)):
        rows = [flickering(smoothing, hysteresis, seed) for seed in range(10)]
        changes, delay, first = (float(np.mean(column)) for column in zip(*rows, strict=True))
        named = f"{smoothing * 1e3:.0f} ms | {'on' if hysteresis else 'off'}"
        print(f"| {named} | {changes:.3f} | {delay:.0f} | {first:.0f} |")


def flickering(smoothing: float, hysteresis: bool, seed: int) -> tuple[float, float, float]:
    """Return the share of frames at which presence changes, the added delay and the first detection, both in ms.

    A disc of logits 0.6 on a ground of -4 appears after a second of 30 fps and stays for five; the level of every
    frame wavers with a standard deviation of 1, which makes a bare threshold of 0.5 lose the disc in every fourth.
    """
    random = np.random.default_rng(seed)
    memory = TemporalFilter(smoothing=smoothing, hysteresis=hysteresis)
    y, x = np.mgrid[:SIZE, :SIZE]
    disc = (x - 180) ** 2 + (y - 170) ** 2 < 40**2
    present, delays = [], []
    for number in range(6 * FPS):
        pixels = random.integers(100, 140, (3, SIZE, SIZE), np.uint8)
        level = 0.6 + random.normal() if number >= FPS else -4.0
        logits = np.where(disc, level, -4.0).astype(np.float32)
        shown, status = memory.update(pixels, Box(0, 0, SIZE, SIZE), logits, number / FPS)
        present.append(bool((shown > 0).any()))
        delays.append(status.added_delay)
    after = present[FPS:]
    changes = float(np.mean(np.diff(after[after.index(True) :])))
    return changes, delays[-1] * 1e3, after.index(True) * 1e3 / FPS


async def _resident(url: str, seconds: float) -> tuple[float, float]:
    await asyncio.sleep(60)
    minute = (await scrape(url))["process_resident_memory_bytes"]
    await asyncio.sleep(seconds - 65)
    return minute, (await scrape(url))["process_resident_memory_bytes"]


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("steady", "overload", "priority", "flicker"))
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--server", default="127.0.0.1:8001")
    parser.add_argument("--seconds", type=float, default=300, help="of overload or priority (default: 300)")
    arguments = parser.parse_args()
    if arguments.what == "flicker":
        flicker()
    elif arguments.what == "priority":
        uvloop.run(priority(arguments.url, arguments.server, arguments.seconds))
    elif arguments.what == "steady":
        uvloop.run(steady(arguments.url, arguments.server))
    else:
        uvloop.run(overload(arguments.url, arguments.server, arguments.seconds))


if __name__ == "__main__":
    main()
