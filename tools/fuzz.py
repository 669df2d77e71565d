"""Fuzz test: sends mutated pictures and messages over both transports; run it from the root of the repository.

python -m tools.fuzz --cases 20000      exits with 1 if a case causes an internal error of the service

Seed and number determine a case: ``--first N --cases 1`` repeats it. ``--keep DIR`` writes the smallest picture for
every kind of answer.
"""

import argparse
import asyncio
import contextlib
import faulthandler
import logging
import random
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import uvloop

from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from tests.support import mutations
from tests.support.predictors import RedPredictor
from tests.support.serving import Running, serving, until

AT_ONCE = 8
HANG_SECONDS = 20  # timeout of a case
MAX_PIXELS = 2_000_000  # so that no header makes a case slow
SEGMENT = "/pranet.v1.SegmentationService/Segment"
STREAM = "/pranet.v1.SegmentationService/SegmentStream"
OUTPUTS = ("mask", "probability", "overlay", "json")
FINE = {200, 400, 413, 415, 422}
FINE_CODES = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
WRITE_FAILED = "Internal error from Core"  # of Python's own client, when it writes to a stream that was just refused


@dataclass
class Findings:
    """The answers to the cases, by kind."""

    answers: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    kinds: dict[tuple[int, str], bytes] = field(default_factory=dict)  # the smallest picture of each kind

    def judge(self, case: int, protocol: str, answer: object, fine: bool) -> None:
        """Count one answer."""
        self.answers[f"{protocol} {answer}"] += 1
        if not fine:
            self.faults.append(f"case {case}: {protocol} answered {answer}")

    def remember(self, status: int, reason: str, picture: bytes) -> None:
        """Keep the smallest picture for each kind of answer; reasons that differ only in numbers are one kind."""
        kind = status, re.sub(r"b'.*'|\d+|0x\w+", "N", reason)
        if kind not in self.kinds or len(picture) < len(self.kinds[kind]):
            self.kinds[kind] = picture


async def over_rest(it: Running, case: int, rng: random.Random, sources: Sequence[bytes], found: Findings) -> None:
    picture = mutations.picture(rng, sources)
    answer = await it.rest.post("/segment", params={"output": rng.choice(OUTPUTS)}, content=picture)
    found.judge(case, "REST", answer.status_code, answer.status_code in FINE)
    found.remember(answer.status_code, "" if answer.status_code == 200 else answer.json()["detail"], picture)


async def over_grpc(it: Running, case: int, rng: random.Random, sources: Sequence[bytes], found: Findings) -> None:
    sent = mutations.serialised(rng, mutations.request(rng, sources))
    call = it.channel.unary_unary(SEGMENT)(sent)
    code = await call.code()
    found.judge(case, "gRPC", code.name, code in FINE_CODES)


async def over_stream(it: Running, case: int, rng: random.Random, sources: Sequence[bytes], found: Findings) -> None:
    sent = [mutations.serialised(rng, message) for message in mutations.frames(rng, sources)]
    call = it.channel.stream_stream(STREAM)(iter(sent))
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for data in call:
            answer = pb.StreamResponse.FromString(data)
            outcome = answer.error.cause or answer.WhichOneof("outcome")
            found.judge(case, "frame", outcome, outcome not in (None, "internal", "inference-failed"))
    code = await call.code()
    cut_short = await call.details() == WRITE_FAILED
    found.judge(case, "stream", "cut short" if cut_short else code.name, cut_short or code in FINE_CODES)


async def fuzz(cases: range, seed: int) -> Findings:
    """Send the cases in turn over REST, gRPC and as a stream; check that no frame is left in flight afterwards."""
    found, sources = Findings(), mutations.originals()
    numbers: Iterator[int] = iter(cases)
    async with serving(RedPredictor(), max_image_pixels=MAX_PIXELS) as it:

        async def client() -> None:
            for case in numbers:
                rng = random.Random(f"{seed}/{case}")
                try:
                    async with asyncio.timeout(HANG_SECONDS):
                        await (over_rest, over_grpc, over_stream)[case % 3](it, case, rng, sources, found)
                except TimeoutError:
                    found.faults.append(f"case {case}: no answer")

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        await until(lambda: not it.service.calls.unanswered)
        for transport, code in (("rest", "500"), ("grpc", "INTERNAL"), ("grpc-stream", "INTERNAL")):
            if failed := it.metric("pranet_requests_total", {"transport": transport, "code": code}):
                found.faults.append(f"the service counts {failed:.0f} {transport} requests as {code}")
    return found


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description="Fuzz the service.")
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.WARNING)  # of what is refused
    warnings.simplefilter("ignore")  # Pillow's, about damage that it reads past
    cases = range(arguments.first, arguments.first + arguments.cases)
    found = uvloop.run(fuzz(cases, arguments.seed))
    for answer, number in sorted(found.answers.items()):
        print(f"{number:7d} {answer}")
    print(f"{len(cases)} cases, {len(found.faults)} faults, {len(found.kinds)} kinds of answers to pictures")
    if arguments.keep:
        for (status, reason), picture in found.kinds.items():
            name = re.sub(r"\W+", "-", reason)[:60].strip("-").lower()
            (arguments.keep / f"{status}-{name}").write_bytes(picture)
    print("\n".join(found.faults[:50]), file=sys.stderr)
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
