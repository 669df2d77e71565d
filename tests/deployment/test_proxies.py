"""The service below a path of nginx and of HAProxy, by the configurations that the documentation gives."""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from struct import pack

import grpc
import httpx
import pytest
from websockets.asyncio.client import connect

from pranet_client.async_client import AsyncClient
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.access.tokens import Token, digest_of
from service.configuration import load
from service.settings import SettingsError
from tests.support import browser
from tests.support.pictures import ROOT, encoded, mask_of, red_box
from tests.support.predictors import GatedPredictor
from tests.support.serving import PATIENCE, Running, serving, until

PICTURE = encoded(red_box(64, 48, (8, 8, 40, 40)))
COMMANDS = {  # and the file that it runs by
    "nginx": ("nginx.conf", ["nginx", "-p", ".", "-e", "error.log", "-g", "daemon off; pid nginx.pid;", "-c"]),
    "haproxy": ("haproxy.cfg", ["haproxy", "-q", "-f"]),
}
BEHIND = {"root_path": "/pranet", "trusted_proxies": "127.0.0.1"}
REFUSED = ("pranet_rejected_total", {"reason": "too-many-streams"})

pytestmark = pytest.mark.slow


@dataclass
class Proxy:
    """A running proxy; the address of the web server, and of gRPC."""

    web: str
    grpc: str


@contextlib.asynccontextmanager
async def proxied(name: str, running: Running, folder: Path, idle_seconds: int = 60) -> AsyncIterator[Proxy]:
    """Run a proxy by the project's file, with the ports of a test, and perhaps less patience with idle clients."""
    if not shutil.which(name):
        pytest.skip(f"no {name}")
    file, command = COMMANDS[name]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        web, rpc = (f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two))
    text = (ROOT / "docker" / "proxies" / file).read_text()
    ports = {"127.0.0.1:8000": f"127.0.0.1:{running.port}", "127.0.0.1:8001": f"127.0.0.1:{running.grpc_port}"}
    listen, end = ("listen ", ("", ";")) if name == "nginx" else ("bind ", (":", ""))
    ports |= {f"{listen}{end[0]}80{end[1]}": f"{listen}{web}{end[1]}", f"{listen}{end[0]}81 ": f"{listen}{rpc} "}
    for usual, here in ports.items():
        assert text.count(usual) == 1, usual
        text = text.replace(usual, here)
    if name == "nginx":
        text = text.replace("http {", f"http {{ access_log off; client_body_timeout {idle_seconds};")
    text = text.replace(" 60s", f" {idle_seconds}s")
    (folder / file).write_text(text)
    process = await asyncio.create_subprocess_exec(*command, str(folder / file), cwd=folder)
    try:
        await listening(web, rpc)
        yield Proxy(f"http://{web}/pranet/", rpc)
    finally:
        process.terminate()
        await process.wait()


async def listening(*addresses: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for address in addresses:
            host, _, port = address.rpartition(":")
            while True:
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection(host, int(port)))[1].close()
                    break
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("name", COMMANDS)
async def test_behind_a_proxy_every_interface_works_below_its_path(name: str, tmp_path: Path) -> None:
    async with serving(**BEHIND) as running, proxied(name, running, tmp_path) as proxy:
        origin = proxy.web.removesuffix("/pranet/")
        async with httpx.AsyncClient(base_url=proxy.web, trust_env=False, timeout=PATIENCE) as rest:
            from_page = await rest.post("segment", content=PICTURE, headers={"origin": origin})
            assert mask_of(from_page.raise_for_status().content).any()
            assert (await rest.post("segment", content=PICTURE, headers={"origin": "http://other"})).status_code == 403
            assert (await rest.get("v2/models/pranet")).json()["name"] == "pranet"
            assert (await rest.get("v2/models/nosuch")).json()["error"]
            assert (await rest.get("openapi.json")).json()["servers"] == [{"url": "/pranet"}]
        stream = proxy.web.replace("http", "ws") + "stream"
        async with connect(stream, origin=origin, proxy=None) as frames:
            await frames.send(json.dumps({"policy": "every"}))
            head = json.dumps({"frame_id": 1}).encode()
            await frames.send(pack("<I", len(head)) + head + PICTURE)
            assert b'"outcome": "answered"' in await frames.recv()
        async with grpc.aio.insecure_channel(proxy.grpc) as channel:
            answer = await pb_grpc.SegmentationServiceStub(channel).Segment(pb.SegmentRequest(image=PICTURE))
            assert mask_of(answer.png).any()
        assert running.metric("pranet_requests_total", {"transport": "rest", "code": "403"}) == 1


