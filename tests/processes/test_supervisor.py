"""The parent of several processes, whatever becomes of these."""

import contextlib
import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from service.processes import supervisor as module
from service.processes.group import LOADING, Group, State
from service.processes.supervisor import HUNG_LOOKS, LOAD_SECONDS, MOST_SECONDS, SUSPECT_LOOKS, Supervisor
from tests.support.patching import Patches
from tests.support.pictures import ROOT

ENDS = 2000  # of a process in a row, over more than a day
IN_TIME = 20.0  # seconds


@pytest.fixture
def group() -> Iterator[Group]:
    made = Group(2, streams=2, archives=2)
    for index in (1, 0):
        made.memory.owner = index
        made.become(State.READY)
    yield made
    made.close()


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def beat(group: Group, index: int) -> None:
    group.memory.owner = index
    group.become(State.READY)


def test_a_process_that_always_ends_is_tried_again_every_minute_for_ever(group: Group) -> None:
    watching = Supervisor(group, 0.0)
    watching._began[1] = time.monotonic()
    waits = []
    for _ in range(ENDS):
        watching._replace(1, 4711, 2)
        waits.append(watching._due[1] - time.monotonic())
    assert waits[0] == pytest.approx(1, abs=0.5)
    assert waits[-1] == pytest.approx(MOST_SECONDS, abs=0.5)


def test_a_process_that_cannot_be_forked_is_tried_again(group: Group, patched: Patches) -> None:
    def no_memory() -> int:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    watching = Supervisor(group, 0.0)
    watching._due[1] = 0.0
    patched(module.os, "fork", no_memory)
    assert not watching._fork(1)
    assert watching._due[1] > time.monotonic()
    assert group.replacements == 0


def test_a_process_without_a_sign_of_life_counts_as_not_ready_and_is_killed_later(
    group: Group, child: "subprocess.Popen[bytes]"
) -> None:
    watching = Supervisor(group, 0.0)
    watching._running[child.pid] = 1
    watching._look(0.0)
    for look in range(1, SUSPECT_LOOKS):
        watching._look(float(look))
    assert group.ready == 2
    watching._look(float(SUSPECT_LOOKS))
    assert group.ready == 1
    beat(group, 1)  # it was busy only
    assert group.ready == 2
    for _ in range(HUNG_LOOKS):
        watching._look(0.0)
    assert child.poll() is None
    watching._look(0.0)
    assert child.wait(IN_TIME) == -signal.SIGKILL


def test_a_process_that_gives_signs_of_life_is_left_alone(group: Group, child: "subprocess.Popen[bytes]") -> None:
    watching = Supervisor(group, 0.0)
    watching._running[child.pid] = 1
    for _ in range(3 * HUNG_LOOKS):
        watching._look(0.0)
        beat(group, 1)
    assert child.poll() is None
    assert group.ready == 2


@pytest.mark.parametrize(("seconds", "code"), [(LOAD_SECONDS - 1, None), (LOAD_SECONDS + 1, -signal.SIGKILL)])
def test_a_replacement_that_never_loads_is_killed(
    seconds: float, code: int | None, group: Group, child: "subprocess.Popen[bytes]"
) -> None:
    group.leave(1)
    watching = Supervisor(group, 0.0)
    watching._running[child.pid] = 1
    watching._began[1] = 100.0
    watching._look(100.0 + seconds)
    if code is None:
        assert child.poll() is None
    else:
        assert child.wait(IN_TIME) == code


def test_a_process_that_ends_by_the_signal_before_it_serves_does_not_count(
    group: Group, child: "subprocess.Popen[bytes]"
) -> None:
    watching = Supervisor(group, 0.0)
    watching._running[child.pid] = 1
    watching._stop()
    until(lambda: not watching._reap() and not watching._running)
    assert watching.code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_warm_up_is_the_exit_code_whatever_each_process_exits_with(
    number: signal.Signals,
) -> None:
    group = Group(2, streams=2, archives=2)
    watching = Supervisor(group, 0.0)
    warming = f"trap 'exit {128 + signal.SIGTERM}' TERM; echo; while :; do sleep 0.01; done"
    with subprocess.Popen(["sh", "-c", warming], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it handles the signal from here on
        watching._running[process.pid] = 0
        watching._receive(number)
        until(lambda: not watching._reap() and not watching._running)
    group.close()
    assert watching.code == 128 + number


def test_a_terminal_that_closes_during_the_drain_does_not_postpone_the_kill(group: Group, patched: Patches) -> None:
    patched(module.os, "isatty", lambda _: False)
    watching = Supervisor(group, 0.0)
    watching._had_terminal = True
    watching._receive(signal.SIGHUP)
    kill_at = watching._kill_at
    assert kill_at < math.inf
    watching._receive(signal.SIGHUP)
    assert watching._kill_at == kill_at


@pytest.mark.parametrize(("started", "code"), [(False, 128 + signal.SIGTERM), (True, 0)])
def test_a_signal_before_all_processes_have_been_ready_is_the_exit_code(started: bool, code: int) -> None:
    with contextlib.closing(Group(2, streams=2, archives=2)) as group:
        for index in range(2 if started else 1):
            beat(group, index)
        watching = Supervisor(group, 0.0)
        watching._receive(signal.SIGTERM)
        assert watching.code == code


def test_a_terminal_that_closes_before_all_processes_have_been_ready_is_the_exit_code(patched: Patches) -> None:
    patched(module.os, "isatty", lambda _: False)
    with contextlib.closing(Group(2, streams=2, archives=2)) as group:
        watching = Supervisor(group, 0.0)
        watching._had_terminal = True
        watching._receive(signal.SIGHUP)
        assert watching.code == 128 + signal.SIGHUP


def test_no_process_starts_once_all_have_been_told_to_end(group: Group) -> None:
    watching = Supervisor(group, 0.0)
    watching._began[0] = 0.0
    watching._stop()
    watching._receive(signal.SIGUSR1)
    assert watching._due == {}


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + IN_TIME
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


WAITING = """
import sys, threading, time
from service.processes.group import LOADING
from service.processes.memory import Memory

memory = Memory(1)
memory._locks = int(sys.argv[1])

def wait():
    with memory.locked_long(LOADING):
        pass

with memory.locked():
    threading.Thread(target=wait).start()
    time.sleep(0.3)
    print("waits", flush=True)
    time.sleep(1)
"""


def test_a_lock_that_is_held_for_long_makes_no_deadlock_of_short_ones(group: Group) -> None:
    """The kernel would refuse the short lock, since it does not tell the threads of a process apart."""
    locks = group.memory._locks
    assert locks is not None
    command = [sys.executable, "-c", WAITING, str(locks)]
    with contextlib.ExitStack() as stack:
        stack.enter_context(group.memory.locked_long(LOADING))
        with subprocess.Popen(command, pass_fds=[locks], stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "waits\n"
            with group.memory.locked():  # the other process still holds it
                pass
            stack.close()
    assert other.returncode == 0
