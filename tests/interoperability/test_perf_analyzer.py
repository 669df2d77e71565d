"""The Open Inference Protocol under the load of Triton's own ``perf_analyzer``, a program made elsewhere."""

import asyncio
import base64
import csv
import ctypes
import json
import os
import subprocess
from pathlib import Path

import pytest

from service.oip.tensors import LENGTH
from tests.support.pictures import encoded, red_box
from tests.support.serving import Running, serving

ENVIRONMENT = Path(__file__).parent / "triton_client" / ".perf_analyzer"
PROGRAM = ENVIRONMENT / "bin" / "perf_analyzer"
# Windows of 20 requests and any three of them: it is not the speed that is tested. (On a busy machine a window of time
# may pass without an answer, which it takes for a failure.)
SHORT = (
    *("--measurement-mode", "count_windows", "--measurement-request-count", "20"),
    *("--stability-percentage", "999", "--max-trials", "3"),
)
CONCURRENCIES = [1, 4]


def _lacks_library() -> bool:
    try:
        ctypes.CDLL("libb64.so.0d")
    except OSError:
        return True
    return False


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM.exists(), reason="no perf_analyzer (make triton-client; x86_64 only)"),
    pytest.mark.skipif(_lacks_library(), reason="no libb64 (Debian: libb64-0d)"),
]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Write the input: in base64 it is the tensor's bytes, each element after its length."""
    image = encoded(red_box(64, 48, (8, 8, 40, 40)))
    content = {"b64": base64.b64encode(LENGTH.pack(len(image)) + image).decode()}
    path = tmp_path / "input.json"
    path.write_text(json.dumps({"data": [{"image": {"content": content, "shape": [1]}}]}))
    return path


async def analyzed(it: Running, protocol: str, picture: Path, *more: str) -> "subprocess.CompletedProcess[str]":
    """Run it to its end."""
    port = it.port if protocol == "http" else it.grpc_port
    command = [PROGRAM, "-m", "pranet", "-i", protocol, "-u", f"127.0.0.1:{port}", "--input-data", picture, *SHORT]
    (runtime,) = {str(found.parent) for found in ENVIRONMENT.rglob("libcudart.so.*")}
    return await asyncio.to_thread(
        subprocess.run,
        [*command, *more],
        env=os.environ | {"LD_LIBRARY_PATH": runtime},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("protocol", "more"),
    [
        ("http", ()),
        ("http", ("-b", "4")),
        ("grpc", ()),
        ("grpc", ("--async", "-b", "4")),
        ("grpc", ("--streaming",)),
        ("grpc", ("--request-parameter", "threshold:0.4:float", "--grpc-compression-algorithm", "gzip")),
    ],
)
async def test_perf_analyzer_measures_and_nothing_fails(
    protocol: str, more: tuple[str, ...], picture: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.csv"
    async with serving() as it:
        done = await analyzed(it, protocol, picture, "--concurrency-range", "1:4:3", "-f", str(report), *more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert it.metric("pranet_frames_total", {"outcome": "failed"}) == 0
    print(done.stdout)
    lines = {int(line["Concurrency"]): line for line in csv.DictReader(report.read_text().splitlines())}
    assert sorted(lines) == CONCURRENCIES
    for line in lines.values():
        assert float(line["Inferences/Second"]) > 0
        assert int(line["Server Compute Infer"]) > 0  # the service's own statistics were read


async def test_perf_analyzer_is_told_why_a_parameter_is_refused(picture: Path) -> None:
    async with serving() as it:
        done = await analyzed(it, "grpc", picture, "--request-parameter", "colour:red:string")
    assert "parameter 'colour' of a request is not supported" in done.stdout + done.stderr
