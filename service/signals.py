"""What signals and the end of the parent mean for a process that serves: drain, exit at once, or reload."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

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
