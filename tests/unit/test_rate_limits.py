"""What one caller may ask for: the arithmetic, by a clock that stands still until it is told."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from pranet_client.credentials import Access
from service.access.rate_limits import Allowance
from service.access.tokens import Token, digest_of
from service.errors import RateLimited, TooManyAtOnce
from tests.support.callers import TRANSPORTS, Ask, grpc_unary, rest
from tests.support.patching import Patches
from tests.support.predictors import GatedPredictor
from tests.support.serving import serving, until


class Clock:
    """Stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_allows_a_second_at_once_and_then_as_time_passes() -> None:
    clock = Clock()
    allowance = Allowance(rate=4, clock=clock)
    for _ in range(4):
        allowance.take()
    with pytest.raises(RateLimited) as refused:
        allowance.take()
    assert refused.value.retry_after == 1
    clock.now += 0.25
    allowance.take()
    with pytest.raises(RateLimited):
        allowance.take()
    clock.now += 3600
    for _ in range(4):  # an hour's silence saves up no more than a second's
        allowance.take()
    with pytest.raises(RateLimited):
        allowance.take()


def test_the_age_of_the_machine_costs_no_request_by_rounding() -> None:
    clock = Clock()
    clock.now = 123_456_789.123
    allowance = Allowance(rate=7, clock=clock)
    for _ in range(7):
        allowance.take()


def test_a_slow_rate_says_how_long_to_wait() -> None:
    clock = Clock()
    allowance = Allowance(rate=0.1, clock=clock)
    allowance.take()
    clock.now += 3.5
    with pytest.raises(RateLimited) as refused:
        allowance.take()
    assert refused.value.retry_after == 7


async def test_who_is_patient_waits_for_the_next_one(patched: Patches) -> None:
    clock, slept = Clock(), []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds

    patched(asyncio, "sleep", sleep)
    allowance = Allowance(rate=4, clock=clock)
    for _ in range(6):
        await allowance.wait()
    assert slept == [0.25, 0.25]


def test_a_place_is_given_back_whatever_happens() -> None:
    allowance = Allowance(places=1)
    with contextlib.suppress(KeyError), allowance.place():
        raise KeyError
    with allowance.place(), pytest.raises(TooManyAtOnce):
        allowance.place().__enter__()
    with allowance.place():
        pass


@pytest.mark.parametrize("ask", TRANSPORTS, ids=lambda ask: ask.__name__)
async def test_a_token_may_have_so_many_open_and_no_more_over_all_transports_together(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text("\n".join(Token(name, digest_of(name)).line() for name in ("one", "other")))
    predictor = GatedPredictor()
    async with serving(predictor, api_tokens_file=path, token_concurrency=2) as it:
        busy = [asyncio.create_task(first(it, Access("one"))) for first in (rest, grpc_unary)]
        await until(lambda: it.metric("pranet_in_flight") == 2)
        assert await ask(it, Access("one")) == "too-many-at-once"
        predictor.open()
        assert await asyncio.gather(*busy) == ["ok", "ok"]
        assert [await ask(it, Access(name)) for name in ("one", "other")] == ["ok", "ok"]
