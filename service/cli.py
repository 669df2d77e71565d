"""The command ``pranet``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from model.checkpoint import CheckpointError
from model.predictor import DeviceError
from service import __version__, logs, settings, weights
from service.app import StartError, serve
from service.frame import Options, Output
from service.local import NothingToDo, segment_files
from service.settings import SettingsError

LOCAL_SETTINGS = (
    "weights", "device", "engine", "precision", "threshold", "max_batch_size", "max_image_bytes", "max_image_pixels",
    "log_level",
)  # fmt: skip
USAGE_ERROR = 2
EXPECTED = (SettingsError, CheckpointError, DeviceError, StartError, NothingToDo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Expected errors are one line on standard error."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except EXPECTED as error:
        print(f"pranet: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pranet", description="Real-time polyp segmentation with PraNet.")
    parser.add_argument("--version", action="version", version=f"pranet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serving = commands.add_parser("serve", help="serve REST, gRPC and Prometheus metrics")
    settings.add_flags(serving)
    serving.set_defaults(run=_serve)

    local = commands.add_parser("segment", help="segment files and folders without a server")
    local.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="picture, or folder of pictures")
    local.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="folder that is written to")
    local.add_argument("--output", choices=[each.value for each in Output], default="mask", help="what is written")
    local.add_argument("--depth", type=int, choices=(8, 16), default=8, help="bits of a probability")
    local.add_argument("--roi", default="full", help="full, auto (without the black surround), or x,y,w,h")
    settings.add_flags(local, LOCAL_SETTINGS)
    local.set_defaults(run=_segment)

    weights.add_commands(commands.add_parser("weights", help="inspect and convert weights files"))
    return parser


def _load_settings(arguments: argparse.Namespace) -> settings.Settings:
    loaded, warnings = settings.load(os.environ, settings.given_flags(arguments))
    logs.configure(loaded.log_level, loaded.log_format)
    for warning in warnings:
        settings.log.warning("%s", warning)
    return loaded


def _serve(arguments: argparse.Namespace) -> int:
    return serve(_load_settings(arguments))


def _segment(arguments: argparse.Namespace) -> int:
    loaded = _load_settings(arguments)
    options = Options(loaded.threshold, Output(arguments.output), arguments.depth, arguments.roi)
    failed = segment_files(arguments.paths, arguments.out, options, loaded)
    if failed:
        print(f"pranet: {failed} pictures could not be segmented", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
