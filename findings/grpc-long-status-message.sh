#!/usr/bin/env bash
# What a client gets of a status whose message is long.
#
# Guess:   the message of a status arrives, or is cut; its code and the trailing metadata arrive in any case.
# Truth:   the message is a header, in which each byte of a character that is not ASCII takes three. Above 16 KiB of
#          headers the client throws the whole status away: INVALID_ARGUMENT becomes RESOURCE_EXHAUSTED, without the
#          server's metadata. Between 8 and 16 KiB it does so for some of the calls only: the more, the longer the message.
#          The server learns nothing of it.
# Versions: grpcio 1.85.1
# Matters: a server that repeats in an error what its client has sent loses the error. 3,000 letters such as "é" are
#          enough, and tests with short ones pass. The service cuts its messages to 2,000 bytes.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpcio==1.85.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys

import grpc

CALLS = 200
print("grpcio", grpc.__version__)


async def refuse(request, context):
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, request.decode(), (("cause", "too-long"),))


async def arrived(channel, message):
    """Return how many of the calls end with the status and metadata of the server, and the codes of the others."""
    kept, others = 0, set()
    for _ in range(CALLS):
        try:
            await channel.unary_unary("/test.Test/Refuse")(message.encode())
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT and dict(error.trailing_metadata()).get("cause"):
                kept += 1
            else:
                others.add(error.code().name)
    return kept, others


async def measure():
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(refuse)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Refuse": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    found = {}
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        for message in (7_000 * "n", 12_000 * "n", 17_000 * "n", 1_000 * "é", 3_000 * "é"):
            found[message[0], len(message)] = await arrived(channel, message)
    await server.stop(None)
    return found


found = asyncio.run(measure())
for (letter, length), (kept, others) in found.items():
    print(f"{length:6} times {letter}: {kept} of {CALLS} statuses arrived; the others became {', '.join(others) or '-'}")
lost = {"RESOURCE_EXHAUSTED"}
whole, some, none = (CALLS, set()), found["n", 12_000], (0, lost)
as_described = (
    found["n", 7_000] == found["é", 1_000] == whole
    and 0 < some[0] < CALLS
    and some[1] == lost
    and found["n", 17_000] == found["é", 3_000] == none
)
sys.exit(not as_described)
PYTHON
