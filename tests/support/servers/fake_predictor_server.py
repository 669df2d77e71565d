"""``pranet`` over ``RedPredictor``, which hangs on pictures that are lime all over; it takes ``pranet``'s arguments."""

import ctypes
import gc
import os
import sys
import threading
from pathlib import Path

from prometheus_client import Gauge

from model.transforms import Pixels
from service import app, runtime
from service.commands import main as cli
from service.observability.metrics import Metrics
from service.processes import supervisor
from tests.support.patching import patching
from tests.support.predictors import RedPredictor

HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "60"))  # a call that takes longer is given up


def hang(frames: Pixels) -> None:
    """Never come back from a frame that is (0, 255, 0) all over."""
    if (frames.transpose(0, 2, 3, 1) == (0, 255, 0)).all():
        threading.Event().wait()


ALLOCATIONS = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)


class Allocations(ctypes.Structure):
    """What mallinfo2(3) returns; needs glibc 2.33."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in ALLOCATIONS)


class MetricsWithMemory(Metrics):
    """Those of the service, and the bytes of what it has allocated and not freed, in heaps and in mappings.

    The memory that it occupies is more: the C library keeps some of what was freed.
    """

    def __init__(self) -> None:
        super().__init__()
        mallinfo2 = ctypes.CDLL(None).mallinfo2
        mallinfo2.restype = Allocations
        gauge = Gauge("allocated_bytes", "Allocated and not freed.", registry=self.registry)
        gauge.set_function(lambda: (found := mallinfo2()).uordblks + found.hblkhd)


with patching() as patched:
    if "KEEP_GARBAGE" in os.environ:  # of what refers to itself, so that a test does not depend on when it is collected
        gc.disable()
        patched(runtime, "Metrics", MetricsWithMemory)
    patched(app, "load_predictor", lambda settings: RedPredictor(hang))
    patched(runtime, "_hang_seconds", lambda settings: HANG_SECONDS)
    if "END_SECONDS" in os.environ:
        patched(supervisor, "END_SECONDS", float(os.environ["END_SECONDS"]))
    if "TRIM_MARK" in os.environ:
        patched(app, "trim_later", lambda: Path(os.environ["TRIM_MARK"]).touch())
    code = cli.main()
sys.exit(code)
