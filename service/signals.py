"""What signals mean, and the end of the parent: a process that serves drains, exits or reloads; other commands end."""

import asyncio
import logging
import os
import signal
import threading
import time
from collections.abc import Callable

AGAIN_SECONDS = 1.0  # after a signal, from when on another one is meant as such
ENDING = (signal.SIGTERM, signal.SIGHUP)  # as of an orchestrator, and of a terminal that closes

log = logging.getLogger(__name__)


def stop_at_end_of(alive: int, stop: asyncio.Event) -> None:
    """Drain when the parent has ended, however it did."""
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(alive)
        log.error("the parent of this process has ended, draining")
        stop.set()

    loop.add_reader(alive, end)


def stop_on_signals(stop: asyncio.Event, *, watched: bool, starts: Callable[[], bool] = lambda: False) -> None:
    """Drain at the first SIGTERM or SIGINT; exit at once at the second, unless a parent decides about that.

    A supervisor may send signals to the parent and to this process, to which the parent passes them on, too. While the
    service still ``starts``, it has accepted nothing that is to be answered, and the first signal ends it.
    """

    def receive(number: signal.Signals) -> None:
        if starts() or (stop.is_set() and not watched):
            os._exit(128 + number)
        if not stop.is_set():
            log.info("%s received, draining", number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM,) if watched else (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, receive, number)


def reload_on_sighup(stop: asyncio.Event, reload: asyncio.Event, *, starts: Callable[[], bool]) -> None:
    """Reload certificate and weights on SIGHUP; end instead if SIGHUP came because the terminal was closed.

    It then drains, but exits at once while the service still ``starts``.
    """
    had_terminal = os.isatty(0)

    def receive() -> None:
        if had_terminal and not os.isatty(0):
            if starts():
                os._exit(128 + signal.SIGHUP)
            log.info("the terminal was closed, draining")
            stop.set()
        else:
            reload.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, receive)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # ``main`` has blocked it


class EndingSignals:
    """What signals do to a command: the first one ends it as Ctrl-C does, and it completes what it writes.

    That may hang with its disk, so a later SIGTERM ends the process at once. Terminals and ``timeout`` send a second
    signal with the first. Signals that nohup holds back do nothing.
    """

    def __init__(self) -> None:
        self.first: tuple[signal.Signals, ...] = ()  # one, once it has come
        self._again = 0.0  # from when on another one counts, time.monotonic(), seconds
        self._taken = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]

    def end_this_task(self) -> None:
        """Let signals end the task that runs; only the main thread gets signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        for number in self._taken:
            loop.add_signal_handler(number, self._receive, number, task.cancel)

    def outlive_the_loop(self) -> None:
        """Go on handling signals while the command completes what it writes; uvloop would drop them."""
        if threading.current_thread() is threading.main_thread():
            for number in self._taken:
                signal.signal(number, lambda number, _: self._receive(signal.Signals(number)))

    def _receive(self, number: signal.Signals, end: Callable[[], object] = lambda: None) -> None:
        if not self.first:
            self.first, self._again = (number,), time.monotonic() + AGAIN_SECONDS
            end()
        elif number is signal.SIGTERM and time.monotonic() > self._again:
            os._exit(128 + number)
