"""Thousands of bad requests leave nothing behind, nor do frames and replaced weights."""

import http.client
import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.cases.pictures import BAD, GOOD
from tests.support.pictures import SAMPLES, annotation, dice, mask_of
from tests.support.processes import Server, resident_bytes

CLIENTS = 4
EARLY = 1_000
GROWTH = 1.05  # of resident memory, from the early requests to all of them
LARGE = bytes(33 * 2**20)  # just above what is read

# Prints how many pages a frame of 4 MiB takes up for the first and the second time; and how many blocks are mapped by
# themselves once a larger block than those of weights has been freed.
PROGRAM = """
import ctypes, resource
from service.memory import keep_freed_memory

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
keep_freed_memory()
print(faults(4 * MIB), faults(4 * MIB))
free(malloc(30 * MIB))
before = libc.mallinfo2().hblks
weights = malloc(20 * MIB)
print(libc.mallinfo2().hblks - before)
"""

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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_second_frame_needs_no_new_pages_and_weights_get_memory_that_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, second, mapped = map(int, done.stdout.split())
    assert first > 100
    assert second < 10
    assert mapped == 1
