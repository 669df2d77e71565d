"""What differs between the Pythons that the service runs on."""

import sqlite3
import warnings

import pytest


def test_a_database_that_highdicom_leaves_open_fails_no_test() -> None:
    """Python 3.13 and later warn where one is collected, in whichever test that happens."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    warnings.warn(f"unclosed database in {connection!r}", ResourceWarning, stacklevel=1)


def test_anything_else_left_open_fails_the_test() -> None:
    with pytest.raises(ResourceWarning, match="unclosed file"):
        warnings.warn("unclosed file <_io.FileIO name=3>", ResourceWarning, stacklevel=1)
