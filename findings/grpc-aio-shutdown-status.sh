#!/usr/bin/env bash
# The status of calls that grpc.aio's Server.stop() cuts off.
#
# Guess:   when the grace is over, the handler gets a CancelledError, and may end the call with a status and trailing
#          metadata of its own, such as UNAVAILABLE with "retry-after".
# Truth:   the handler is cancelled, and context.abort() in it runs without an error, but the call has ended already: the
#          client gets UNAVAILABLE with "Cancelling all calls", and no metadata. A server that wants its clients to know
#          has to end its calls before it calls stop().
# Versions: grpcio 1.85.1
# Matters: a client that reads the cause and "retry-after" of an error found neither in the one case in which trying
#          elsewhere helps. The service ends what is left itself when the time of its drain is over, and then stops gRPC.
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

print("grpcio", grpc.__version__)
aborted = []


async def wait(request, context):
    try:
        await asyncio.sleep(30)
        return b""
    except asyncio.CancelledError:
        aborted.append(True)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down; ask another server", (("retry-after", "5"),))


async def cut_off():
    server = grpc.aio.server()
    method = grpc.unary_unary_rpc_method_handler(wait)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", {"Wait": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test.Test/Wait")(b"")
        await asyncio.sleep(0.5)
        stopping = asyncio.create_task(server.stop(grace=0.2))
        try:
            await call
        except grpc.aio.AioRpcError as error:
            return error.code().name, error.details(), dict(error.trailing_metadata() or ())
        finally:
            await stopping


seen = asyncio.run(cut_off())
print("the handler aborted its call:", bool(aborted))
print("the client saw:", *seen)
sys.exit(not (aborted and seen == ("UNAVAILABLE", "Cancelling all calls", {})))
PYTHON
