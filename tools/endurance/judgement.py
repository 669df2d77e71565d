"""What one life of the process has promised: its counters, its exit code, its log, and what it left open."""

import asyncio
import itertools
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence

from tools.endurance.balance import uncertain, unexplained
from tools.endurance.life import Life
from tools.endurance.resources import held

RECORD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?P<level>[A-Z]+) +(?P<text>.*)")
INJECTED = "inference failed on a single frame: RuntimeError: injected"
GIVEN_UP = "inference failed on a single frame: no answer within"
HANGS = "inference hangs; its thread is abandoned"
ORPHAN = "the parent of this process has ended, draining"
CODES = {"SIGTERM": 0, "SIGKILL": -signal.SIGKILL}
CLOSING_SECONDS = 40.0  # for the sockets of clients that left; a peer that reads nothing is disconnected after 30 s


def judge(life: Life) -> Counter[str]:
    """Add the broken promises of a life that has ended; return what its last scrape cannot tell, by what it is."""
    if life.code != CODES.get(life.ending):
        life.breaks(f"the process ended with {life.code} after {life.ending or 'nothing'}")
    for line in of_log(life.log.read_text(), life.faults):
        life.breaks(line)
    if life.scrape is None:
        life.breaks("its counters could not be read")
        return Counter()
    entries = life.book.seen_by(life.scrape.began, life.scrape.ended)
    for line in unexplained(entries, life.scrape.counts):
        life.breaks(line)
    return uncertain(entries)


def of_log(text: str, faults: Counter[str]) -> list[str]:
    """Return what a log holds that the injected faults do not explain."""
    broken, found = [], Counter[str]()
    for is_record, group in itertools.groupby(text.splitlines(), key=lambda line: bool(RECORD.match(line))):
        lines = list(group)
        if not is_record:
            broken.append(f"the log has lines without a level, which end with: {lines[-1][:300]}")
            continue
        for line in lines:
            broken += _of_record(line, found)
    most = {INJECTED: faults["fails"], GIVEN_UP: faults["hangs"], HANGS: 2 * faults["hangs"], ORPHAN: faults["orphans"]}
    broken += [
        f"the log says {found[each]} times, of at most {number} injected: {each}"
        for each, number in most.items()
        if found[each] > number
    ]
    return broken


def _of_record(line: str, found: Counter[str]) -> list[str]:
    """Count the injected faults that a record tells of; return it if it is an error that was not injected."""
    record = RECORD.match(line)
    if record is None or record["level"] not in ("ERROR", "CRITICAL"):
        return []
    expected = [each for each in (INJECTED, GIVEN_UP, HANGS, ORPHAN) if each in line]
    found.update(expected)
    return [] if expected else [f"the log has an error: {record['text'][:300]}"]


async def at_rest(life: Life) -> None:
    """Scrape a life that gets no new calls once all have ended: now nothing is uncertain."""
    await life.last_calls()
    await asyncio.sleep(max(0.0, _settled(life) - time.monotonic()))
    scrape = await life.look()
    open_ones = {"frames of streams": scrape.open_frames} | {
        name: scrape.gauges[name] for name in ("pranet_in_flight", "pranet_queue_depth", "pranet_streams_active")
    }
    for name, number in open_ones.items():
        if number:
            life.breaks(f"{number:.0f} {name} when all clients are answered")


def _settled(life: Life) -> float:
    return max((entry.ended for entry in life.book.entries), default=0.0) + 2.0


async def left_open(life: Life) -> None:
    """Close the clients, and compare what the process holds with what it held before they came."""
    await life.rest.aclose()
    await life.channel.close()
    until = time.monotonic() + CLOSING_SECONDS
    while (now := held(life.server.process.pid)).sockets > life.idle.sockets and time.monotonic() < until:  # noqa: ASYNC110
        await asyncio.sleep(1)
    if now.sockets > life.idle.sockets:
        life.breaks(f"{now.sockets} sockets are open after the clients left, {life.idle.sockets} before they came")
    before, after = (_outside(str(life.site.cache), each.files) for each in (life.idle, now))
    if len(after) > len(before):
        more = Counter(after) - Counter(before)
        life.breaks(f"files are open after the clients left that were not before they came: {', '.join(more)}")
    if kept := life.site.temporary_files():
        life.breaks(f"{kept} temporary files are left")


def _outside(folder: str, files: Sequence[str]) -> list[str]:
    """Leave out the network in the cache, which is open only if the process did not convert it itself."""
    return [file for file in files if not file.startswith(folder)]
