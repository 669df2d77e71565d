"""A service without a free file descriptor says so."""

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.observability import open_files
from tests.support.patching import Patches
from tests.support.processes import server

LIMIT = 128
LIMITED = f"""
import resource, runpy

resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
runpy.run_module("tests.support.servers.fake_predictor_server", run_name="__main__")
"""
TOLD = "no file descriptor is left (Too many open files; the limit of this process is "


@contextmanager
def nothing_left() -> Iterator[int]:
    """Lower the limit of this process inside the block, so that it can open nothing more; yield the limit."""
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, most))
    try:
        yield free
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))


@pytest.mark.parametrize("again_seconds", [60.0, 0.0])
async def test_it_is_told_once_in_a_while_that_no_file_descriptor_is_left(
    again_seconds: float, caplog: pytest.LogCaptureFixture, patched: Patches
) -> None:
    patched(open_files, "CHECK_SECONDS", 0.001)
    patched(open_files, "AGAIN_SECONDS", again_seconds)
    checks = patched(open_files, "_why_none_is_left")
    with nothing_left() as limit:
        watching = asyncio.create_task(open_files.watch())
        while checks.count < 3:  # noqa: ASYNC110 - nothing sets an event at a check
            await asyncio.sleep(0.001)
        watching.cancel()
    assert f"{TOLD}{limit})" in caplog.text
    assert "; raise the limit of open files" in caplog.text
    assert (len(caplog.records) == 1) == (again_seconds > 0)


@pytest.mark.slow
def test_a_server_that_gets_too_many_connections_says_what_to_raise_and_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = (sys.executable, "-c", LIMITED)
    with log.open("w") as stderr, server(program=program, stderr=stderr) as it, ExitStack() as stack:
        address = urlsplit(it.url)
        for _ in range(LIMIT):
            stack.enter_context(socket.create_connection((address.hostname, address.port)))
        end = time.monotonic() + 60
        while TOLD not in log.read_text():
            assert time.monotonic() < end
            time.sleep(0.05)
        stack.close()
        assert f"{TOLD}{LIMIT})" in log.read_text()
        transport = httpx.HTTPTransport(retries=5)
        with httpx.Client(transport=transport, trust_env=False) as client:
            assert client.get(f"{it.url}/livez").status_code == 200
