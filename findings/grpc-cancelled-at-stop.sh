#!/usr/bin/env bash
# Calls that reach a server of grpcio just as its stop() is called.
#
# Guess:   stop() "immediately stops the server from servicing new RPCs": a call that comes too late is refused with
#          UNAVAILABLE, or the client sends it elsewhere by itself, since no handler has seen it (RFC 9113, 6.8: GOAWAY).
# Truth:   in one restart under load of two or three, a call that is on its way when stop() is called ends with CANCELLED
#          and the message "CANCELLED", as if the client had given it up. No handler sees it. grpc.aio and the server with
#          threads do the same. All later calls go to the new server, or get UNAVAILABLE if there is none.
# Versions: grpcio 1.85.1
# Matters: a retry policy for UNAVAILABLE does not cover it, and many clients take CANCELLED for their own doing. So a
#          rolling update costs a call now and then, also behind proxies. docs/grpc.md says to send such a call again.
#
# It stops servers until it has seen such a call, at most 40. Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpcio==1.85.1
cat > "$folder/server.py" <<'PYTHON'
import asyncio
import signal
import sys
import threading
import time
from concurrent import futures

import grpc

GRACE = 10
kind, port = sys.argv[1:]
begun = []


async def answer(request, context):
    begun.append(request)
    await asyncio.sleep(0.05)
    return request


def answer_in_a_thread(request, context):
    begun.append(request)
    time.sleep(0.05)
    return request


def listen(server, handler):
    methods = {"Answer": grpc.unary_unary_rpc_method_handler(handler)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Answering", methods),))
    return server.add_insecure_port(f"127.0.0.1:{port}")


async def serve():
    server, ends = grpc.aio.server(), asyncio.Event()
    bound = listen(server, answer)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    await server.start()
    print(bound, flush=True)
    await ends.wait()
    await server.stop(GRACE)


def serve_in_threads():
    server, ends = grpc.server(futures.ThreadPoolExecutor(64)), threading.Event()
    bound = listen(server, answer_in_a_thread)
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    server.start()
    print(bound, flush=True)
    ends.wait()
    server.stop(GRACE).wait()


asyncio.run(serve()) if kind == "grpc.aio" else serve_in_threads()
print(len(begun))
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys
from collections import Counter

import grpc

MOST_STOPS = 40
CALLS, STOP_AT, PAUSE = 100, 50, 0.003  # a call each 3 ms; the server stops after half of them
LOST = ("CANCELLED", "CANCELLED")


async def start(kind, port):
    command = (sys.executable, sys.argv[1], kind, str(port))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return process, int(await process.stdout.readline())


async def restarted(kind):
    """Stop a server under load once another one has its port, too; return the statuses, and how many calls began."""
    first, port = await start(kind, 0)
    seen = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        method = channel.unary_unary("/test.Answering/Answer")

        async def call():
            try:
                await method(b"frame", timeout=30)
                seen["OK", ""] += 1
            except grpc.RpcError as error:
                seen[error.code().name, error.details()] += 1

        await call()  # on the connection to the first one
        second, _ = await start(kind, port)
        calls = []
        for number in range(CALLS):
            if number == STOP_AT:
                first.terminate()
            calls.append(asyncio.create_task(call()))
            await asyncio.sleep(PAUSE)
        await asyncio.gather(*calls)
    second.terminate()
    begun = sum([int((await process.communicate())[0]) for process in (first, second)])
    return seen, begun


async def main():
    as_described = []
    for kind in ("grpc.aio", "threads"):
        seen, begun, stops = Counter(), 0, 0
        while not seen[LOST] and stops < MOST_STOPS:
            more, handled = await restarted(kind)
            seen, begun, stops = seen + more, begun + handled, stops + 1
        print(f"{kind}: servers stopped: {stops}; statuses: {dict(seen)}; calls that handlers saw: {begun}")
        as_described.append(seen[LOST] > 0 and begun == seen["OK", ""])
    return not all(as_described)


print("grpcio", grpc.__version__)
sys.exit(asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/server.py"
