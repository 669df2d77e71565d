"""``pranet`` over ``RedPredictor``, which hangs on pictures that are lime all over; it takes ``pranet``'s arguments."""

import gc
import os
import sys
import threading
from pathlib import Path

from model.transforms import Pixels
from service import app, runtime
from service.commands import main as cli
from tests.support.patching import patching
from tests.support.predictors import RedPredictor

HANG_SECONDS = float(os.environ.get("HANG_SECONDS", "0.2"))  # a call that takes longer is given up


def hang(frames: Pixels) -> None:
    """Never come back from a frame that is (0, 255, 0) all over."""
    if (frames.transpose(0, 2, 3, 1) == (0, 255, 0)).all():
        threading.Event().wait()


if "KEEP_GARBAGE" in os.environ:  # of what refers to itself, so that a test does not depend on when it is collected
    gc.disable()
with patching() as patched:
    patched(app, "load_predictor", lambda settings: RedPredictor(hang))
    patched(runtime, "_hang_seconds", lambda settings: HANG_SECONDS)
    if "TRIM_MARK" in os.environ:
        patched(app, "trim_later", lambda: Path(os.environ["TRIM_MARK"]).touch())
    code = cli.main()
sys.exit(code)
