#!/usr/bin/env bash
# The stack for signal handlers that OpenVINO's CPU plugin gives to a thread.
#
# Guess:   a library for inference leaves the signals of a Python program alone.
# Truth:   the first use of the CPU gives the thread an alternate signal stack (sigaltstack). If the runtime is freed in
#          the same thread, the stack is taken back. If it is freed in another one, the stack's memory is unmapped, but
#          stays the stack of the first thread. Python runs its signal handlers there (SA_ONSTACK), so the next SIGTERM
#          or Ctrl-C in that thread ends the process with SIGSEGV. This script only looks at the stack.
# Versions: openvino 2026.4.1 on x86-64 Linux
# Matters: a server that loads weights in its main thread, and frees them in a worker thread when new ones replace them,
#          crashes at SIGTERM instead of ending gracefully. This service has one runtime, which it never frees.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --disable-pip-version-check install -q openvino==2026.4.1
"$folder/venv/bin/python" - <<'PYTHON'
import ctypes
import sys
import threading

import openvino as ov


class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


def signal_stack() -> int:
    """Return where the alternate signal stack of this thread begins; 0 if it has none."""
    stack = Stack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack.start or 0


def is_mapped(address: int) -> bool:
    """Tell whether the address belongs to memory of this process."""
    with open("/proc/self/maps") as maps:
        ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
    return any(start <= address < end for start, end in ranges)


def state() -> str:
    """Describe the alternate signal stack of this thread."""
    start = signal_stack()
    return "none" if not start else "its memory is there" if is_mapped(start) else "its memory is gone"


def used() -> list[ov.Core]:
    """Return a runtime whose CPU plugin is loaded."""
    core = ov.Core()
    core.get_property("CPU", "FULL_DEVICE_NAME")
    return [core]


print("openvino", ov.__version__)
seen = {"before": state()}
runtime = used()
seen["runtime in use"] = state()
runtime.clear()
seen["freed in the same thread"] = state()
runtime = used()
freeing = threading.Thread(target=runtime.clear)
freeing.start()
freeing.join()
seen["freed in another thread"] = state()
for when, what in seen.items():
    print(f"{when}: {what}")
as_described = ["none", "its memory is there", "none", "its memory is gone"]
sys.exit(list(seen.values()) != as_described)
PYTHON
