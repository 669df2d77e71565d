"""The command ``pranet``: parses the command line and runs the module of a subcommand."""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Collection, Sequence
from types import FrameType

from model.errors import UserError, how_to_install
from pranet_client.errors import ClientError
from service import __version__

# Each module has ``run(arguments) -> int``, and is imported only to run; ``_flags_of`` names the one with its flags.
COMMANDS = {
    "serve": ("service.app", "serve REST, gRPC and Prometheus metrics"),
    "health": ("service.commands.health", "check whether the server on this machine accepts new work"),
    "segment": ("service.commands.segment.command", "segment files and folders without a server"),
    "stream": ("service.commands.stream", "stream video to a server"),
    "label-studio": (
        "service.commands.label_studio",
        "pre-annotate the tasks of Label Studio with the masks of a server",
    ),
    "replay": ("service.commands.replay", "stream a recorded session again and compare the masks"),
    "receive": ("service.commands.receive", "receive DICOM objects and store their Segmentations in a PACS"),
    "tokens": ("service.commands.tokens", "create and revoke the bearer tokens of a server"),
    "weights": ("service.commands.weights", "inspect, convert, compare and blend weights files"),
    "bench": (
        "service.commands.bench.command",
        "measure engine, pipeline or server, and compare the masks of engines",
    ),
    "export": ("service.commands.export", "write ONNX, a Triton model repository, or the calibration that int8 needs"),
    "completion": ("service.commands.completion", "print the script with which your shell completes commands"),
    "train": ("model.training.command", "train weights from a recipe"),
    "evaluate": ("model.evaluation.command", "evaluate weights or maps against annotated pictures"),
}
EXTRAS = {"train": "train", "evaluate": "train", "bench": "bench", "export": "export", "receive": "dicom"}
FAILED = 1
USAGE_ERROR = 2
SIGNALLED = 128  # and the number of the signal, as shells count


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; errors that the user can fix are one line on standard error."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None and os.getpid() == 1:
        # The kernel drops a SIGTERM to the first process of a container unless that process handles it.
        signal.signal(signal.SIGTERM, _end)
    if argv is None and words[:1] == ["serve"]:
        # A SIGHUP would end the process until ``serve`` handles it, which is some imports later: it waits so long.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
    if not words:
        parser_of(()).print_help()
        return 0
    try:
        arguments = parser_of(words[:1]).parse_args(words)
        code: int = importlib.import_module(arguments.module).run(arguments)
    except (UserError, ClientError) as error:
        print(f"pranet: {error}", file=sys.stderr)
        return USAGE_ERROR
    except ModuleNotFoundError as error:
        advice = how_to_install(EXTRAS[words[0]]) if words[0] in EXTRAS else "run make extras in the checkout"
        print(f"pranet: {words[0]} needs {error.name}, which is not installed; {advice}", file=sys.stderr)
        return USAGE_ERROR
    except BrokenPipeError as error:
        if error.filename is not None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered would fail at the exit
        print("pranet: what reads standard output has ended, so this command ends, too", file=sys.stderr)
        return FAILED
    except OSError as error:
        if error.filename is None:
            raise
        print(f"pranet: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt as interrupt:  # of another signal than Ctrl-C if it has an argument
        return SIGNALLED + next(iter(interrupt.args), signal.SIGINT)
    return code


def _end(number: int, _: FrameType | None) -> None:
    os._exit(SIGNALLED + number)


def parser_of(flagged: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands; only those in ``flagged`` have their flags, which takes time to import."""
    parser = argparse.ArgumentParser(prog="pranet", description="Real-time polyp segmentation with PraNet.")
    parser.add_argument("--version", action="version", version=f"pranet {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name in flagged:
            declared = importlib.import_module(_flags_of(name))
            command.epilog = declared.EXAMPLES
            command.set_defaults(module=module)
            declared.add_arguments(command)
    return parser


def _flags_of(name: str) -> str:
    """Return the module with ``add_arguments(parser)`` and ``EXAMPLES``; it imports nothing slow, so help is fast."""
    in_model = {"train": "model.training.flags", "evaluate": "model.evaluation.flags"}
    return in_model.get(name, f"service.commands.flags.{name.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
