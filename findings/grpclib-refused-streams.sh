#!/usr/bin/env bash
# A server of grpcio that refuses a stream, and a client of grpclib, gRPC for asyncio in pure Python.
#
# Guess:   recv_message() raises GRPCError with the status of the server, as it does for a call that is refused.
# Truth:   only if the client has said before that it sends no more. While it may still send, grpcio closes the stream with
#          RST_STREAM and NO_ERROR behind the status (RFC 9113, 8.1), and recv_message() raises StreamTerminatedError,
#          "Stream reset by remote party, error_code: 0", though the status has arrived. It comes to light when the call
#          is left: `async with` replaces the error by GRPCError. Whoever catches errors inside of it learns neither the
#          code nor the message; stream.trailing_metadata is empty there, and so it stays.
# Versions: grpclib 0.4.9, grpcio 1.85.1
# Matters: a wrong configuration of a stream looks like a broken connection, which a client opens again, in vain and for
#          ever. docs/grpc.md says where to catch the error.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpclib==0.4.9 grpcio==1.85.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import grpc
from grpclib.client import Channel, StreamStreamMethod
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError

CALLS = 50
SAID = "the first message is the configuration"


class Plain(CodecBase):
    """Messages are bytes."""

    __content_subtype__ = "proto"

    def encode(self, message: bytes, message_type: type) -> bytes:
        return message

    def decode(self, data: bytes, message_type: type) -> bytes:
        return data


class Refusing(grpc.GenericRpcHandler):
    def service(self, details: Any) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    async def _refuse(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await anext(messages)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, SAID, (("cause", "configuration"),))
        yield b""


async def called(channel: Channel, *, end: bool) -> tuple[str, str, str | None]:
    """Return the errors inside of the call and at its end, and the metadata that goes with the status."""
    inside, at_end = "none", "none"
    try:
        async with StreamStreamMethod(channel, "/made.Up/Stream", bytes, bytes).open(timeout=10) as stream:
            await stream.send_message(b"a frame", end=end)
            try:
                await stream.recv_message()
            except Exception as error:
                inside = f"{type(error).__name__}: {error}"
                raise
    except GRPCError as error:
        at_end = f"{error.status.name}: {error.message}"
    return inside, at_end, (stream.trailing_metadata or {}).get("cause")


async def main() -> bool:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Refusing(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    found = {}
    async with Channel("127.0.0.1", port, codec=Plain()) as channel:
        for end in (False, True):
            found[end] = Counter([await called(channel, end=end) for _ in range(CALLS)])
            print("the client has ended its messages:", end)
            for (inside, at_end, cause), number in found[end].items():
                print(f"  {number} calls: inside {inside}; at the end {at_end}; cause {cause}")
    await server.stop(None)
    reset = "StreamTerminatedError: Stream reset by remote party, error_code: 0"
    told = {each[1] for counter in found.values() for each in counter}
    return (
        found[False].keys() == {(reset, f"INVALID_ARGUMENT: {SAID}", None)}
        and all(inside.startswith("GRPCError") and cause for inside, _, cause in found[True])
        and told == {f"INVALID_ARGUMENT: {SAID}"}
    )


print(*(f"{name} {version(name)}" for name in ("grpclib", "grpcio")))
sys.exit(not asyncio.run(main()))
PYTHON
