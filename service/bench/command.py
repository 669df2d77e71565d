"""The subcommands of ``pranet bench``."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from model import checkpoint, transforms
from model.predictor import Predictor
from model.training.command import add_data_arguments, selected
from service import codec
from service.access import access_of, add_access_options
from service.bench import fidelity, local, parts, report, servers
from service.bench.load import closed_loop, open_loop, watched
from service.bench.measure import Answer, Row, summarise
from service.core import load_predictor
from service.local import SUFFIXES, NothingToDo
from service.settings import add_flags, from_command_line

ENGINE_SETTINGS = ("weights", "device", "engine", "precision", "cache_dir", "log_level")
SAMPLES = Path(__file__).parent.parent / "samples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``engine``, ``pipeline``, ``fidelity``, ``http`` and ``grpc``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    engine = actions.add_parser("engine", help="the network alone, for each batch size")
    engine.add_argument(
        "--batch-sizes", type=_whole_numbers, default=[1, 2, 4, 8], metavar="N,N", help="default: 1,2,4,8"
    )
    pipeline = actions.add_parser("pipeline", help="from JPEG to PNG without a server: the ceiling")
    _add_images(pipeline)
    around = actions.add_parser("parts", help="ways to decode, resize, make and encode masks, side by side")
    _add_images(around)
    add_flags(around, ENGINE_SETTINGS)
    around.set_defaults(act=_parts)
    for alone, act in ((engine, _engine), (pipeline, _pipeline)):
        _add_common(alone)
        add_flags(alone, ENGINE_SETTINGS)
        alone.set_defaults(act=act)
    judging = actions.add_parser("fidelity", help="masks of every engine and precision against float32 PyTorch")
    add_data_arguments(judging)
    judging.add_argument("-o", "--out", type=Path, metavar="DIR", help="write JSON and the worst cases here")
    add_flags(judging, ("weights", "device", "cache_dir", "log_level"))
    judging.set_defaults(act=_fidelity)
    for name in ("http", "grpc"):
        over = actions.add_parser(name, help=f"a running server over {name}")
        over.add_argument("--url", default="http://127.0.0.1:8000", help="REST address; its /metrics report CPU time")
        over.add_argument("--address", default="127.0.0.1:8001", help="gRPC address")
        over.add_argument(
            "--concurrency", type=_whole_numbers, default=[1, 4, 16], metavar="N,N", help="default: 1,4,16"
        )
        over.add_argument("--rate", type=_numbers, metavar="N,N", help="open loop: requests a second, whatever happens")
        over.add_argument("--poisson", action="store_true", help="with --rate: arrivals at random")
        add_access_options(over)
        _add_images(over)
        _add_common(over)
        over.set_defaults(act=partial(_server, name))


def run(arguments: argparse.Namespace) -> int:
    """Carry out the chosen benchmark; the exit code is 1 if anything sent was not answered.

    Raises:
        UserError: there is no server, no picture, or a setting is wrong.

    """
    code: int = arguments.act(arguments)
    return code


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--images", type=Path, default=SAMPLES, metavar="DIR", help="pictures sent in rotation")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=8, help="length of each measurement (default: 8)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each measurement (default: 2)")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="write JSON and plots here")


def _engine(arguments: argparse.Namespace) -> int:
    predictor = load_predictor(from_command_line(arguments))
    predictor.warm_up(max(arguments.batch_sizes))
    rows = list(local.engine_rows(predictor, arguments.batch_sizes, arguments.warm_up, arguments.seconds))
    return _finish(arguments, "engine", rows, {}, model=_named(predictor))


def _pipeline(arguments: argparse.Namespace) -> int:
    images = _read(arguments.images)
    predictor = load_predictor(from_command_line(arguments))
    predictor.warm_up(1)
    rows = list(local.pipeline_rows(predictor, images, arguments.warm_up, arguments.seconds))
    return _finish(arguments, "pipeline", rows, {}, model=_named(predictor), images=str(arguments.images))


def _parts(arguments: argparse.Namespace) -> int:
    images = _read(arguments.images)
    predictor = load_predictor(from_command_line(arguments))
    frames = np.stack([transforms.to_input(codec.decode(image, parts.MAX_PIXELS)) for image in images])
    lines = parts.compare(images, list(predictor.predict(frames)))
    print(report.parts_table(list(lines)))
    return 0


def _fidelity(arguments: argparse.Namespace) -> int:
    loaded, files = from_command_line(arguments), selected(arguments)
    weights = checkpoint.load(loaded.weights_path)
    lines = list(fidelity.compare(weights, files, loaded.device, loaded.cache_path, arguments.out))
    print(report.fidelity_table(lines))
    if arguments.out:
        report.write_json(arguments.out / "fidelity.json", lines, weights=weights.sha256, pictures=len(files))
    return 0


def _server(name: str, arguments: argparse.Namespace) -> int:
    images = _read(arguments.images)
    access = access_of(arguments)
    if name == "http":
        server = servers.http(arguments.url, access)
    else:
        server = servers.rpc(arguments.url, arguments.address, access)
    rows, answers = asyncio.run(_levels(server, images, arguments))
    return _finish(arguments, name, rows, answers, images=str(arguments.images))


async def _levels(
    connect: AbstractAsyncContextManager[servers.Server], images: Sequence[bytes], arguments: argparse.Namespace
) -> tuple[list[Row], dict[str, list[Answer]]]:
    """Measure each level of load, one after another."""
    rows: list[Row] = []
    answers: dict[str, list[Answer]] = {}
    async with connect as server:
        for level in arguments.rate or arguments.concurrency:
            if arguments.rate:
                name = f"{level:g}/s" + (" Poisson" if arguments.poisson else "")
                load = partial(open_loop, server.send, images, level, poisson=arguments.poisson)
            else:
                name = f"{level:g} at once"
                load = partial(closed_loop, server.send, images, int(level))
            answers[name], window = await watched(
                load, server.cpu_seconds, warm_up=arguments.warm_up, seconds=arguments.seconds
            )
            rows.append(summarise(name, answers[name], window))
    return rows, answers


def _finish(
    arguments: argparse.Namespace, name: str, rows: Sequence[Row], answers: dict[str, list[Answer]], **facts: Any
) -> int:
    """Print the table, write what was asked for; the exit code says whether everything was answered."""
    print(report.table(rows))
    for row in rows:
        if row.failed:
            print(f"pranet: {row.load}: {row.failed} failed, first: {row.first_error}", file=sys.stderr)
    if arguments.out:
        report.write(arguments.out, name, rows, answers, **facts)
    return 1 if any(row.failed for row in rows) else 0


def _named(predictor: Predictor) -> str:
    model = predictor.model
    return f"{model.model_id} on {model.device}, {model.engine} {model.precision}"


def _read(folder: Path) -> list[bytes]:
    images = [file.read_bytes() for file in sorted(folder.glob("*")) if file.suffix.lower() in SUFFIXES]
    if not images:
        raise NothingToDo(f"no picture found in {folder}")
    return images


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _whole_numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]
