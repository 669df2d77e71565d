"""What the processes of a service share, seen by each of them: limits, readiness, and what they have counted."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from model import cores
from model.cores import share_of_cores, usable_cores
from service.access.rate_limits import Limits
from service.errors import Draining, NotReady, RateLimited, TooManyAtOnce
from service.observability import metrics as metrics_module
from service.observability import scrape
from service.observability.metrics import Metrics
from service.observability.scrape import GAUGES, SUMMED, Scrape, merged
from service.processes.group import Group, State
from service.processes.snapshots import Snapshots
from service.readiness import Phase, Readiness
from tests.support.patching import Patches
from tests.support.pictures import ROOT
from tests.support.serving import PATIENCE, serving

IN_TIME = 20.0  # seconds


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group(2, streams=3, archives=1)
    yield made
    made.close()


def as_process(group: Group, index: int) -> Group:
    """Go on as another process of the group, as after a fork."""
    group.enter(index, parent=0)
    return group


def test_two_processes_never_hold_the_same_place_and_the_limit_is_that_of_both(group: Group) -> None:
    taken = [as_process(group, each % 2).streams.take() for each in range(4)]
    assert taken == [0, 1, 2, None]


def test_what_a_process_held_is_free_once_it_has_ended(group: Group) -> None:
    for index in (0, 1, 1):
        as_process(group, index).streams.take()
    as_process(group, 1).accounts.of("room-1").add(5)
    as_process(group, 0).accounts.of("room-1").add(2)
    group.leave(1)
    assert [group.streams.take() for _ in range(3)] == [1, 2, None]
    assert group.accounts.of("room-1").open == 2


def limits(group: Group, index: int) -> Limits:
    return Limits(1 / 3600, 2, as_process(group, index).accounts)


def test_a_token_spends_its_rate_in_all_processes_together(group: Group) -> None:
    limits(group, 0).of("room-1").take()
    with pytest.raises(RateLimited):
        limits(group, 1).of("room-1").take()
    limits(group, 1).of("room-2").take()


def test_a_token_has_as_much_open_in_all_processes_together_as_it_may(group: Group) -> None:
    first, second = limits(group, 0).of("room-1"), limits(group, 1).of("room-1")
    with first.place(), second.place(), pytest.raises(TooManyAtOnce):
        first.place().__enter__()
    with first.place():
        pass


def readiness(group: Group, index: int) -> Readiness:
    return Readiness(asyncio.Event(), lambda: True, as_process(group, index))


def test_a_service_is_ready_once_all_processes_are_and_as_long_as_one_is(group: Group) -> None:
    first = readiness(group, 0)
    first.enter(Phase.SERVING)
    with pytest.raises(NotReady, match="1 of 2 processes have warmed up"):
        first.check_service()
    second = readiness(group, 1)
    second.enter(Phase.SERVING)
    assert second.check_service() == {"processes": 2, "ready": 2}
    second.dead.set()
    assert second.check_service() == {"processes": 2, "ready": 1}
    group.leave(0)
    with pytest.raises(NotReady, match="none of the 2 processes"):
        second.check_service()


async def test_while_processes_start_all_of_rest_says_the_same(group: Group, patched: Patches) -> None:
    async with serving() as it:
        patched(it.service.readiness, "_group", as_process(group, 0))

        async def said() -> list[object]:
            paths = ("/readyz", "/v2/health/ready", "/v2/models/pranet/ready")
            (model,) = (await it.rest.post("/v2/repository/index")).json()
            return [*[(await it.rest.get(path)).status_code for path in paths], model["state"]]

        it.service.readiness.tell()
        assert await said() == [503, 503, 503, "UNAVAILABLE"]  # this process is ready, the other one is not
        as_process(group, 1).become(State.READY)
        as_process(group, 0)
        assert await said() == [200, 200, 200, "READY"]


def test_all_processes_say_at_once_that_the_service_drains(group: Group) -> None:
    both = [readiness(group, index) for index in (0, 1)]
    for index, each in enumerate(both):
        as_process(group, index)
        each.enter(Phase.SERVING)
    group.drain()
    for each in both:
        with pytest.raises(Draining):
            each.check_service()


def test_one_process_announces_the_service_once(group: Group) -> None:
    said = []
    for index in (0, 1, 0, 1):
        as_process(group, index).become(State.READY)
        said.append(group.may_announce())
    assert said == [False, True, False, False]


def test_there_is_a_rule_for_each_gauge() -> None:
    gauges = {family.name for family in Metrics().registry.collect() if family.type not in SUMMED}
    assert gauges == set(GAUGES)


def gauge(name: str, value: float) -> Metric:
    family = Metric(name, "", "gauge")
    family.add_sample(name, {}, value)
    return family


def test_waiting_frames_add_up_and_of_states_the_worst_counts() -> None:
    queue, tokens = "pranet_queue_depth", "pranet_tokens_current"
    found = merged([gauge(queue, 2.0), gauge(tokens, 1.0)], [gauge(queue, 3.0), gauge(tokens, 0.0)])
    assert [family.samples[0].value for family in found] == [5.0, 0.0]


def counted(families: list[Metric], name: str) -> float:
    return sum(sample.value for family in families for sample in family.samples if sample.name == name)


async def test_a_scrape_keeps_what_ended_processes_counted_and_says_which_does_not_answer(group: Group) -> None:
    metrics = [Metrics() for _ in range(3)]
    scrapes = []
    for index in (0, 1):
        as_process(group, index).become(State.READY)
        metrics[index].decodes.inc(10 + index)
        metrics[index].in_flight.set(1 + index)
        scrapes.append(Scrape(metrics[index], group))
    with scrapes[1].answering():  # the file of the second process keeps its numbers at the end of the block
        pass
    as_process(group, 0)
    group.leave(1)
    dead = await scrapes[0].families()
    assert (counted(dead, "pranet_decodes_total"), counted(dead, "pranet_in_flight")) == (21, 1)
    assert {s.labels["process"]: s.value for f in dead for s in f.samples if s.name == "pranet_process_up"} == {
        "0": 1,
        "1": 0,
    }
    metrics[2].decodes.inc(5)
    group.replaced()
    replaced = Scrape(metrics[2], as_process(group, 1))
    with replaced.answering():
        pass
    as_process(group, 0)
    both = await scrapes[0].families()
    assert counted(both, "pranet_decodes_total") == 26
    assert counted(both, "pranet_process_replacements_total") == 1


def beside(loop: asyncio.AbstractEventLoop, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, which first waits for a turn of the loop."""

    def waits(*arguments: Any) -> Any:
        turn = threading.Event()
        loop.call_soon_threadsafe(turn.set)
        assert turn.wait(PATIENCE), "the loop stands still meanwhile"
        return function(*arguments)

    return waits


