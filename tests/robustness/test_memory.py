"""Thousands of bad requests leave nothing behind, nor do frames and replaced weights."""

import http.client
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.memory import ARENAS
from tests.support import processes
from tests.support.cases.pictures import BAD, GOOD
from tests.support.pictures import SAMPLES, annotation, dice, mask_of
from tests.support.processes import Server, resident_bytes

CLIENTS = 4
EARLY = 1_000
GROWTH = 1.05  # of resident memory, from the early requests to all of them
LARGE = bytes(33 * 2**20)  # just above what is read
IN_TIME = 20.0  # seconds

# Prints how many pages a frame of 4 MiB takes up for the first and the second time; and how many blocks are mapped by
# themselves once a larger block than those of weights has been freed.
PROGRAM = """
import ctypes, resource
from service.memory import limit_freed_memory

libc = ctypes.CDLL(None)
malloc, free = libc.malloc, libc.free
malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": [
    (name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")
    + ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
]})

def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = malloc(size)
    ctypes.memset(block, 1, size)
    free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

MIB = 2**20
limit_freed_memory()
print(faults(4 * MIB), faults(4 * MIB))
free(malloc(30 * MIB))
before = libc.mallinfo2().hblks
weights = malloc(20 * MIB)
print(libc.mallinfo2().hblks - before)
"""

# Prints how many heaps the allocator has once 12 threads have held memory at once.
HEAPS = """
import ctypes, threading
from service.memory import limit_freed_memory

limit_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
libc.fopen.restype, libc.malloc_info.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
together = threading.Barrier(12)

def hold():
    block = libc.malloc(2**20)
    together.wait()
    libc.free(block)

threads = [threading.Thread(target=hold) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = libc.fopen(b"/dev/stdout", b"w")
libc.malloc_info(0, out)
libc.fclose(out)
"""

# Prints the resident MiB while 200 blocks of 1 MiB are held, when every other one is free, and when these holes have
# been given back.
HOLES = """
import ctypes
from pathlib import Path
from service.memory import limit_freed_memory, trim

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmRSS"))

limit_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
blocks = []
for _ in range(200):
    blocks.append(libc.malloc(2**20))
    ctypes.memset(blocks[-1], 1, 2**20)
print(resident())
for block in blocks[::2]: libc.free(block)
print(resident())
trim()
print(resident())
"""

on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

Request = tuple[str, bytes, int]


def requests() -> Iterator[Request]:
    """Repeat every bad image, a few bad requests and now and then a good picture or far too many bytes."""
    bad: list[Request] = [("/segment", make(), status) for make, status, *_ in BAD.values()]
    bad += [("/segment?threshold=2", GOOD, 422), ("/segment?roi=0,0,999,999", GOOD, 422), ("/elsewhere", GOOD, 404)]
    rare: list[Request] = [("/segment", SAMPLES[0].read_bytes(), 200), ("/segment", LARGE, 413)]
    for number, request in enumerate(cycle(bad)):
        yield request
        if number % 200 == 0:
            yield rare[number // 200 % 2]


@pytest.mark.slow
@pytest.mark.parametrize("number", [3_000, pytest.param(10_000, marks=pytest.mark.long)])
def test_memory_stays_where_it_was_after_the_first_requests(server: Server, number: int) -> None:
    sequence = requests()
    _send(server, islice(sequence, EARLY))
    early = resident_bytes(server)
    _send(server, islice(sequence, number - EARLY))
    late = resident_bytes(server)
    print(f"\nresident after {EARLY}: {early / 2**20:.0f} MiB, after {number}: {late / 2**20:.0f} MiB", end="")
    assert late <= GROWTH * early
    answer = httpx.post(f"{server.url}/segment", content=SAMPLES[0].read_bytes(), timeout=60, trust_env=False)
    assert dice(mask_of(answer.content), annotation(SAMPLES[0])) >= 0.7


def _send(server: Server, sequence: Iterator[Request]) -> None:
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=120)
        while True:
            with lock:
                request = next(sequence, None)
            if request is None:
                break
            path, body, status = request
            connection.request("POST", path, body)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status, (path, body[:20])
        connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(client) for _ in range(CLIENTS)]:
            done.result()


@on_glibc
def test_a_second_frame_needs_no_new_pages_and_weights_get_memory_that_goes_back() -> None:
    first, second, mapped = map(int, _printed(PROGRAM).split())
    assert first > 100
    assert second < 10
    assert mapped == 1


@on_glibc
def test_threads_share_few_heaps() -> None:
    assert _printed(HEAPS).count("<heap nr=") <= ARENAS


@on_glibc
def test_holes_between_blocks_that_stay_are_given_back() -> None:
    held, freed, trimmed = map(int, _printed(HOLES).split())
    assert held - freed < 50  # or there is nothing to give back
    assert held - trimmed > 90


def test_holes_are_given_back_after_a_reload(tmp_path: Path) -> None:
    with processes.fake_server(TRIM_MARK=str(tmp_path / "mark")) as server:
        assert not (tmp_path / "mark").exists()
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + IN_TIME
        while not (tmp_path / "mark").exists():
            assert time.monotonic() < until
            time.sleep(0.02)


def _printed(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
