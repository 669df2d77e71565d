"""The help of every command: it comes at once, with choices and an example."""

import subprocess
import sys
from typing import get_args

import pytest

from model.engines.factory import PRECISIONS
from model.evaluation import flags as evaluation_flags
from model.evaluation.protocols import Protocol
from service.commands import main
from service.commands.bench import command as bench
from service.commands.bench.overhead_loads import LOADS
from service.commands.flags import bench as bench_flags
from service.commands.flags import segment as segment_flags
from service.commands.flags import stream as stream_flags
from service.frames.frame import Output
from service.streams.window import Policy
from tests.support.pictures import ROOT

SLOW = ("torch", "cv2", "fastapi", "openvino", "numpy", "PIL", "grpc", "opentelemetry", "httpx", "pydantic")
HELP = """
import contextlib, io, sys
from service.commands.main import main

for command in sys.argv[1:]:
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
        main([command, "--help"])
    print(command, *(name for name in {slow} if name in sys.modules))
"""


def imported(*commands: str) -> list[str]:
    """Return the commands, each with the slow libraries that it and those before it imported for their help."""
    run = [sys.executable, "-c", HELP.format(slow=SLOW), *commands]
    return subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_no_help_imports_what_takes_long() -> None:
    assert imported(*main.COMMANDS) == [*main.COMMANDS]


@pytest.mark.parametrize("command", main.COMMANDS)
def test_every_help_has_an_example_that_can_be_parsed(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main([command, "--help"])
    told = capsys.readouterr().out
    assert "VALUE" not in told
    assert ("--log-level {debug,info,warning,error}" in told) == ("--log-level" in told)
    lines = [line.split("|")[-1].strip() for line in told.split("example")[-1].splitlines() if "pranet " in line]
    assert lines
    for line in lines:
        words = line[line.index("pranet ") :].split("&&")[0].split(">")[0].split()
        words = [word.strip("'") for word in words[1:]]
        assert words[0] == command
        main.parser_of(words[:1]).parse_args(words)


def test_what_flags_offer_is_what_there_is() -> None:
    assert get_args(Protocol) == evaluation_flags.PROTOCOLS
    assert bench_flags.PRECISIONS == PRECISIONS
    assert tuple(LOADS) == bench_flags.LOADS
    assert tuple(Policy) == stream_flags.POLICIES
    assert set(segment_flags.OUTPUTS) == {str(each) for each in Output} - {"maps"}
    assert set(bench.ACTIONS) == {"engine", "pipeline", "parts", "overhead", "fidelity", "http", "grpc", "streams"}
