"""What happens to the service while it is loaded: files are renewed, and inference fails or hangs."""

import asyncio
import contextlib
import signal
import ssl
import time
from collections.abc import Callable

import httpx

from pranet_client.credentials import Access
from tools.endurance.book import Tally
from tools.endurance.clients import calls
from tools.endurance.life import Life

RELOAD_SECONDS = 120.0  # for new weights to be in use, on a busy machine
GRACE_SECONDS = 10.0  # for requests under way with a token that is about to be removed
LOOK_SECONDS = 1.0

Current = Callable[[], Life | None]


async def renew(life: Life, tally: Tally) -> None:
    """Replace weights, certificate and token, and check that each is in use, and the earlier token is not."""
    site = life.site
    old, number = site.access, site.numbers
    site.access = await asyncio.to_thread(site.new_token)
    life.retired = set()
    await asyncio.to_thread(site.swap_weights)
    site.renew_certificate()
    life.send_signal(signal.SIGHUP)
    life.swaps += 1
    if await _reloaded(life):
        life.retired = {site.model_ids[1]}
        await _check_certificate(life)
    await asyncio.sleep(GRACE_SECONDS)
    await asyncio.to_thread(site.remove_token, number)
    if not life.over.is_set():
        life.start(calls.sent(_with_removed(old), life, tally))
    tally.add("renewals of weights, certificate and token", "done" if not life.ending else "overtaken by an end")


async def _reloaded(life: Life) -> bool:
    until = time.monotonic() + RELOAD_SECONDS
    while not life.over.is_set() and not life.ending:
        with contextlib.suppress(httpx.HTTPError):
            gauges = (await life.look()).gauges
            if gauges["reloads refused"]:
                life.breaks("new weights are refused")
                return False
            if gauges["reloads taken"] >= life.swaps * life.processes:
                return True
        if time.monotonic() > until:
            life.breaks(f"new weights are not in use after {RELOAD_SECONDS:.0f} s")
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return False


async def _check_certificate(life: Life) -> None:
    """Compare the certificates of a new connection to each port with the file."""
    expected = life.site.certificate.read_text().partition("-----END CERTIFICATE-----")[0].split()
    for address in (life.server.url.removeprefix("https://"), life.server.grpc_address):
        host, _, port = address.rpartition(":")
        with contextlib.suppress(OSError):
            got = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)), timeout=60)
            if got.partition("-----END CERTIFICATE-----")[0].split() != expected and not life.ending:
                life.breaks(f"a new connection to {address} gets an earlier certificate")


def _with_removed(access: Access) -> calls.Kind:
    async def ask(life: Life) -> calls.Reply:
        headers = dict(access.metadata())
        return calls.of_http(await life.rest.post("/segment", content=next(calls.PICTURES), headers=headers))

    return calls.Kind("REST, removed token", "rest", ask, expected=frozenset({"unauthenticated"}))


async def renew_regularly(current: Current, tally: Tally, period: float) -> None:
    """Renew everything every ``period`` seconds, until cancelled."""
    while True:
        await asyncio.sleep(period)
        if (life := current()) and not life.over.is_set() and not life.ending:
            await life.start(renew(life, tally)).wait()


async def fault_regularly(current: Current, tally: Tally, how: str, period: float) -> None:
    """Send a picture on which inference fails or hangs every ``period`` seconds, until cancelled."""
    number = 0
    while True:
        await asyncio.sleep(period)
        if (life := current()) and not life.over.is_set():
            life.faults[how] += 1
            life.start(calls.sent(calls.faults()[how][number % 2], life, tally))
            number += 1
