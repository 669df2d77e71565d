#!/usr/bin/env bash
# Handshakes of the synchronous client of websockets over TLS.
#
# Guess:   websockets.sync.client.connect() to wss:// is as sure as the asyncio client is.
# Truth:   about one connection in 200 ends with a TimeoutError after open_timeout: its TLS handshake is over, but the
#          server never sees its upgrade request. The asyncio client lost none of 1,500 connections, a plain ssl socket
#          none of 1,500, and this client over ws:// none of 300. A thread of it reads while another one writes to the
#          same SSL object, which may be why.
# Versions: websockets 17.4, Python 3.11.7 with OpenSSL 3.0.19
# Matters: a script that streams to a service with TLS failed once in some minutes, and the service, which had never seen
#          the request, had nothing about it in its log. Use websockets.asyncio over TLS, or connect again.
#
# It connects until a handshake is lost, at most 4,000 times. Exit code 0: one was lost. 1: none.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q websockets==17.4 trustme==1.2.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import platform
import ssl
import sys
import threading

import trustme
import websockets
from websockets.asyncio.server import serve
from websockets.sync.client import connect

MOST = 4000
authority = trustme.CA()
offered, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
authority.issue_cert("127.0.0.1").configure_cert(offered)
authority.configure_trust(trusting)
listening, ports = threading.Event(), []


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serving():
    async with serve(echo, "127.0.0.1", 0, ssl=offered) as server:
        ports.append(server.sockets[0].getsockname()[1])
        listening.set()
        await asyncio.get_running_loop().create_future()


threading.Thread(target=lambda: asyncio.run(serving()), daemon=True).start()
listening.wait()
print("websockets", websockets.__version__, "Python", platform.python_version(), ssl.OPENSSL_VERSION)
for number in range(1, MOST + 1):
    try:
        with connect(f"wss://127.0.0.1:{ports[0]}/", ssl=trusting, open_timeout=5, close_timeout=1) as socket:
            socket.send("x")
            assert socket.recv(5) == "x"
    except TimeoutError as error:
        print(f"connection {number} ended with TimeoutError: {error}")
        sys.exit(0)
print(f"none of {MOST} connections was lost")
sys.exit(1)
PYTHON
