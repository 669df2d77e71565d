"""Every call, also to what is added later, is let in, timed, counted and logged in one place."""

import asyncio
import gc
import logging
import weakref
from pathlib import Path

import grpc
import httpx
import pytest
from fastapi import FastAPI

from service.calls import Call, current
from service.errors import DeadlineExceeded
from service.http.middleware import REST
from service.rest import routes
from service.rpc.interceptor import CallInterceptor
from tests.support.pictures import ROOT
from tests.support.serving import PATIENCE, Running, serving

SOURCES = [path for path in (ROOT / "service").rglob("*.py") if "pb" not in path.parts]


async def fast() -> dict[str, str]:
    return {"id": current().request_id}


async def stuck() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise ArithmeticError("nobody's fault")


def with_routes(it: Running) -> httpx.AsyncClient:
    """Return a client of the application with routes that it does not have today."""
    app: FastAPI = routes.build(it.service)
    for route in (fast, stuck, broken):
        app.post(f"/{route.__name__}")(route)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pranet")


async def test_a_route_that_is_added_gets_its_metrics_and_its_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "pranet.access")
    async with serving() as it, with_routes(it) as rest:
        answer = await rest.post("/fast", headers={"x-request-id": "case-7"})
        assert (answer.json(), answer.headers["x-request-id"]) == ({"id": "case-7"}, "case-7")
        assert it.metric("pranet_requests_total", {"transport": "rest", "code": "200"}) == 1
        assert it.metric("pranet_request_duration_seconds_count", {"transport": "rest"}) == 1
    assert "rest POST /fast 200" in caplog.text


async def test_a_route_that_is_added_gets_its_deadline() -> None:
    async with serving() as it, with_routes(it) as rest:
        answer = await rest.post("/stuck", headers={"x-request-timeout-ms": "50"})
        assert (answer.status_code, answer.json()["type"]) == (504, "urn:pranet:error:deadline-exceeded")
        assert it.metric("pranet_rejected_total", {"reason": "deadline-exceeded"}) == 1


async def test_a_route_that_is_added_is_refused_until_the_service_is_ready_and_without_a_token(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    async with serving(until_ready=False) as it, with_routes(it) as rest:
        it.service.readiness.dead.set()
        assert (await rest.post("/fast")).status_code == 503
    async with serving(api_tokens_file=tmp_path / "tokens") as it, with_routes(it) as rest:
        assert (await rest.post("/fast")).status_code == 401


async def test_a_call_whose_time_has_just_run_out_can_be_cut_off_too() -> None:
    late, done = asyncio.Event(), asyncio.Event()

    async def served(it: Running) -> None:
        async with it.service.calls.enter(Call(transport=REST, name="POST /segment", headers={}, timeout=0.01)):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                late.set()
                await done.wait()  # its answer is still on the way
                raise

    async with serving() as it:
        call = asyncio.create_task(served(it))
        async with asyncio.timeout(PATIENCE):
            await late.wait()
            (left,) = it.service.calls.unanswered.values()
            left.cut_off()
            done.set()
            with pytest.raises(DeadlineExceeded):
                await call


def test_nothing_is_left_of_a_call_without_a_garbage_collection() -> None:
    async def ended() -> weakref.ref[Call]:
        async with serving() as it:
            return await asyncio.create_task(served(it))

    async def served(it: Running) -> weakref.ref[Call]:
        async with it.service.calls.enter(Call(transport=REST, name="POST /segment", headers={})) as call:
            return weakref.ref(call)

    gc.disable()
    try:
        call = asyncio.run(ended())  # the timers of a loop hold the call for a while
        assert call() is None
    finally:
        gc.enable()


async def test_a_fault_of_a_route_that_is_added_is_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as it, with_routes(it) as rest:
        answer = await rest.post("/broken")
        assert (answer.status_code, answer.json()["type"]) == (500, "urn:pranet:error:internal")
        assert it.metric("pranet_rejected_total", {"reason": "internal"}) == 1
    assert caplog.text.count("ArithmeticError: nobody") == 1


async def test_a_grpc_method_that_is_added_gets_its_deadline_and_metrics() -> None:
    async def answer(request: bytes, context: object) -> bytes:
        await asyncio.sleep(float(request.decode()))
        return current().request_id.encode()

    async with serving(request_timeout_ms=50) as it:
        server = grpc.aio.server(interceptors=[CallInterceptor(it.service.calls, message_seconds=5, message_bytes=99)])
        methods = {"Added": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("later.Service", methods),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                call = channel.unary_unary("/later.Service/Added")
                assert await call(b"0", metadata=[("x-request-id", "case-7")]) == b"case-7"
                with pytest.raises(grpc.aio.AioRpcError) as late:
                    await call(b"20")
        finally:
            await server.stop(None)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert it.metric("pranet_requests_total", {"transport": "grpc", "code": "OK"}) == 1
        assert it.metric("pranet_requests_total", {"transport": "grpc", "code": "DEADLINE_EXCEEDED"}) == 1


async def test_a_call_whose_client_left_is_counted_as_that() -> None:
    async with serving() as it:
        entered = asyncio.Event()

        async def serve() -> None:
            async with it.service.calls.enter(Call(transport=REST, name="POST /segment", headers={})):
                entered.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(serve())
        await entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert it.metric("pranet_requests_total", {"transport": "rest", "code": "499"}) == 1
        assert it.metric("pranet_rejected_total", {"reason": "client-left"}) == 1


@pytest.mark.parametrize(
    ("written", "home"),
    [
        ("rejected.labels", "observability/metrics.py"),
        ("requests.labels", "calls.py"),
        ("request_duration.labels", "calls.py"),
        ("pranet.access", "calls.py"),
    ],
)
def test_refusals_requests_and_the_access_log_are_written_in_one_place(written: str, home: str) -> None:
    places = {path for path in SOURCES if written in path.read_text()}
    assert places == {ROOT / "service" / home}


def test_every_error_class_that_a_call_can_end_with_has_a_code_for_each_transport() -> None:
    from service import errors
    from service.rest.websocket import STREAM
    from service.rpc.call import UNARY

    for error in errors.ServiceError.__subclasses__():
        for transport in (REST, STREAM, UNARY):
            code = transport.code(error)
            assert isinstance(transport.number(code), int), (transport.name, error)
