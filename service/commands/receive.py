"""``pranet receive``: a DICOM node that segments what it receives, and stores the Segmentations in a PACS."""

import argparse
import asyncio
import contextlib
import functools
import logging
import os
import re
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

import uvloop
from prometheus_client import start_http_server

from model.errors import UserError
from service.access.tls import of_server
from service.batching.batcher import MOST_HANG_SECONDS
from service.commands.access import access_to_pacs
from service.configuration import from_command_line
from service.dicom.wanted import Wanted
from service.frames.frame import Options
from service.observability import open_files
from service.pacs.metrics import NodeMetrics
from service.pacs.node import Node
from service.pacs.receiver import Receiver, ReceiverError
from service.pacs.spool import Spool, why
from service.pacs.stow import Pacs
from service.readiness import INFERENCE_DEAD, Phase
from service.runtime import load_predictor, running
from service.settings import Settings
from service.signals import stop_on_signals
from service.tasks import Threads, until_first_ends

LONGEST_TITLE, TITLE = 16, re.compile(r"[ -\[\]-~]*")  # characters: printable ASCII but the backslash (PS3.5, 6.2)
SWEEP_SECONDS = 10.0
FAILED = 1
END_SECONDS = 5.0  # for the disk of the spool to answer at the end

T = TypeVar("T")

log = logging.getLogger(__name__)


class TitleError(UserError):
    """An AE title breaks the rules of DICOM."""


def run(arguments: argparse.Namespace) -> int:
    """Receive, segment and store until SIGTERM or SIGINT; what is not done then is done after the next start.

    The process exits here: with 0, or with ``INFERENCE_DEAD`` if the device stopped answering. A second signal, and a
    signal during the start, end it at once, with its number and 128. A fault of the program ends it with 1.

    Raises:
        SettingsError: a setting is unknown or invalid.
        TitleError: an AE title is too long or empty.
        AccessError: the token cannot be read.
        AddressError: the address of the PACS cannot be used.
        SpoolError: the spool cannot be used.
        ReceiverError: the port cannot be opened.
        TlsError: the certificate or its key cannot be used.
        CheckpointError: the weights cannot be used.
        DeviceError: the device is not available.

    """
    settings = from_command_line(arguments)
    for title in (arguments.ae_title, *arguments.caller):
        if not 0 < len(title.strip()) <= LONGEST_TITLE or not TITLE.fullmatch(title):
            raise TitleError(f"{title!r} is no AE title; give 1 to {LONGEST_TITLE} ASCII characters, none of them \\")
    threading.excepthook = _failed_thread
    try:
        code = uvloop.run(_receive(arguments, settings))
    except KeyboardInterrupt:  # during the start
        code = 128 + signal.SIGINT
    except ExceptionGroup:  # a fault of the program: what a user can mend is found before the tasks begin
        log.exception("pranet receive has failed; the spool keeps what is not done")
        code = FAILED
    logging.shutdown()
    os._exit(code)  # a normal exit would wait for a hung thread


async def _receive(arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.get_running_loop().set_default_executor(Threads())
    with contextlib.closing(Spool(arguments.spool)) as spool:
        async with (
            Pacs(arguments.stow_url, *access_to_pacs(arguments)) as pacs,
            running(
                settings, await asyncio.to_thread(load_predictor, settings), hang_seconds=MOST_HANG_SECONDS
            ) as service,
        ):
            service.readiness.enter(Phase.SERVING)  # the first objects wait for a slow first inference
            options = Options(settings.threshold, roi=arguments.roi)
            wanted = Wanted(arguments.segmentation_type, arguments.omit_empty)
            metrics = NodeMetrics(service.metrics.registry, spool)
            node = Node(service, spool, pacs, options, wanted, metrics)
            stop = asyncio.Event()
            stop_on_signals(stop, watched=False)  # until now, a signal ends the start at once
            working = _work(node, arguments)
            await until_first_ends(working, stop.wait(), service.readiness.dead.wait(), open_files.watch())
            if service.readiness.dead.is_set():
                log.error("the device has stopped answering; the spool keeps what is not segmented")
                return INFERENCE_DEAD
            left = await _unless_the_disk_fails(_left, spool)
            log.info("stopped; objects in the spool: %s", left or "unknown, its disk cannot be read")
            return 0


def _left(spool: Spool) -> str:
    return ", ".join(f"{place} {count()}" for place, count in spool.counts().items())


async def _unless_the_disk_fails(function: Callable[..., T], *args: object) -> T | None:
    """Run a function in a thread; return None if the disk that it needs has an error, or after ``END_SECONDS``."""
    with contextlib.suppress(OSError):  # a TimeoutError, too
        async with asyncio.timeout(END_SECONDS):
            return await asyncio.to_thread(function, *args)
    return None


async def _work(node: Node, arguments: argparse.Namespace) -> None:
    settings, arrived = node.service.settings, asyncio.Event()
    files, loop = of_server(settings), asyncio.get_running_loop()
    receiver = Receiver(
        node.spool,
        lambda: loop.call_soon_threadsafe(arrived.set),
        ae_title=arguments.ae_title,
        callers=arguments.caller,
        max_bytes=settings.max_archive_bytes,
        max_pixels=settings.max_image_pixels,
        metrics=node.metrics,
    )
    port = receiver.listen(settings.host, arguments.dicom_port, _without_waiting(files.context()) if files else None)
    log.info("ready: %s on port %d of %s, Segmentations go to %s",
             arguments.ae_title, port, settings.host, node.pacs.url)  # fmt: skip
    try:
        with _metrics_served(node, arguments.metrics_port):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(node.run(arrived))
                tasks.create_task(_sweep(receiver, node.spool))
    finally:
        await _unless_the_disk_fails(receiver.stop)


def _without_waiting(tls: ssl.SSLContext) -> ssl.SSLContext:
    """Let the thread of each connection make its handshake: the one that accepts them would wait for a silent peer."""
    tls.wrap_socket = functools.partial(tls.wrap_socket, do_handshake_on_connect=False)  # type: ignore[method-assign]
    return tls


async def _sweep(receiver: Receiver, spool: Spool) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            await asyncio.to_thread(receiver.sweep)
        except OSError as error:
            log.error("%s; next attempt in %g s", why(error, spool.path), SWEEP_SECONDS)


def _failed_thread(failure: threading.ExceptHookArgs) -> None:
    log.error("a thread of the DICOM port ended: %s", failure.exc_value)


@contextlib.contextmanager
def _metrics_served(node: Node, port: int | None) -> Iterator[None]:
    """Serve the metrics at ``/metrics`` of a port inside the block.

    Raises:
        ReceiverError: the port cannot be opened.

    """
    if port is None:
        yield
        return
    host, registry = node.service.settings.host, node.service.metrics.registry
    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        raise ReceiverError(
            f"port {port} of {host} cannot be opened ({error.strerror}); choose another --metrics-port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