@pytest.mark.parametrize("name", COMMANDS)
async def test_behind_a_proxy_the_pages_work_below_its_path(name: str, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.async_api")
    async with serving(**BEHIND) as running, proxied(name, running, tmp_path) as proxy:
        async with browser.opened(proxy.web) as (opened, faults):
            await opened.click("[data-sample='polyp-1.jpg']")
            await playwright.expect(opened.locator("#status")).to_contain_text("Segmented in")
            await opened.click("text=API documentation")
            await playwright.expect(opened.locator("text=Segment one image")).to_be_visible()
        assert faults == []


async def test_nobody_but_a_named_proxy_is_believed() -> None:
    headers = {"origin": "http://hospital", "x-forwarded-host": "hospital"}
    for settings, status in (({}, 403), ({"trusted_proxies": "10.0.0.0/8"}, 403), (BEHIND, 200)):
        async with serving(**settings) as running:
            assert (await running.rest.post("/segment", content=PICTURE, headers=headers)).status_code == status
            twice = {**headers, "x-forwarded-host": "hospital, other"}  # the last is the named proxy's own
            assert (await running.rest.post("/segment", content=PICTURE, headers=twice)).status_code == 403


async def test_the_documentation_names_the_address_that_the_client_has_used() -> None:
    headers = {"host": "pranet", "x-forwarded-host": "hospital", "x-forwarded-proto": "https"}
    async with serving(**BEHIND) as running:
        page = (await running.rest.get("/docs", headers=headers)).text
    assert "https://hospital/pranet/segment" in page
    assert "//pranet/" not in page


@pytest.mark.parametrize("root_path", ["/pranet", "/hospital/pranet"])
async def test_the_path_without_its_last_slash_leads_to_the_page(root_path: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(Token("good", digest_of("good")).line())
    for settings in ({}, {"api_tokens_file": tokens}):
        async with serving(root_path=root_path, **settings) as running:
            answer = await running.rest.get(root_path)
            assert (answer.status_code, answer.headers["location"]) == (308, "pranet/")
            page = await running.rest.get(answer.next_request.url.path)
            assert page.headers["content-type"].startswith("text/html")
            assert page.text == (await running.rest.get("/")).text
            assert (await running.rest.get(f"{root_path}x")).status_code == (401 if settings else 404)


@pytest.mark.parametrize("client", ["203.0.113.5", "unknown"])
async def test_who_was_before_the_proxy_does_not_matter(client: str) -> None:
    headers = {"origin": "http://hospital", "x-forwarded-host": "hospital", "x-forwarded-for": client}
    async with serving(**BEHIND) as running:
        assert (await running.rest.post("/segment", content=PICTURE, headers=headers)).status_code == 200
    async with serving() as running:
        answer = await running.rest.get("/livez", headers={"x-forwarded-proto": "https", "x-forwarded-for": client})
        assert "cross-origin-opener-policy" not in answer.headers


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_stream_behind_a_proxy_may_pause(name: str, tmp_path: Path) -> None:
    async with (
        serving(**BEHIND) as running,
        proxied(name, running, tmp_path, idle_seconds=1) as proxy,
        grpc.aio.insecure_channel(proxy.grpc) as channel,
    ):
        call = pb_grpc.SegmentationServiceStub(channel).SegmentStream()
        await call.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY)))
        for number in range(2):
            await asyncio.sleep(2.5 * number)
            await call.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=number, image=PICTURE)))
            assert (await call.read()).frame_id == number
        await call.done_writing()


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_stream_that_is_refused_for_now_is_asked_for_again_behind_a_proxy(name: str, tmp_path: Path) -> None:
    async def frames() -> AsyncIterator[bytes]:
        yield PICTURE
        await asyncio.Event().wait()  # HAProxy 2.6 changes the status of most streams whose clients may still send

    async with (
        serving(max_streams=1, **BEHIND) as running,
        proxied(name, running, tmp_path) as proxy,
        AsyncClient(target=proxy.grpc) as client,
    ):
        other = running.stub.SegmentStream()
        await other.write(pb.StreamRequest(config=pb.StreamConfig(policy=pb.POLICY_EVERY)))
        await other.write(pb.StreamRequest(frame=pb.StreamFrame(frame_id=0, image=PICTURE)))
        await other.read()
        streaming = asyncio.create_task(anext(client.stream(frames(), pb.StreamConfig(policy=pb.POLICY_EVERY))))
        await until(lambda: running.metric(*REFUSED) >= 4 or streaming.done())
        await other.done_writing()
        async with asyncio.timeout(PATIENCE):
            assert (await streaming).outcome == "answered"


@pytest.mark.parametrize(("name", "version"), [("nginx", "--http1.1"), ("haproxy", "--http2-prior-knowledge")])
async def test_nothing_is_computed_for_a_client_that_left_a_proxy(name: str, version: str, tmp_path: Path) -> None:
    predictor = GatedPredictor()
    (tmp_path / "picture.png").write_bytes(PICTURE)
    async with serving(predictor, **BEHIND) as running, proxied(name, running, tmp_path) as proxy:
        command = ["curl", "-sS", version, "-H", "Content-Type: image/png", "--data-binary", "@picture.png"]
        client = await asyncio.create_subprocess_exec(*command, f"{proxy.web}segment", cwd=tmp_path)
        try:
            await predictor.has_begun()
        finally:
            client.terminate()
            await client.wait()
        await until(lambda: running.metric("pranet_rejected_total", {"reason": "client-left"}) == 1)
        predictor.open()


async def test_behind_a_named_proxy_with_tls_the_answers_are_those_of_tls() -> None:
    async with serving(**BEHIND) as running:
        answer = await running.rest.get("/pranet/livez", headers={"x-forwarded-proto": "https"})
        assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        assert "cross-origin-opener-policy" not in (await running.rest.get("/livez")).headers


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ({"PRANET_TRUSTED_PROXIES": "gateway"}, "give, for example, 10.0.0.7"),
        ({"PRANET_ROOT_PATH": "pranet/"}, "ROOT_PATH"),
    ],
)
def test_addresses_of_proxies_and_the_path_are_checked(given: dict[str, str], advice: str) -> None:
    with pytest.raises(SettingsError, match=advice):
        load(given, {})
