#!/usr/bin/env bash
# What SIGTERM does to a LitServe server.
#
# Guess:   SIGTERM to the process that was started ends the server, as a supervisor or `docker stop` expects: it drains,
#          and the port is free afterwards.
# Truth:   only that process ends, at once and with -15. Its HTTP process and its workers go on, and still answer requests
#          on the port; whoever starts the server again finds the address in use.
# Versions: litserve 0.2.19
# Matters: `make peers` measures this server and has to end all of its processes itself. Whoever moves from it should
#          know that a restart may have left an old server with old weights. Ours drains on SIGTERM with one process and
#          with several, and tests hold it to that.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'pkill -KILL -f "$folder/server.py" || true; pkill -KILL -f "^$folder/venv/bin/python" || true; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q litserve==0.2.19
cat > "$folder/server.py" <<'PYTHON'
import sys

import litserve


class Same(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["number"]

    def predict(self, number):
        return number

    def encode_response(self, number):
        return {"number": number}


if __name__ == "__main__":
    server = litserve.LitServer(Same(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="error")
PYTHON
cat > "$folder/run.py" <<'PYTHON'
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from importlib.metadata import version

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]


def answer():
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/predict", b'{"number": 1}', {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read().decode()


server = subprocess.Popen([sys.executable, sys.argv[1], str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
for _ in range(300):
    try:
        before = answer()
        break
    except OSError:
        time.sleep(0.2)
server.send_signal(signal.SIGTERM)
code = server.wait(60)
time.sleep(10)
print(f"litserve {version('litserve')}: before {before}, exit code {code}, ten seconds later {answer()}")
assert code == -signal.SIGTERM
PYTHON
"$folder/venv/bin/python" "$folder/run.py" "$folder/server.py"
