"""``pranet`` over a predictor that hangs on black pictures; the arguments are those of ``pranet``."""

import sys
import threading

from fakes import RedPredictor
from model.transforms import Pixels
from service import app, cli, core

HANG_SECONDS = 0.2  # a call that takes longer is given up


def hang(frames: Pixels) -> None:
    """Never come back from a black frame."""
    if not frames.any():
        threading.Event().wait()


app.load_predictor = lambda settings: RedPredictor(hang)
core._patience = lambda settings: HANG_SECONDS
sys.exit(cli.main())
