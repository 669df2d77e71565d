#!/usr/bin/env bash
# Cancelling a call of connectrpc, Connect's own client for Python, which speaks gRPC, too.
#
# Guess:   as everywhere in asyncio, a cancelled call raises CancelledError: asyncio.timeout() turns it into TimeoutError,
#          and the task counts as cancelled.
# Truth:   the call raises ConnectError with the code CANCELED in place of CancelledError, unary or streamed. The server is
#          told. But asyncio.timeout() and wait_for() raise ConnectError, no TimeoutError; task.cancelled() is False; a
#          TaskGroup reports the ConnectError of a task that it has cancelled itself as an error of its own; and a task
#          that catches ConnectError, as for trying again, goes on after its cancellation. grpc.aio does none of this.
# Versions: connectrpc 0.13.0, pyqwest 0.12.0, grpcio 1.85.1, Python 3.11
# Matters: a loop that connects again after each error of a call is not ended by Ctrl-C or by the end of its TaskGroup, and
#          its stream is opened again. docs/grpc.md says to leave the loop on CANCELED, and to use timeout_ms.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q connectrpc==0.13.0 pyqwest==0.12.0 grpcio==1.85.1
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys
from importlib.metadata import version

import grpc
import pyqwest
from connectrpc.client import ConnectClient
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.protocol import ProtocolType

CALLS = {"Unary": StreamType.UNARY, "Stream": StreamType.BIDI_STREAM}
PAUSE = 0.5  # seconds until a call is cancelled


class Bytes:
    """Messages as they are, without generated code."""

    def name(self):
        return "proto"

    def encode(self, message):
        return message

    def decode(self, data, message_class):
        return bytes(data)


class Server:
    def __init__(self):
        self.cancelled = 0

    async def unary(self, request, context):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return b""

    async def stream(self, requests, context):
        yield await self.unary(b"", context)


async def endless():
    yield b"first"
    await asyncio.sleep(60)


def connect(client, name):
    method = MethodInfo(
        name=name,
        service_name="test.Frames",
        input=bytes,
        output=bytes,
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=CALLS[name],
    )

    async def call():
        if name == "Unary":
            return await client.execute_unary(request=b"frame", method=method)
        return [answer async for answer in client.execute_bidi_stream(request=endless(), method=method)]

    return call


def aio(channel, name):
    async def call():
        if name == "Unary":
            return await channel.unary_unary("/test.Frames/Unary")(b"frame")
        return [answer async for answer in channel.stream_stream("/test.Frames/Stream")(endless())]

    return call


async def ways_out(call):
    """Return what comes of a call under asyncio.timeout, in a cancelled task, and in one that tries again."""
    told = []
    try:
        async with asyncio.timeout(PAUSE):
            await call()
    except Exception as error:
        told.append(type(error).__name__)

    async def retrying():
        for _ in range(2):
            try:
                await call()
            except (ConnectError, grpc.RpcError):
                await asyncio.sleep(0)

    for run in (call, retrying):
        task = asyncio.create_task(run())
        await asyncio.sleep(PAUSE)
        task.cancel()
        await asyncio.wait([task], timeout=PAUSE)
        told.append(
            "goes on" if not task.done() else "cancelled" if task.cancelled() else type(task.exception()).__name__
        )
        task.cancel()
        await asyncio.wait([task])
    return told


async def main():
    server, handlers = grpc.aio.server(), Server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(handlers.unary),
        "Stream": grpc.stream_stream_rpc_method_handler(handlers.stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Frames", methods),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    http2 = pyqwest.Client(pyqwest.HTTPTransport(http_version=pyqwest.HTTPVersion.HTTP2))
    client = ConnectClient(
        f"http://{address}", codec=Bytes(), protocol=ProtocolType.GRPC, http_client=http2, send_compression=None
    )
    expected = {"grpc.aio": ["TimeoutError", "cancelled", "cancelled"], "connectrpc": ["ConnectError"] * 2 + ["goes on"]}
    seen = []
    async with grpc.aio.insecure_channel(address) as channel:
        for library, make, connection in (("grpc.aio", aio, channel), ("connectrpc", connect, client)):
            for name in CALLS:
                handlers.cancelled = 0
                told = await ways_out(make(connection, name))
                await asyncio.sleep(PAUSE)
                print(f"{library}, {name}: under a timeout {told[0]}, cancelled task {told[1]}, retrying {told[2]}")
                seen.append(told == expected[library] and handlers.cancelled >= 3)
    await server.stop(None)
    return not all(seen)


print(*(f"{name} {version(name)}" for name in ("connectrpc", "pyqwest", "grpcio")))
sys.exit(asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/run.py"
