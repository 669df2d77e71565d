#!/usr/bin/env bash
# A client that still writes when the server refuses its stream.
#
# Guess:   whoever reads the call gets the status of the server, with its metadata, however the two meet in time.
# Truth:   where the client's writes and the server's status meet, from one call in a hundred to one in five ends with
#          INTERNAL, "Internal error from Core" and no metadata: the client's own error, in place of the server's
#          INVALID_ARGUMENT. The server has sent its status, and counts it. It is more frequent on a busy machine.
# Versions: grpcio 1.85.1
# Matters: a client that takes INTERNAL for a broken connection gives up what it has sent, and nobody learns why the
#          stream was refused. The service's client sends such a stream again, and gets the refusal then.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpcio==1.85.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter

import grpc

SECONDS = 60
REFUSED, LOST = ("INVALID_ARGUMENT", "refused", True), ("INTERNAL", "Internal error from Core", False)
print("grpcio", grpc.__version__)


async def refuse(requests, context):
    await context.send_initial_metadata(())
    await anext(aiter(requests))
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "refused", (("cause", "threshold"),))


async def refused(target):
    async with grpc.aio.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.stream_stream("/test.Test/Refuse")()

        async def send():
            for _ in range(4):
                await call.write(bytes(300))
            await call.done_writing()

        sending = asyncio.create_task(send())
        try:
            async for _ in call:
                pass
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details(), "cause" in dict(error.trailing_metadata() or ())
        finally:
            await asyncio.gather(sending, return_exceptions=True)


async def count():
    seen, end = Counter(), time.monotonic() + SECONDS
    while time.monotonic() < end and LOST not in seen:
        server = grpc.aio.server()
        method = grpc.stream_stream_rpc_method_handler(refuse)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Refuse": method}),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        for _ in range(20):
            seen[await refused(f"127.0.0.1:{port}")] += 1
        await server.stop(None)
    return seen


busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))]
try:
    seen = asyncio.run(count())
finally:
    for each in busy:
        each.kill()
for (code, details, has_cause), number in seen.most_common():
    print(f"{number} calls: {code}, {details!r}, {'with' if has_cause else 'without'} the server's metadata")
sys.exit(set(seen) != {REFUSED, LOST})
PYTHON
