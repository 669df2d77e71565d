"""What tests replace must be used; else they would go on passing when the code has moved on."""

import asyncio
import json
import re
from fractions import Fraction

import pytest

from service.batching import batcher
from tests.support.patching import patching


def test_a_replaced_function_is_counted_and_put_back() -> None:
    real = json.dumps
    with patching() as patched:
        calls = patched(json, "dumps", lambda value: "replaced")
        assert json.dumps(1) == "replaced"
    assert (calls.count, json.dumps) == (1, real)


def test_a_function_that_is_only_watched_does_what_it_did() -> None:
    with patching() as patched:
        calls = patched("json", "dumps")
        assert (calls.count, json.dumps(1), calls.count) == (0, "1", 1)


def test_a_method_and_a_property_are_counted_too() -> None:
    with patching() as patched:
        method, attribute = patched(asyncio.Event, "is_set"), patched(Fraction, "numerator")
        assert not asyncio.Event().is_set()
        assert Fraction(3, 4).numerator == 3
    assert (method.count, attribute.count) == (1, 1)


def test_what_is_replaced_and_never_called_fails_the_test() -> None:
    def careless() -> None:
        with patching() as patched:
            patched(json, "dumps")
            patched(json, "loads")
            json.dumps(1)

    with pytest.raises(AssertionError, match=re.escape("never called: ['json.loads']")):
        careless()


def test_a_constant_that_no_function_reads_cannot_be_replaced() -> None:
    with patching() as patched:
        patched(batcher, "MOST_HANG_SECONDS", 1)
        with pytest.raises(AssertionError, match=re.escape("no function reads json.__author__")):
            patched(json, "__author__", "nobody")
