"""Values of flags, as argparse takes them; its error messages name these functions."""

import argparse
import math
from typing import TypeVar

LAST_PORT = 65_535

Number = TypeVar("Number", int, float)


def number(text: str) -> float:
    """Parse a finite number above 0.

    Raises:
        ArgumentTypeError: it is none.
        ValueError: the text is no number.

    """
    return _above_0(float(text))


def numbers(text: str) -> list[float]:
    """Parse numbers above 0 between commas; raises as ``number`` does."""
    return [_above_0(float(part)) for part in text.split(",")]


def whole_numbers(text: str) -> list[int]:
    """Parse whole numbers above 0 between commas; raises as ``number`` does."""
    return [_above_0(int(part)) for part in text.split(",")]


def port(text: str) -> int:
    """Parse the number of a port to listen on; 0 takes a free one.

    Raises:
        ArgumentTypeError: it is none.

    """
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"{text} is no port; give a number from 0 to {LAST_PORT}")
    return int(text)


def _above_0(value: Number) -> Number:
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{value} should be a finite number above 0")
    return value


numbers.__name__, whole_numbers.__name__ = "list of numbers", "list of whole numbers"
