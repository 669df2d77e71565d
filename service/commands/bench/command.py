"""The subcommands of ``pranet bench``."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model import targets, transforms
from model.engines.predictor import Predictor
from model.targets import Targets
from model.training.data import sources
from model.weights import checkpoint
from pranet_client.async_client import AsyncClient
from service.commands.access import access_of
from service.commands.bench import fidelity, local, overhead, parts, pictures, report, servers
from service.commands.bench.load import closed_loop, open_loop
from service.commands.bench.measure import Answer, Row
from service.commands.bench.session import Session
from service.commands.bench.streaming import largest, streams
from service.configuration import from_command_line
from service.frames import codec
from service.runtime import load_predictor

OUT = "--out"
MAX_STREAMS = 64  # upper limit of the search with --slo-ms


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen benchmark; the exit code is 1 if a request or frame failed.

    Raises:
        TargetError: an output is an input, exists already, or cannot be written.
        UserError: no server answers, there is no picture, or a setting is wrong.

    """
    return ACTIONS[arguments.act](arguments)


def _engine(arguments: argparse.Namespace) -> int:
    _check(arguments, report.names("engine"))
    predictor = load_predictor(from_command_line(arguments))
    predictor.warm_up(max(arguments.batch_sizes))
    rows = list(local.engine_rows(predictor, arguments.batch_sizes, arguments.warm_up, arguments.seconds))
    return _finish(arguments, "engine", rows, {}, model=_named(predictor))


def _pipeline(arguments: argparse.Namespace) -> int:
    _check(arguments, report.names("pipeline"))
    images = pictures.read(arguments.images, arguments.size)
    predictor = load_predictor(from_command_line(arguments))
    predictor.warm_up(1)
    rows = list(local.pipeline_rows(predictor, images, arguments.warm_up, arguments.seconds))
    return _finish(arguments, "pipeline", rows, {}, model=_named(predictor), images=str(arguments.images))


def _parts(arguments: argparse.Namespace) -> int:
    images = pictures.read(arguments.images, arguments.size)
    predictor = load_predictor(from_command_line(arguments))
    side = predictor.model.input_size
    frames = np.stack([transforms.to_input(codec.decode(image, parts.MAX_PIXELS), side) for image in images])
    lines = parts.compare(images, list(predictor.predict(frames)))
    print(report.parts_table(list(lines)))
    return 0


def _overhead(arguments: argparse.Namespace) -> int:
    _check(arguments, ["overhead.json"])
    images = pictures.read(arguments.images, arguments.size)
    measured, checkouts = overhead.run(arguments, images)
    print(report.aligned(overhead.table(measured, checkouts)))
    rows = [line.row for lines in measured.values() for line in lines]
    if arguments.out:
        with targets.writing(OUT, arguments.out):
            report.write_json(arguments.out / "overhead.json", rows, concurrency=arguments.concurrency)
    return 1 if any(row.failed for row in rows) else 0


def _fidelity(arguments: argparse.Namespace) -> int:
    loaded, pairs = from_command_line(arguments), sources.files_of(sources.selected(arguments))
    earlier = [file.name for file in arguments.out.glob("worst-*.png")] if arguments.out else []
    _check(arguments, ["fidelity.json", *earlier], [path for pair in pairs for path in (pair.image, pair.mask) if path])
    weights = checkpoint.load(loaded.weights_path)
    with targets.writing(OUT, arguments.out) if arguments.out else contextlib.nullcontext():
        lines = list(
            fidelity.compare(
                weights,
                pairs,
                arguments.precisions,
                max_pixels=loaded.max_image_pixels,
                device=loaded.device,
                cache_dir=loaded.cache_path,
                input_size=loaded.input_size,
                out=arguments.out,
            )
        )
        if arguments.out:
            report.write_json(arguments.out / "fidelity.json", lines, weights=weights.sha256, pictures=len(pairs))
    print(report.fidelity_table(lines))
    return 0


