"""``pranet replay``: streams a recorded session again and compares the masks with the recorded ones."""

import argparse

import uvloop

from pranet_client.sources import in_thread
from service.commands import recording
from service.commands.access import access_of
from service.commands.recording import Comparison
from service.commands.stream import follow, stream_config


def run(arguments: argparse.Namespace) -> int:
    """Stream the recording again; return 1 if a mask differs or is missing, or if there was none to compare.

    Under ``every``, frames that were dropped are left out: they would change the masks of those behind them.

    Raises:
        RecordingError: the folder holds no recording.
        RequestFailed: the server refuses the stream or cannot be reached.

    """
    lines = recording.read(arguments.recording)
    if arguments.policy == "every":
        lines = [line for line in lines if line["outcome"] in ("answered", "failed")]
    frames = recording.frames(arguments.recording, lines, hold=arguments.policy == "latest")
    recording.complete(arguments, arguments.recording)
    comparison = Comparison(arguments.recording, lines)
    config, access = stream_config(arguments), access_of(arguments)
    uvloop.run(follow(arguments.server, in_thread(frames), config, [comparison.take], access))
    print(comparison.summary())
    recorded = sum(line["outcome"] == "answered" for line in lines)
    missing = comparison.failed or (arguments.policy == "every" and comparison.compared < recorded)
    differs = comparison.identical < comparison.compared
    return int(differs or missing or not comparison.compared)
