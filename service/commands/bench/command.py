"""The subcommands of ``pranet bench``."""

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from model import files, transforms
from model.engines.factory import PRECISIONS
from model.engines.predictor import Predictor
from model.files import Targets
from model.training.data import sources
from model.weights import checkpoint
from pranet_client.async_client import AsyncClient
from service import SAMPLES
from service.commands.access import access_of, add_access_options
from service.commands.bench import fidelity, local, overhead, parts, pictures, report, servers
from service.commands.bench.load import closed_loop, open_loop
from service.commands.bench.measure import Answer, Row
from service.commands.bench.session import Session
from service.commands.bench.streaming import largest, streams
from service.frames import codec
from service.runtime import load_predictor
from service.settings import add_flags, from_command_line

Number = TypeVar("Number", int, float)

ENGINE_SETTINGS = ("weights", "device", "engine", "precision", "input_size", "cache_dir", "log_level")
OUT = "--out"
MAX_STREAMS = 64  # upper limit of the search with --slo-ms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``engine``, ``pipeline``, ``parts``, ``overhead``, ``fidelity``, ``http``, ``grpc`` and ``streams``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    engine = actions.add_parser("engine", help="only the network, for each batch size")
    engine.add_argument(
        "--batch-sizes", type=_whole_numbers, default=[1, 2, 4, 8], metavar="N,N", help="default: 1,2,4,8"
    )
    pipeline = actions.add_parser("pipeline", help="from JPEG to PNG without a server: the upper limit for a server")
    _add_images(pipeline)
    around = actions.add_parser("parts", help="compare ways to decode, resize, threshold and encode")
    _add_images(around)
    add_flags(around, ENGINE_SETTINGS)
    around.set_defaults(act=_parts)
    for alone, act in ((engine, _engine), (pipeline, _pipeline)):
        _add_common(alone)
        add_flags(alone, ENGINE_SETTINGS)
        alone.set_defaults(act=act)
    cost = actions.add_parser("overhead", help="the whole service in front of an engine that costs nothing")
    overhead.add_arguments(cost)
    _add_images(cost)
    _add_common(cost)
    cost.set_defaults(act=_overhead)
    judging = actions.add_parser(
        "fidelity", help="compare the masks of every engine and precision with float32 PyTorch"
    )
    sources.add_arguments(judging)
    judging.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="precisions to compare (default: all)"
    )
    judging.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for JSON and the worst cases")
    files.add_overwrite(judging)
    add_flags(judging, ("weights", "device", "input_size", "cache_dir", "log_level"))
    judging.set_defaults(act=_fidelity)
    for name in ("http", "grpc"):
        over = actions.add_parser(name, help=f"a running server over {name}")
        _add_server(over)
        over.add_argument(
            "--concurrency", type=_whole_numbers, default=[1, 4, 16], metavar="N,N", help="default: 1,4,16"
        )
        over.add_argument("--rate", type=_numbers, metavar="N,N", help="open loop: requests per second")
        over.add_argument("--poisson", action="store_true", help="with --rate: random (Poisson) arrivals")
        _add_images(over)
        _add_common(over)
        over.set_defaults(act=partial(_server, name))
    live = actions.add_parser("streams", help="video streams to a running server over grpc; latencies are frame ages")
    _add_server(live)
    live.add_argument("--streams", type=_whole_numbers, default=[1], metavar="N,N", help="default: 1")
    live.add_argument("--fps", type=_number, default=30, help="frames per second of each stream (default: 30)")
    live.add_argument(
        "--slo-ms", type=_number, metavar="MS", help="find the largest number of streams with a p99 age within this"
    )
    live.add_argument(
        "--answered",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="with --slo-ms: least share of frames with a mask (default: 0.9)",
    )
    _add_images(live)
    _add_common(live)
    live.set_defaults(act=_streams)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen benchmark; the exit code is 1 if a request or frame failed.

    Raises:
        TargetError: an output is an input, exists already, or cannot be written.
        UserError: no server answers, there is no picture, or a setting is wrong.

    """
    code: int = arguments.act(arguments)
    return code


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="REST address; CPU time comes from its /metrics")
    parser.add_argument("--address", default="127.0.0.1:8001", help="gRPC address")
    add_access_options(parser)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, default=SAMPLES, metavar="DIR", help="folder of pictures, used in rotation"
    )
    parser.add_argument("--size", type=pictures.size, metavar="WxH", help="first scale and crop them to this size")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=_number, default=8, help="length of each measurement (default: 8)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each measurement (default: 2)")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for JSON and plots")
    files.add_overwrite(parser)


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
        with files.writing(OUT, arguments.out):
            report.write_json(arguments.out / "overhead.json", rows, concurrency=arguments.concurrency)
    return 1 if any(row.failed for row in rows) else 0


def _fidelity(arguments: argparse.Namespace) -> int:
    loaded, pairs = from_command_line(arguments), sources.files_of(sources.selected(arguments))
    earlier = [file.name for file in arguments.out.glob("worst-*.png")] if arguments.out else []
    _check(arguments, ["fidelity.json", *earlier], [path for pair in pairs for path in (pair.image, pair.mask) if path])
    weights = checkpoint.load(loaded.weights_path)
    with files.writing(OUT, arguments.out) if arguments.out else contextlib.nullcontext():
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
        with files.writing(OUT, arguments.out):
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


def _number(text: str) -> float:
    return _above_0(float(text))


def _numbers(text: str) -> list[float]:
    return [_above_0(float(part)) for part in text.split(",")]


def _whole_numbers(text: str) -> list[int]:
    return [_above_0(int(part)) for part in text.split(",")]


def _above_0(number: Number) -> Number:
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{number} should be greater than 0")
    return number


# argparse uses these names in its error messages.
_number.__name__, _numbers.__name__, _whole_numbers.__name__ = "number", "list of numbers", "list of whole numbers"