def _server(name: str, arguments: argparse.Namespace) -> int:
    _check(arguments, report.names(name))
    images = pictures.read(arguments.images, arguments.size)
    access = access_of(arguments)
    if name == "http":
        server = servers.http(arguments.url, access)
    else:
        server = servers.rpc(arguments.url, arguments.address, access)
    session = Session(server, arguments.warm_up, arguments.seconds)
    asyncio.run(_levels(session, images, arguments))
    return _finish(arguments, name, session.rows, session.answers, images=str(arguments.images))


async def _levels(session: Session, images: Sequence[bytes], arguments: argparse.Namespace) -> None:
    """Measure each level of load, one after another."""
    async with session as server:
        for level in arguments.rate or arguments.concurrency:
            if arguments.rate:
                name = f"{level:g}/s" + (" Poisson" if arguments.poisson else "")
                load = partial(open_loop, server.send, images, level, poisson=arguments.poisson)
            else:
                name = f"{level:g} at once"
                load = partial(closed_loop, server.send, images, int(level))
            await session.measure(name, load)


def _streams(arguments: argparse.Namespace) -> int:
    _check(arguments, report.names("streams"))
    images = pictures.read(arguments.images, arguments.size)
    server = servers.rpc(arguments.url, arguments.address, access_of(arguments))
    session = Session(server, arguments.warm_up, arguments.seconds)
    most = asyncio.run(_counts(session, images, arguments))
    if most is not None:
        print(f"{most} streams have a p99 age within {arguments.slo_ms:g} ms, with {arguments.answered:.0%} of masks")
    facts = {"images": str(arguments.images), "most_streams": most, "slo_ms": arguments.slo_ms}
    return _finish(arguments, "streams", session.rows, session.answers, **facts)


async def _counts(session: Session, images: Sequence[bytes], arguments: argparse.Namespace) -> int | None:
    """Measure each number of streams; with --slo-ms, search for the largest one and return it."""

    async def measure(count: int) -> Row:
        load = partial(streams, client, images, count, arguments.fps)
        return await session.measure(f"{count} at {arguments.fps:g}/s", load)

    async def holds(count: int) -> bool:
        row = await measure(count)
        answered = row.frames_per_second / (count * arguments.fps)
        return not row.failed and row.p99_ms <= arguments.slo_ms and answered >= arguments.answered

    async with session, AsyncClient(target=arguments.address, access=access_of(arguments)) as client:
        if arguments.slo_ms:
            return await largest(holds, MAX_STREAMS)
        for count in arguments.streams:
            await measure(count)
    return None


def _finish(
    arguments: argparse.Namespace, name: str, rows: Sequence[Row], answers: dict[str, list[Answer]], **facts: Any
) -> int:
    """Print the table and write files into --out; return exit code 1 if a request or frame failed."""
    print(report.table(rows))
    for row in rows:
        if row.failed:
            print(f"pranet: {row.load}: {row.failed} failed, first: {row.first_error}", file=sys.stderr)
    if arguments.out:
        with targets.writing(OUT, arguments.out):
            report.write(arguments.out, name, rows, answers, **facts)
    return 1 if any(row.failed for row in rows) else 0


def _check(arguments: argparse.Namespace, names: Sequence[str], also: Sequence[Path] = ()) -> None:
    """Refuse to write over an input, or over earlier results."""
    if arguments.out:
        weights = [from_command_line(arguments).weights_path] if "weights" in arguments else []
        Targets.of(arguments, "out", also=[*also, *weights]).folder(OUT, arguments.out, names)


def _named(predictor: Predictor) -> str:
    model = predictor.model
    return f"{model.model_id} on {model.device}, {model.engine} {model.precision}"


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "engine": _engine,
    "pipeline": _pipeline,
    "parts": _parts,
    "overhead": _overhead,
    "fidelity": _fidelity,
    "http": partial(_server, "http"),
    "grpc": partial(_server, "grpc"),
    "streams": _streams,
}
