"""Runs ``pranet serve`` of a checkout in front of an engine that costs nothing, for ``pranet bench overhead``.

The benchmark starts this file in a process of its own, with the checkout, the number of cores and the flags of
``serve``. It imports nothing of this project at the top, since the checkout may be an earlier one.
"""

import argparse
import importlib
import os
import sys
from typing import Any

SIDE = 352  # pixels of the network's input and output


class FreeEngine:
    """Answers the same disc for every frame."""

    slots = 1

    def __init__(self, model: Any) -> None:
        import numpy as np

        rows, columns = np.ogrid[:SIDE, :SIDE]
        self.model = model
        self._logits = (60 - np.hypot(rows - SIDE / 2, columns - SIDE / 2)).astype(np.float32) / 8

    def warm_up(self, max_batch_size: int) -> None:
        """Do nothing: the first call is as fast as the others."""

    def predict(self, frames: Any) -> Any:
        """Map (N, 3, 352, 352) to read-only logits of the disc, float32 (N, 352, 352)."""
        import numpy as np

        return np.broadcast_to(self._logits, (len(frames), SIDE, SIDE))


def main() -> None:
    """Serve ``CHECKOUT`` on the first ``CORES`` cores that this process may use."""
    checkout, cores, *flags = sys.argv[1:]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    sys.path[:0] = [checkout, os.path.join(checkout, "client")]
    app: Any = importlib.import_module("service.app")  # of the checkout
    if not str(app.__file__).startswith(os.path.join(checkout, "")):
        sys.exit(f"{checkout} is not a checkout of this service: it has no service/app.py")
    interface = sys.modules[app.Predictor.__module__]
    model = interface.ModelRef("free-00000000", "0" * 64, "free", "cpu", "fp32")
    app.load_predictor = lambda settings: FreeEngine(model)
    parser = argparse.ArgumentParser()
    _add_settings(parser, app)
    app.run(parser.parse_args(flags))


def _add_settings(parser: argparse.ArgumentParser, app: Any) -> None:
    """Declare the settings of the checkout; earlier ones do it where they read them."""
    try:
        importlib.import_module("service.commands.flags.settings").add_settings(parser)
    except ModuleNotFoundError:
        importlib.import_module(app.from_command_line.__module__).add_flags(parser)


if __name__ == "__main__":
    main()
