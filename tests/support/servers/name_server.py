"""Runs a command in a network of its own, whose name server prints every name that the command looks up.

Needs user namespaces, with which anybody gets a network and mounts of their own: ``unshare --map-root-user``.
"""

import fcntl
import os
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.support.pictures import ROOT

SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40  # netdevice(7)
HEADER_BYTES = 12  # of a DNS message, RFC 1035, section 4.1.1
NO_SUCH_NAME = b"\x81\x83"


def names_asked(command: Sequence[object], **variables: str) -> list[str]:
    """Run a command that must succeed, and return the names that it looked up."""
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as resolver:
        resolver.write("nameserver 127.0.0.1\n")
        resolver.flush()
        inside = shlex.join([sys.executable, "-m", __name__, *map(str, command)])
        mounted = f"mount --bind {shlex.quote(resolver.name)} /etc/resolv.conf && exec {inside}"
        done = subprocess.run(
            ["unshare", "--map-root-user", "--net", "--mount", "sh", "-c", mounted],
            cwd=ROOT, env={**os.environ, **variables}, text=True, capture_output=True, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.removeprefix("asked: ") for line in done.stdout.splitlines() if line.startswith("asked: ")]


def namespaces() -> bool:
    """Return whether this machine lets its users make namespaces."""
    return Path("/usr/bin/unshare").exists() and not subprocess.call(["unshare", "--map-root-user", "--net", "true"])


def _main() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        loopback = struct.pack("16sH14x", b"lo", IFF_UP | IFF_RUNNING)
        fcntl.ioctl(server, SIOCSIFFLAGS, loopback)
        server.bind(("127.0.0.1", 53))
        threading.Thread(target=_answer, args=[server], daemon=True).start()
        return subprocess.run(sys.argv[1:], check=False).returncode


def _answer(server: socket.socket) -> None:
    while True:
        query, sender = server.recvfrom(512)
        labels, end = [], HEADER_BYTES
        while length := query[end]:
            labels.append(query[end + 1 : end + 1 + length].decode())
            end += 1 + length
        print("asked:", ".".join(labels), flush=True)
        question = query[HEADER_BYTES : end + 5]
        server.sendto(query[:2] + NO_SUCH_NAME + query[4:6] + bytes(6) + question, sender)


if __name__ == "__main__":
    sys.exit(_main())
