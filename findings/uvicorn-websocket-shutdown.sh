#!/usr/bin/env bash
# What uvicorn's graceful shutdown does to a WebSocket whose application still works on an answer.
#
# Guess:   as for HTTP, connections may finish what they do within timeout_graceful_shutdown: the application sends its
#          last message, and the connection is closed after that.
# Truth:   every WebSocket gets the close code 1012 (service restart) at once, whatever its application does. What the
#          application sends afterwards raises ClientDisconnected. Only the HTTP requests are waited for.
# Versions: uvicorn 0.54.0, websockets 17.4
# Matters: a stream would lose the answers of frames that the service had accepted. The service ends its streams itself,
#          after their last answers, before it tells uvicorn to exit.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q uvicorn==0.54.0 websockets==17.4
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import sys

import uvicorn
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

print(f"uvicorn {uvicorn.__version__}, websockets {websockets.__version__}")
raised = []


async def application(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    await asyncio.sleep(1)  # the work on the answer
    try:
        await send({"type": "websocket.send", "text": "the answer"})
    except Exception as error:
        raised.append(type(error).__name__)


async def shut_down():
    options = {"lifespan": "off", "log_level": "critical", "timeout_graceful_shutdown": 10}
    server = uvicorn.Server(uvicorn.Config(application, port=0, **options))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as client:
            await client.send("a frame")
            await asyncio.sleep(0.2)
            server.should_exit = True
            return await client.recv()
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else None
    finally:
        await serving


seen = asyncio.run(shut_down())
print("the client got:", seen)
print("the application got:", *raised)
sys.exit(not (seen == 1012 and raised == ["ClientDisconnected"]))
PYTHON
