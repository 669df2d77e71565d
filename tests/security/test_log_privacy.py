"""What came with a request stays out of the logs, at their most talkative, whatever became of it."""

import base64
import json
from pathlib import Path

import grpc
import pytest
from PIL.PngImagePlugin import PngInfo
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from pranet_client.credentials import Access
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pb.pranet.v1 import segmentation_pb2_grpc as pb_grpc
from service.commands import main as cli
from service.rest.websocket_messages import LENGTH
from tests.support import processes
from tests.support.pictures import encoded, red_box

pytestmark = pytest.mark.slow

NAME = "anna-muster-1961"
MARK = b"pixels-of-anna"
WRONG = "pranet_wrong-token-of-anna"


def picture() -> bytes:
    """Return a good picture that has the mark in it."""
    text = PngInfo()
    text.add_text("Patient", MARK.decode())
    return encoded(red_box(64, 48, (8, 8, 40, 40)), pnginfo=text)


PICTURES = {"good": picture(), "damaged": picture()[:90], "no picture": MARK * 9, "empty": b""}


async def over_rest(url: str, access: Access) -> None:
    async with access.http(url) as client:
        for content in PICTURES.values():
            await client.post("/segment", files={"file": (f"{NAME}.png", content)})
            await client.post("/segment", content=content, params={"name": NAME, "access_token": access.token or ""})
            await client.post("/segment", content=content, headers={"content-disposition": f"filename={NAME}"})
            await client.put(f"/segment/{NAME}.png", content=content)
            await client.get(f"/v2/models/{NAME}")


async def over_grpc(address: str, access: Access) -> None:
    async with access.channel(address) as channel:
        stub = pb_grpc.SegmentationServiceStub(channel)
        for content in PICTURES.values():
            try:
                await stub.Segment(pb.SegmentRequest(image=content), metadata=(*access.metadata(), ("file", NAME)))
            except grpc.aio.AioRpcError:
                continue


def message(head: dict[str, object], content: bytes = b"") -> bytes:
    text = json.dumps(head).encode()
    return LENGTH.pack(len(text)) + text + content


async def over_websocket(url: str, access: Access) -> None:
    # Neither is as it should be: that is told, and the stream closed.
    for wrong in (json.dumps({"file": NAME, "token": access.token}), message({"frame_id": 9, NAME: access.token})):
        await over_one_websocket(url, access, wrong)


async def over_one_websocket(url: str, access: Access, wrong: str | bytes) -> None:
    offered = [Subprotocol("pranet.v1"), Subprotocol(f"pranet.bearer.{access.token}")]
    address = f"{url.replace('http', 'ws')}/stream?file={NAME}"
    try:
        async with connect(address, subprotocols=offered, proxy=None) as opened:
            await opened.send(json.dumps({"policy": "every"}))
            for number, content in enumerate(PICTURES.values()):
                await opened.send(message({"frame_id": number}, content))
                await opened.recv()
            await opened.send(wrong)
            await opened.recv()
    except InvalidStatus:
        return


async def test_no_log_line_holds_a_picture_a_file_name_or_a_token(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, log = tmp_path / "tokens", tmp_path / "log"
    assert cli.main(["tokens", "add", "room-1", "--api-tokens-file", str(tokens)]) == 0
    right = capsys.readouterr().out.strip()
    given = ("--log-level", "debug", "--api-tokens-file", tokens)
    with log.open("w") as stderr, processes.server(*given, stderr=stderr) as server:
        for token in (right, WRONG):
            await over_rest(server.url, Access(token))
            await over_grpc(server.grpc_address, Access(token))
            await over_websocket(server.url, Access(token))
    written = log.read_text()
    assert written.count("Segment") >= len(PICTURES), "nothing was logged, so nothing was looked at"
    secrets = [NAME, right, WRONG, MARK.decode(), MARK.hex(), base64.b64encode(MARK).decode()[:-2]]
    assert [secret for secret in secrets if secret in written] == []
