"""``pranet serve``: starts the service and both servers in order, and shuts them down in reverse order."""

import argparse
import asyncio
import contextlib
import errno
import functools
import gc
import logging
import os
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator

import uvloop

from model.cores import share_of_cores
from model.engines.predictor import Predictor
from model.errors import UserError
from service import SAMPLES
from service.access.listening import LOOPBACK, listener, reserved, why
from service.access.tls import of_server
from service.access.tokens import Tokens
from service.batching.device_thread import in_device_thread
from service.configuration import from_command_line
from service.drain import drain
from service.http import server as http_server
from service.memory import limit_freed_memory, trim_later
from service.observability import open_files
from service.oip import rpc as oip
from service.processes.group import LOADING, Group
from service.processes.supervisor import CANNOT_START, supervise
from service.readiness import INFERENCE_DEAD, Phase, Readiness
from service.rest import routes
from service.rpc import server as rpc
from service.runtime import Service, group_of, load_predictor, running, warm_up
from service.settings import Settings, flag, variable
from service.signals import reload_on_sighup, stop_at_end_of, stop_on_signals
from service.tasks import Threads, until_first_ends

RENEW_SECONDS = 30.0  # for the disk of the certificate to answer
SAMPLE = SAMPLES / "polyp-1.jpg"

log = logging.getLogger(__name__)


class StartError(UserError):
    """The service cannot start; the message says what to change."""


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then drain and exit the process; this function does not return.

    With several processes, this one only watches them.

    The exit code is 0 if every accepted request was answered whose client did its part, 1 if some were not, and
    ``INFERENCE_DEAD`` if the device stopped answering.

    Raises:
        SettingsError: a setting is unknown or invalid.
        TokensError: the tokens file cannot be used; no port was opened.
        CheckpointError: the weights cannot be used; no port was opened.
        TlsError: the certificate or its key cannot be used; no port was opened.
        DeviceError: the device is not available; no port was opened.
        StartError: a port is taken, or the network cannot run on the device.

    """
    settings = from_command_line(arguments)
    _check(settings)
    group, alive = group_of(settings, settings.processes), None
    if settings.processes > 1:
        kept, settings = _reserved(settings)
        alive = supervise(group, settings.drain_seconds)  # returns in each process of the group
        for each in kept:
            each.close()  # the parent keeps them
        # A process that moves between cores takes a tenth more processor time for a frame.
        os.sched_setaffinity(0, share_of_cores(group.index, settings.processes, os.sched_getaffinity(0)))
    limit_freed_memory()
    try:
        code = uvloop.run(_serve(settings, group, alive))
    except KeyboardInterrupt:  # during the start
        code = 128 + signal.SIGINT
    except UserError as error:
        if alive is None or not group.started:
            raise
        log.error("this process cannot take the place of another: %s", error)
        code = CANNOT_START
    logging.shutdown()
    # A normal interpreter exit would wait for a hung device thread, or crash when that thread returns during the exit.
    os._exit(code)


def _check(settings: Settings) -> None:
    """Find what is wrong with tokens, certificates and ports before the weights are loaded, which takes seconds."""
    if settings.api_tokens_file:
        Tokens(settings.api_tokens_file)
    if files := of_server(settings):
        files.check()
    with _bound(settings.host, settings.port, "port"), _bound(settings.host, settings.grpc_port, "grpc_port"):
        pass
    if not settings.api_tokens_file and settings.host not in LOOPBACK:
        log.warning(
            "whoever reaches %s may send requests, since no token is needed; see docs/security.md", settings.host
        )


def _reserved(settings: Settings) -> tuple[list[socket.socket], Settings]:
    """Keep both ports for the processes to come; return what keeps them, and the settings with their numbers."""
    with (
        _bound(settings.host, settings.port, "port") as rest,
        _bound(settings.host, settings.grpc_port, "grpc_port") as rpc,
    ):
        kept = [reserved(rest), reserved(rpc)]
    port, grpc_port = (each.getsockname()[1] for each in kept)
    return kept, settings.model_copy(update={"port": port, "grpc_port": grpc_port})


async def _serve(settings: Settings, group: Group, alive: int | None) -> int:
    """Serve in this process; ``alive`` is a file that ends when the parent does, if there is one."""
    asyncio.get_running_loop().set_default_executor(Threads())
    stop, reload = asyncio.Event(), asyncio.Event()
    readiness: Readiness | None = None

    def starts() -> bool:
        return readiness is None or readiness.phase is Phase.STARTING

    reload_on_sighup(stop, reload, starts=starts)
    if alive is not None:
        stop_at_end_of(alive, stop)
    load = functools.partial(_loaded, settings, group)
    predictor = await asyncio.to_thread(load)
    async with running(settings, predictor, load=load, group=group) as service:
        readiness = service.readiness
        if group.started:  # connections to this replacement would have to wait, while others can answer
            await _warmed_up(service, predictor)
        async with listening(service) as ports:
            stop_on_signals(stop, watched=alive is not None, starts=starts)
            serving = _serve_and_reload(service, predictor, ports, reload)
            del predictor  # otherwise this reference would keep it in memory after a hot reload
            await until_first_ends(serving, stop.wait(), readiness.dead.wait(), open_files.watch())
            code = await drain(service)
            return INFERENCE_DEAD if readiness.dead.is_set() else code


async def _serve_and_reload(
    service: Service, predictor: Predictor, ports: tuple[int, int], reload: asyncio.Event
) -> None:
    """Warm up, announce the service, and then reload certificate and weights each time ``reload`` is set."""
    if service.readiness.phase is Phase.STARTING:
        await _warmed_up(service, predictor)
    del predictor
    if service.readiness.dead.is_set():
        return
    gc.collect()
    gc.freeze()  # these objects stay alive; a full collection over them took 90 ms and delayed all answers
    if service.group.may_announce():
        _announce(service, *ports)
    while True:
        await reload.wait()
        reload.clear()  # a request that arrives during this reload triggers another one
        await _reload(service)


async def _reload(service: Service) -> None:
    """Take new certificates and weights; files that cannot be used, or that a disk does not give, change nothing."""
    if service.tls is not None:
        try:
            async with asyncio.timeout(RENEW_SECONDS):
                await in_device_thread(service.tls.renew)
        except TimeoutError:
            service.tls.current = False
            log.error("the new certificate cannot be read within %g s, so the old one stays in use", RENEW_SECONDS)
    await service.model_slot.reload()
    trim_later()


async def _warmed_up(service: Service, predictor: Predictor) -> None:
    """Warm up; afterwards the service accepts work, or its inference counts as dead.

    Raises:
        StartError: the network cannot run on the device.

    """
    try:
        await warm_up(service, predictor)
    except TimeoutError:
        log.error("%s did not finish the warm-up in time; the service stops", service.model.device)
        service.readiness.dead.set()
    except Exception as error:
        advice = f"choose another device or a smaller batch: {flag('device')}, {flag('max_batch_size')}"
        raise StartError(f"the network cannot run on {service.model.device} ({error}); {advice}") from error


@contextlib.asynccontextmanager
async def listening(service: Service) -> AsyncIterator[tuple[int, int]]:
    """Serve REST and gRPC inside the block; yield both port numbers, REST first.

    Raises:
        StartError: a port is taken, or the host is not an address of this machine.

    """
    host, grpc_port, shared = service.settings.host, service.settings.grpc_port, service.group.size > 1
    address = f"[{host}]" if ":" in host else host
    async with contextlib.AsyncExitStack() as stack:
        listener = stack.enter_context(_bound(host, service.settings.port, "port", shared=shared))
        if not shared:  # a listener beside those of the other processes would get connections, and lose them
            with _bound(host, grpc_port, "grpc_port"):
                pass  # the port is free; gRPC's own error has several lines and does not name the cause
        try:
            grpc_port = await stack.enter_async_context(
                rpc.listening(service, f"{address}:{grpc_port}", {oip.SERVICE_NAME: oip.add_to})
            )
        except OSError as error:  # another program took the port in the meantime
            raise StartError(f"{error}; choose another port: {flag('grpc_port')}") from error
        await stack.enter_async_context(http_server.listening(routes.build(service), service, listener))
        yield listener.getsockname()[1], grpc_port


def _bound(host: str, port: int, name: str, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens on the port; ``name`` is the port's setting, for the error message."""
    try:
        return listener(host, port, shared=shared)
    except OSError as error:
        reason = why(error)
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            choice = f"port {port} of {host} cannot be opened ({reason}); choose another: "
        else:
            choice = f"{host} cannot be listened on ({reason}); choose an address of this machine, or 0.0.0.0 for all: "
            name = "host"
        raise StartError(f"{choice}{flag(name)}, or {variable(name)}") from error


