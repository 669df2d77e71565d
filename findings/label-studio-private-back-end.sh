#!/usr/bin/env bash
# Label Studio's connection of an ML back end on a private address.
#
# Guess:   with ML_BLOCK_LOCAL_IP=false, the setting for this, Label Studio connects a back end at 127.0.0.1, as its own
#          documentation does. Without it, it refuses the back end and stores nothing.
# Truth:   without it, the request is refused (403), and nothing is stored. With it, the request is refused with the same
#          words, and yet the back end is stored, without the last steps of a connection: it is checked again only when
#          somebody lists the back ends. A signal saves a webhook at the same address after the back end, and the
#          address of a webhook is checked without regard to ML_BLOCK_LOCAL_IP. Whoever tries again, as the answer
#          suggests, has the back end twice. With SSRF_PROTECTION_ENABLED=false too, it is connected (201).
# Versions: label-studio 1.23.2
# Matters: `pranet label-studio` usually runs on the same machine or in the same network. docs/annotation.md names both
#          settings, and says what the answer of the first alone means.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q label-studio==1.23.2
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import json
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import requests

folder = sys.argv[1]
TOKEN = "0123456789abcdef0123456789abcdef01234567"
CONFIG = '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="x"/></BrushLabels></View>'


class BackEnd(BaseHTTPRequestHandler):
    """The least that Label Studio asks of an ML back end."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.dumps({"status": "UP", "model_version": "1"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None: ...


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def connect(back_end: str, **settings: str) -> tuple[int, list[str], str]:
    """Return the status of the request that connects a back end, the states of all that are stored then, and its words."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [f"{folder}/venv/bin/label-studio", "start", "--no-browser", "--data-dir", f"{folder}/data"]
    command += ["--port", str(port), "--internal-host", "127.0.0.1", "--username", "a@example.org"]
    command += ["--password", "annotator-1", "--user-token", TOKEN, "--enable-legacy-api-token"]
    with open(f"{folder}/log", "a") as log:
        process = subprocess.Popen(command, env={**os.environ, **settings}, stdout=log, stderr=log)
    try:
        session = requests.Session()
        session.trust_env = False
        session.headers["authorization"] = f"Token {TOKEN}"
        for _ in range(1000):
            try:
                if session.get(f"{url}/health", timeout=5).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        project = session.post(f"{url}/api/projects", json={"title": "test", "label_config": CONFIG}).json()["id"]
        answer = session.post(f"{url}/api/ml", json={"project": project, "url": back_end, "title": "test"})
        stored = session.get(f"{url}/api/ml", params={"project": project}).json()
        return answer.status_code, [each["readable_state"] for each in stored], answer.json().get("detail", "")
    finally:
        process.terminate()
        process.wait()


server = ThreadingHTTPServer(("127.0.0.1", 0), BackEnd)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"

print(f"label-studio {version('label-studio')}")
found = {}
for name, settings in {
    "no setting": {},
    "ML_BLOCK_LOCAL_IP=false": {"ML_BLOCK_LOCAL_IP": "false"},
    "and SSRF_PROTECTION_ENABLED=false": {"ML_BLOCK_LOCAL_IP": "false", "SSRF_PROTECTION_ENABLED": "false"},
}.items():
    status, stored, words = connect(address, **settings)
    print(f"{name}: {status} {words!r}; stored: {stored}")
    found[name] = status, len(stored)

sys.exit(list(found.values()) != [(403, 0), (403, 1), (201, 1)])
PYTHON
