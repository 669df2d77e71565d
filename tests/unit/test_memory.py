"""The process keeps the memory of one frame for the next, and gives that of replaced weights back."""

import platform
import subprocess
import sys

import pytest

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

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")


def test_a_second_frame_needs_no_new_pages_and_weights_get_memory_that_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    first, second, mapped = map(int, done.stdout.split())
    assert first > 100
    assert second < 10
    assert mapped == 1