async def test_the_loop_goes_on_while_the_metrics_of_all_processes_are_merged_and_written(patched: Patches) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.closing(Group(8, streams=3, archives=1)) as group:
        for index in range(1, 8):
            metrics = Metrics()
            metrics.decodes.inc(index)
            with Scrape(metrics, as_process(group, index)).answering():  # its numbers are kept at the end of the block
                pass
        as_process(group, 0)
        async with serving() as it:
            patched(it.service.scrape, "_group", group)
            patched(scrape, "_counted", beside(loop, scrape._counted))
            patched(metrics_module, "choose_encoder", beside(loop, metrics_module.choose_encoder))
            text = (await it.rest.get("/metrics")).text
    assert "\npranet_decodes_total 28.0\n" in text


async def test_the_others_are_asked_for_new_numbers_and_who_is_silent_is_named() -> None:
    snapshots = Snapshots(3)
    with snapshots.answering(1, lambda: b"new"), snapshots.answering(0, lambda: b""):
        assert await snapshots.ask(0, [1, 2], seconds=0.5) == {1}
        assert (snapshots.read(1), snapshots.read(2)) == (b"new", b"")
    snapshots.close()


async def test_who_asks_and_leaves_before_the_answers_leaves_no_task_behind() -> None:
    snapshots, before = Snapshots(2), asyncio.all_tasks()
    asking = asyncio.create_task(snapshots.ask(0, [1], IN_TIME))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    snapshots.close()


