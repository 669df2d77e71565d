"""What libtiff, the library below Pillow, prints about damaged files."""

import ctypes
from pathlib import Path

MAPS = Path("/proc/self/maps")  # of the files that are loaded (proc_pid_maps(5))


def silence_libtiff() -> None:
    """Keep libtiff from writing lines of its own to standard error; Pillow raises an error in any case.

    A small file can cause thousands of them, and they would break a log that is read by a program.
    """
    from PIL import _imaging  # noqa: F401 - loads the library

    if MAPS.exists():
        for path in {line.split(maxsplit=5)[-1] for line in MAPS.read_text().splitlines() if "/libtiff" in line}:
            ctypes.CDLL(path).TIFFSetErrorHandler(None)
