"""Flags of ``pranet bench``."""

import argparse
import re
from pathlib import Path

from model import targets
from model.training.flags import add_sources
from service import SAMPLES
from service.commands.flags.access import add_access_options
from service.commands.flags.settings import add_settings
from service.commands.values import number, numbers, whole_numbers

ENGINE_SETTINGS = ("weights", "device", "engine", "precision", "input_size", "cache_dir", "log_level")
PRECISIONS = ("fp32", "bf16", "fp16", "int8")  # of ``model.engines.factory``
LOADS = ("rest", "grpc", "stream", "websocket")  # of ``bench.overhead_loads``
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
EXAMPLES = """\
examples:
  pranet bench engine --precision int8 --out results
  pranet bench http --concurrency 1,4,16
  pranet bench streams --fps 30 --slo-ms 120
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``engine``, ``pipeline``, ``parts``, ``overhead``, ``fidelity``, ``http``, ``grpc`` and ``streams``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        added = actions.add_parser(name, help=text)
        added.set_defaults(act=name)
        return added

    _add_engine(action("engine", "only the network, for each batch size"))
    _add_pipeline(action("pipeline", "from JPEG to PNG without a server: the upper limit for a server"))
    _add_parts(action("parts", "compare ways to decode, resize, threshold and encode"))
    _add_overhead(action("overhead", "the whole service in front of an engine that costs nothing"))
    _add_fidelity(action("fidelity", "compare the masks of every engine and precision with float32 PyTorch"))
    for name in ("http", "grpc"):
        _add_calls(action(name, f"a running server over {name}"))
    _add_streams(action("streams", "video streams to a running server over grpc; latencies are frame ages"))


def _add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch-sizes", type=whole_numbers, default=[1, 2, 4, 8], metavar="N,N", help="default: 1,2,4,8"
    )
    _add_common(parser)
    add_settings(parser, ENGINE_SETTINGS)


def _add_pipeline(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
    _add_common(parser)
    add_settings(parser, ENGINE_SETTINGS)


def _add_parts(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
    add_settings(parser, ENGINE_SETTINGS)


def _add_fidelity(parser: argparse.ArgumentParser) -> None:
    add_sources(parser)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="precisions to compare (default: all)"
    )
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for JSON and the worst cases")
    targets.add_overwrite(parser)
    add_settings(parser, ("weights", "device", "input_size", "cache_dir", "log_level"))


def _add_calls(parser: argparse.ArgumentParser) -> None:
    _add_server(parser)
    parser.add_argument("--concurrency", type=whole_numbers, default=[1, 4, 16], metavar="N,N", help="default: 1,4,16")
    parser.add_argument("--rate", type=numbers, metavar="N,N", help="open loop: requests per second")
    parser.add_argument("--poisson", action="store_true", help="with --rate: random (Poisson) arrivals")
    _add_images(parser)
    _add_common(parser)


def _add_streams(parser: argparse.ArgumentParser) -> None:
    _add_server(parser)
    parser.add_argument("--streams", type=whole_numbers, default=[1], metavar="N,N", help="default: 1")
    parser.add_argument("--fps", type=number, default=30, help="frames per second of each stream (default: 30)")
    parser.add_argument(
        "--slo-ms", type=number, metavar="MS", help="find the largest number of streams with a p99 age within this"
    )
    parser.add_argument(
        "--answered",
        type=float,
        default=0.9,
        metavar="SHARE",
        help="with --slo-ms: least share of frames with a mask (default: 0.9)",
    )
    _add_images(parser)
    _add_common(parser)


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="REST address; CPU time comes from its /metrics")
    parser.add_argument("--address", default="127.0.0.1:8001", help="gRPC address")
    add_access_options(parser)


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--images", type=Path, default=SAMPLES, metavar="DIR", help="folder of pictures, used in rotation"
    )
    parser.add_argument("--size", type=size, metavar="WxH", help="first scale and crop them to this size")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=number, default=8, help="length of each measurement (default: 8)")
    parser.add_argument("--warm-up", type=float, default=2, help="seconds before each measurement (default: 2)")
    parser.add_argument("-o", "--out", type=Path, metavar="DIR", help="folder for JSON and plots")
    targets.add_overwrite(parser)


def _add_overhead(parser: argparse.ArgumentParser) -> None:
    """Declare what ``bench.overhead`` reads."""
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="alternate with another checkout")
    parser.add_argument("--over", nargs="+", choices=LOADS, default=LOADS, help="transports (default: all)")
    parser.add_argument(
        "--cores", nargs="+", type=int, default=[1], metavar="N", help="cores of the server (default: 1)"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes of the server (default: 1)")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="frames in flight (default: 16)")
    parser.add_argument(
        "--rate", type=number, metavar="N", help="open loop over rest and grpc: frames per second, at random (Poisson)"
    )
    parser.add_argument(
        "--connections", type=int, default=1, metavar="N", help="of grpc, each to one process by chance (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="measurements of each (default: 2)")
    _add_images(parser)
    _add_common(parser)


def size(text: str) -> tuple[int, int]:
    """Parse ``WIDTHxHEIGHT``.

    Raises:
        ArgumentTypeError: the text has another form.

    """
    found = SIZE.fullmatch(text)
    if not found or not int(found[1]) or not int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} should be width and height in pixels, such as 1280x1024")
    return int(found[1]), int(found[2])
