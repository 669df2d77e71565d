#!/usr/bin/env bash
# Whether KServe's REST client connects again to a service that is being restarted.
#
# Guess:   RESTConfig(retries=3), the default, tries a refused connection three more times, as its documentation says
#          ("number of retries in case of ConnectError or ConnectTimeout").
# Truth:   the option changes nothing. RESTConfig makes a transport with the retries and throws it away, so that the
#          client has httpx's own, which never tries again. A transport that the caller gives does retry.
# Versions: kserve 0.21.0, httpx 0.28.1
# Matters: during a rolling update, calls of such a client fail at once, though its settings promise otherwise. Give it
#          RESTConfig(protocol="v2", transport=httpx.AsyncHTTPTransport(retries=3)).
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q kserve==0.21.0 httpx==0.28.1
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import importlib.metadata
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
from kserve import InferenceRESTClient, RESTConfig

ANSWER = b'{"ready": true}'
AWAY = 1  # seconds; httpx tries again at once, after 0.5 s, after 1 s


class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


def return_later(port):
    time.sleep(AWAY)
    with HTTPServer(("127.0.0.1", port), Ready) as server:
        server.timeout = 3
        server.handle_request()


async def asked(config):
    """Ask a server that is away for a moment; return what came of it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threading.Thread(target=return_later, args=(port,), daemon=True).start()
    start = time.monotonic()
    try:
        ready = await InferenceRESTClient(config).is_server_ready(f"http://127.0.0.1:{port}")
        outcome = "ready" if ready else "not ready"
    except httpx.ConnectError:
        outcome = "ConnectError"
    return outcome, time.monotonic() - start


async def main():
    print("kserve", importlib.metadata.version("kserve"), "httpx", httpx.__version__)
    option, soon = await asked(RESTConfig(protocol="v2", retries=5))
    print(f"retries=5: {option} after {soon:.2f} s")
    given, late = await asked(RESTConfig(protocol="v2", transport=httpx.AsyncHTTPTransport(retries=5)))
    print(f"transport with retries=5: {given} after {late:.2f} s")
    return option == "ConnectError" and soon < AWAY and given == "ready"


sys.exit(not asyncio.run(main()))
PYTHON