def test_a_text_is_replaced_wholly_whatever_its_length() -> None:
    snapshots = Snapshots(1)
    for text in (b"a" * 100_000, b"b", b"", b"c" * 200_000):
        snapshots.write(0, text)
        assert snapshots.read(0) == text
    snapshots.close()


HALTING = """
import os, signal, sys
from service.processes.snapshots import Snapshots

class Halting(bytes):
    def __getitem__(self, part):
        os.kill(os.getpid(), signal.SIGSTOP)
        return bytes(self)[part]

snapshots = Snapshots(2)
snapshots._files = [int(each) for each in sys.argv[1:]]
snapshots.write(1, Halting(b"new"))
"""


def test_a_process_that_is_stopped_while_it_writes_holds_up_nobody_who_reads() -> None:
    snapshots = Snapshots(2)
    snapshots.write(1, b"old")
    command = [sys.executable, "-c", HALTING, *map(str, snapshots._files)]
    with ThreadPoolExecutor() as pool, subprocess.Popen(command, pass_fds=snapshots._files, cwd=ROOT) as writer:
        try:
            assert os.WIFSTOPPED(os.waitpid(writer.pid, os.WUNTRACED)[1])
            assert pool.submit(snapshots.read, 1).result(IN_TIME) == b"old"
        finally:
            writer.kill()
    snapshots.close()


KEEPING = """
import os, signal, sys
from service.processes.memory import Memory

memory = Memory(1)
memory._locks = int(sys.argv[1])
with memory.locked():
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_that_is_stopped_while_it_holds_a_lock_holds_up_no_other(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    locks = group.memory._locks
    assert locks is not None
    with (
        ThreadPoolExecutor() as pool,
        subprocess.Popen([sys.executable, "-c", KEEPING, str(locks)], pass_fds=[locks], cwd=ROOT) as other,
    ):
        try:
            assert os.WIFSTOPPED(os.waitpid(other.pid, os.WUNTRACED)[1])
            assert [pool.submit(group.streams.take).result(IN_TIME) for _ in range(4)] == [0, 1, 2, None]
        finally:
            other.kill()
    assert len([each for each in caplog.records if "keeps a lock" in each.getMessage()]) == 1


def test_only_the_parent_is_woken_while_it_lives(group: Group) -> None:
    group.enter(0, parent=os.getpid())  # no parent of this process: the signal would end it
    group.become(State.READY)
    assert group.state(0) is State.READY


def test_the_cores_are_shared_out_and_each_process_has_one() -> None:
    assert [share_of_cores(index, 2, {0, 1, 2, 3, 5}) for index in (0, 1)] == [{0, 1}, {2, 3, 5}]
    assert [share_of_cores(index, 3, {4, 6}) for index in (0, 1, 2)] == [{4}, {6}, {4}]


def test_two_threads_of_one_core_go_to_the_same_process(patched: Patches) -> None:
    """Linux often numbers the second threads of all cores after the first ones."""
    patched(cores, "_place", lambda thread: (0, thread % 4, thread))
    assert [share_of_cores(index, 2, range(8)) for index in (0, 1)] == [{0, 4, 1, 5}, {2, 6, 3, 7}]


def test_a_quota_is_shared_out_too(tmp_path: Path) -> None:
    quota, groups = tmp_path / "cpu.max", {"own": tmp_path / "own", "mounted": tmp_path}
    groups["own"].write_text("0::/\n")
    quota.write_text("100000 100000")  # one core, whatever the affinity
    assert usable_cores(processes=2, **groups) == 1
    quota.write_text("max 100000")
    assert usable_cores(processes=2, **groups) == usable_cores(**groups)


async def test_what_serves_without_a_parent_is_alone_whatever_the_setting_says() -> None:
    async with serving(processes=2, max_queue_size=3) as it:
        assert (await it.rest.get("/readyz")).json() == {"status": "ready"}
