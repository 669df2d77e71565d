"""Counts how much of the source one warm call visits: files, functions, and moves between files.

    python -m tools.trace_call                    prints a row for each kind of call
    python -m tools.trace_call --show segment     prints the path of one, function by function

The whole service runs in this process in front of a fake predictor; ``sys.setprofile`` records every call of a function
of this project in every thread, from the request's first byte to its answer's last. A move is a call of a
function in another file than the function called before it.
"""

import argparse
import asyncio
import io
import sys
import threading
import zipfile
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

from service import readiness
from tests.support.patching import patching
from tests.support.serving import Running, serving

ROOT = Path(__file__).resolve().parent.parent
SOURCES = (f"{ROOT}/service/", f"{ROOT}/model/", f"{ROOT}/client/")
GENERATED = (f"{ROOT}/service/pb/", f"{ROOT}/client/pranet_client/pb/")
SAMPLE = ROOT / "service" / "samples" / "polyp-1.jpg"
WARM_CALLS = 3  # before the one that is traced
# They are calls before Python 3.12, and parts of their function since.
COMPREHENSIONS = ("<listcomp>", "<dictcomp>", "<setcomp>")

Visit = tuple[str, str]  # file, function


class Trace:
    """The functions of this project that a call ran, in order."""

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.on = False

    def record(self, frame: FrameType, event: str, argument: Any) -> None:
        """Take an event of ``sys.setprofile``."""
        file, function = frame.f_code.co_filename, frame.f_code.co_qualname
        ours = file.startswith(SOURCES) and not file.startswith(GENERATED)
        if self.on and event == "call" and ours and not function.endswith(COMPREHENSIONS):
            self.visits.append((file.removeprefix(f"{ROOT}/"), function))

    @property
    def files(self) -> int:
        """Count the files visited."""
        return len({file for file, _ in self.visits})

    @property
    def functions(self) -> int:
        """Count the functions visited."""
        return len(set(self.visits))

    @property
    def moves(self) -> int:
        """Count the steps from one file to another."""
        return sum(one[0] != other[0] for one, other in zip(self.visits, self.visits[1:], strict=False))


async def segment(it: Running) -> None:
    """Send a JPEG to ``POST /segment``, for a PNG."""
    answer = await it.rest.post("/segment", content=SAMPLE.read_bytes(), headers={"content-type": "image/jpeg"})
    answer.raise_for_status()


async def rpc(it: Running) -> None:
    """GRPC ``Segment``."""
    from pranet_client.pb.pranet.v1.segmentation_pb2 import SegmentRequest

    await it.stub.Segment(SegmentRequest(image=SAMPLE.read_bytes()))


async def infer(it: Running) -> None:
    """Ask over REST by the Open Inference Protocol, with one JPEG in binary."""
    import json
    import struct

    image = SAMPLE.read_bytes()
    data = struct.pack("<I", len(image)) + image
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [1],
                    "parameters": {"binary_data_size": len(data)},
                }
            ],
            "outputs": [{"name": "mask", "parameters": {"binary_data": True}}],
        }
    ).encode()
    answer = await it.rest.post(
        "/v2/models/pranet/infer",
        content=head + data,
        headers={"inference-header-content-length": str(len(head))},
    )
    answer.raise_for_status()


async def archive(it: Running) -> None:
    """Send a zip of one JPEG to ``POST /segment/batch``."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.write(SAMPLE, SAMPLE.name)
    answer = await it.rest.post(
        "/segment/batch", content=packed.getvalue(), headers={"content-type": "application/zip"}
    )
    answer.raise_for_status()


CALLS: dict[str, Callable[[Running], Awaitable[None]]] = {
    "segment": segment,
    "rpc": rpc,
    "infer": infer,
    "archive": archive,
}


async def traced(call: Callable[[Running], Awaitable[None]]) -> Trace:
    """Trace one warm call."""
    trace = Trace()
    # Only new threads get the profile; those of an earlier trace in this loop would be missing.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
    threading.setprofile(trace.record)
    sys.setprofile(trace.record)
    try:
        with patching() as patched:
            patched(readiness, "LOOK_SECONDS", 3600)  # no call needs these looks, which would fall into some traces
            async with serving() as it:
                for _ in range(WARM_CALLS):
                    await call(it)
                await asyncio.sleep(0.3)  # what is still logged or closed belongs to the calls before
                trace.on = True
                await call(it)
                await asyncio.sleep(0.02)  # the server's last lines
                trace.on = False
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return trace


def main() -> None:
    """Trace and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", choices=CALLS, help="print the path of this call")
    arguments = parser.parse_args()
    if arguments.show:
        trace = asyncio.run(traced(CALLS[arguments.show]))
        last = ""
        for file, function in trace.visits:
            print(f"{'' if file == last else file:45}{function}")
            last = file
    for name, call in CALLS.items():
        trace = asyncio.run(traced(call))
        print(f"{name:10}{trace.files:4} files {trace.functions:4} functions {trace.moves:4} moves")


if __name__ == "__main__":
    main()
