"""The parent of the processes of a service: it forks them, passes signals on, and replaces those that end.

It has no event loop and no threads of its own, and it never uses gRPC: gRPC and the engines must not be in use when a
process forks. What it has imported, its children share.
"""

import gc
import logging
import math
import os
import signal
import time

from service.processes.group import Group, State

CANNOT_START = 2  # exit code of a process that has told why it cannot start
WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)
LOOK_SECONDS = 5.0  # between two looks for signs of life, which a process gives every second
SUSPECT_LOOKS = 3  # without one, after which a process counts as not ready
HUNG_LOOKS = 12  # after which it is killed
LOAD_SECONDS = 600.0  # for a replacement to load its weights and warm up; the slowest device needs a small part of it
STEADY_SECONDS = 60.0  # a process that ends later than this is replaced at once
MOST_SECONDS = 60.0  # between two replacements of a process
END_SECONDS = 8.0  # after the drain, for a process to send its last errors and spans; then it is killed
MOST_ENDS = 7  # that are counted: from then on MOST_SECONDS is the wait

log = logging.getLogger(__name__)


def supervise(group: Group, drain_seconds: float) -> int:
    """Fork the processes of a group and watch them.

    Args:
        group: what the processes share.
        drain_seconds: how long a process that is to end may drain; it is killed ``END_SECONDS`` later.

    Returns:
        In each forked process: a file that ends when the parent does. The parent itself exits, with 0 if all processes
        do that run when it is stopped, else with the largest of their exit codes. One that was replaced does not count.
        If a signal stops it before all have been ready, it exits with 128 + the number of the signal.

    """
    alive, held = os.pipe()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    gc.collect()
    gc.freeze()  # a collection would write to these objects, whose pages are shared
    supervisor = Supervisor(group, drain_seconds)
    index = supervisor.run()
    if index is None:
        logging.shutdown()
        os._exit(supervisor.code)
    os.close(held)
    group.enter(index, parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes on what it means
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent may be the first process of a container, and handle it
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return alive


class Supervisor:
    """Starts the first process, and the others once it is ready: they find the converted network in the cache."""

    def __init__(self, group: Group, drain_seconds: float) -> None:
        self.code = 0
        self._group = group
        self._patience = drain_seconds + END_SECONDS
        self._running: dict[int, int] = {}  # process id -> index
        self._began: dict[int, float] = {}  # index -> start, seconds
        self._seen: dict[int, tuple[int, int]] = {}  # index -> signs of life, and looks at which there were no more
        self._looked = 0.0  # seconds
        self._due = {0: 0.0}  # index -> when to start, seconds
        self._ends = dict.fromkeys(range(group.size), 0)  # index -> ends in a row, each soon after the start
        self._stopping = False
        self._kill_at = math.inf  # seconds, what is left once all have been told to end
        self._had_terminal = os.isatty(0)

    def run(self) -> int | None:
        """Watch the processes until all have ended; in each of them, return its index at once."""
        while self._running or self._due:
            now = time.monotonic()
            if now - self._looked >= LOOK_SECONDS:
                self._look(now)
            if now >= self._kill_at:
                self._kill_what_is_left()
            for index in [each for each, moment in self._due.items() if moment <= now]:
                if self._fork(index):
                    return index
            until = min([self._looked + LOOK_SECONDS, self._kill_at, *self._due.values()])
            received = signal.sigtimedwait(WATCHED, max(0.0, until - now))
            if received is not None:
                self._receive(signal.Signals(received.si_signo))
        return None

    def _fork(self, index: int) -> bool:
        """Start a process; return True in it."""
        del self._due[index]
        try:
            process = os.fork()
        except OSError as error:  # no memory, or too many processes
            log.error("process %d cannot start (%s); another try in %g s", index, error.strerror, MOST_SECONDS)
            self._due[index] = time.monotonic() + MOST_SECONDS
            return False
        if not process:
            return True
        if index in self._began:
            self._group.replaced()
        self._began[index] = time.monotonic()
        self._running[process] = index
        return False

    def _look(self, now: float) -> None:
        """Look for signs of life since the last look; kill a process that has given none for long, or never loads.

        Looks are counted, not seconds: where the whole machine stood still, nobody has given any.
        """
        self._looked = now
        if self._stopping or not self._group.started:
            return
        for process, index in self._running.items():
            beats, (known, looks) = self._group.beats(index), self._seen.get(index, (-1, 0))
            looks = 0 if beats != known else looks + 1
            self._seen[index] = beats, looks
            if self._group.state(index) is State.ABSENT:
                hangs, why = now - self._began[index] > LOAD_SECONDS, f"is not ready after {LOAD_SECONDS:g} s"
            else:
                hangs, why = looks >= HUNG_LOOKS, "hangs"
                if looks == SUSPECT_LOOKS:
                    self._group.suspect(index)
            if hangs:
                log.error("process %d (pid %d) %s; it is killed", index, process, why)
                os.kill(process, signal.SIGKILL)

    def _receive(self, number: signal.Signals) -> None:
        if number is signal.SIGCHLD:
            self._reap()
        elif number is signal.SIGUSR1:
            if not self._stopping and len(self._began) == 1 and self._group.state(0) is State.READY:
                self._due = dict.fromkeys(range(1, self._group.size), 0.0)
        elif number is signal.SIGHUP:
            self._reload_or_stop()
        elif self._stopping:
            self._pass_on(signal.SIGKILL)
            os._exit(128 + number)
        else:
            log.info("%s received, draining", number.name)
            self._end_start(number)
            self._stop()

    def _reload_or_stop(self) -> None:
        if self._stopping:  # another stop would postpone the kill
            return
        if self._had_terminal and not os.isatty(0):
            log.info("the terminal was closed, draining")
            self._end_start(signal.SIGHUP)
            self._stop()
        else:
            self._pass_on(signal.SIGHUP)

    def _end_start(self, number: signal.Signals) -> None:
        """Note the exit code of a signal that comes before all processes have been ready."""
        if not self._group.started:
            self.code = 128 + number

    def _stop(self) -> None:
        self._stopping = True
        self._kill_at = time.monotonic() + self._patience
        self._due.clear()
        self._group.drain()
        self._pass_on(signal.SIGTERM)

    def _kill_what_is_left(self) -> None:
        self._kill_at = math.inf
        for process, index in self._running.items():
            log.error("process %d (pid %d) has not ended after %g s; it is killed", index, process, self._patience)
        self._pass_on(signal.SIGKILL)

    def _pass_on(self, number: signal.Signals) -> None:
        for process in self._running:
            os.kill(process, number)  # it exists until it is reaped

    def _reap(self) -> None:
        while self._running:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            if (index := self._running.pop(process, None)) is not None:
                code = os.waitstatus_to_exitcode(status)
                if self._stopping and code in (-signal.SIGTERM, 128 + signal.SIGTERM, 128 + signal.SIGHUP):
                    code = 0  # it had not begun to serve
                self._ended(index, process, code if code >= 0 else 128 - code)

    def _ended(self, index: int, process: int, code: int) -> None:
        self._group.leave(index)
        if self._stopping:
            self.code = max(self.code, code)
        elif self._running and self._group.started:
            self._replace(index, process, code)
        else:
            self._log_failure(index, process, code)
            self.code = code
            self._stop()

    def _log_failure(self, index: int, process: int, code: int) -> None:
        if self._group.started:
            log.error("process %d (pid %d) ended with %d; no process is left", index, process, code)
        elif code != CANNOT_START:
            log.error("process %d (pid %d) ended with %d; the start has failed, and all end", index, process, code)

    def _replace(self, index: int, process: int, code: int) -> None:
        steady = time.monotonic() - self._began[index] >= STEADY_SECONDS
        self._ends[index] = 0 if steady else min(self._ends[index] + 1, MOST_ENDS)
        wait = 0.0 if steady else min(2.0 ** (self._ends[index] - 1), MOST_SECONDS)
        log.error("process %d (pid %d) ended with %d; another one starts in %g s", index, process, code, wait)
        self._due[index] = time.monotonic() + wait