def _loaded(settings: Settings, group: Group) -> Predictor:
    """Load the weights, in one process of the group at a time: the others then find what it put into the cache."""
    with group.memory.locked_long(LOADING):
        return load_predictor(settings)


def _announce(service: Service, port: int, grpc_port: int) -> None:
    host = "127.0.0.1" if service.settings.host in ("0.0.0.0", "::") else service.settings.host
    url = f"{'https' if service.settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
    ref = service.model
    ready = f"{url} (gRPC {grpc_port}), {ref.model_id} on {ref.device}, {ref.engine} {ref.precision}"
    ready += f", {service.group.size} processes" * (service.group.size > 1)
    tls_cert = service.settings.tls_cert
    access = f" --cacert {shlex.quote(str(tls_cert))}" * bool(tls_cert)
    access += " -H 'Authorization: Bearer TOKEN'" * bool(service.settings.api_tokens_file)
    sample = shlex.quote(str(SAMPLE))
    if service.settings.log_format == "json":  # for programs, which would not understand the lines below
        log.info("ready: %s", ready)
        return
    _print(
        f"\nPraNet is ready: {ready}\n"
        f"  curl{access} -H 'Content-Type: image/jpeg' --data-binary @{sample} {url}/segment -o mask.png\n"
        f"  documentation: {url}/docs\n\n"
    )


def _print(text: str) -> None:
    """Write to standard output without buffering; a full disk or a closed pipe does not stop the service."""
    if sys.stdout is not None:
        with contextlib.suppress(OSError):
            os.write(sys.stdout.fileno(), text.encode())
