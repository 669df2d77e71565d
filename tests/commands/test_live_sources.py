"""Sources on a network that stall, end and come back."""

import contextlib
import logging
import math
import socket
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from model.errors import SourceError
from service.commands.main import main
from service.commands.video import live, source
from service.commands.video.decoding import TimedPicture
from service.commands.video.live import Live, shown
from service.commands.video.source import Source, paced
from tests.support import videos
from tests.support.patching import Patches
from tests.support.predictors import PATIENCE

FRAMES = 25


@pytest.fixture
def transport_stream(tmp_path: Path) -> bytes:
    shades = [Image.new("RGB", (64, 48), (10 * number, 0, 0)) for number in range(FRAMES)]
    return videos.write(tmp_path / "sent.ts", shades).read_bytes()


@contextlib.contextmanager
def sender(*connections: bytes, close: bool) -> Iterator[str]:
    """Send bytes to one client after another; then end the connection, or keep it open and silent."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                for data in connections:
                    connection, _ = listener.accept()
                    connection.sendall(data)
                    if close:
                        connection.close()
                    else:
                        held.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://doctor:secret@127.0.0.1:{listener.getsockname()[1]}/video"
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
    for connection in held:
        connection.close()
    thread.join(PATIENCE)


@pytest.mark.parametrize(("close", "what"), [(True, "stopped sending frames"), (False, "sent nothing for 2 s")])
def test_a_source_that_stops_is_connected_again(
    close: bool, what: str, transport_stream: bytes, patched: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    patched(live, "SILENT_SECONDS", 2.0)
    with sender(*[transport_stream] * 10, close=close) as address:
        source = Live(address, raw=True, until=monotonic() + PATIENCE)
        taken = list(islice(source.pictures(), 2 * FRAMES - 4))  # of a silent connection, the decoder keeps the last
        source.close()
    assert len(taken) == 2 * FRAMES - 4
    assert what in caplog.text
    assert "connecting again" in caplog.text
    assert "secret" not in caplog.text


def test_a_source_that_does_not_come_back_ends_the_stream_when_its_time_is_over(transport_stream: bytes) -> None:
    with sender(transport_stream, close=True) as address:
        source = Live(address, raw=True, until=monotonic())
        with pytest.raises(SourceError, match=r"stopped sending frames; check the address") as raised:
            list(source.pictures())
    assert "secret" not in str(raised.value)


def test_a_source_that_is_silent_from_the_start_is_said_to_be(
    patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(live, "SILENT_SECONDS", 2.0)
    with sender(b"", close=False) as address:
        assert main(["stream", address]) == 2
    said = capsys.readouterr().err
    assert "/video sent nothing for 2 s; check the address, the camera and the network" in said
    assert "secret" not in said


def test_a_refused_connection_does_not_show_the_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "rtsp://doctor:secret@127.0.0.1:1/x"]) == 2
    assert capsys.readouterr().err == (
        "pranet: rtsp://127.0.0.1:1/x cannot be read as video: Connection refused; "
        "check the address, the camera and the network\n"
    )


def test_a_source_that_waits_can_be_closed(transport_stream: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with sender(transport_stream, close=True) as address:
        source = Live(address, raw=True, until=math.inf)
        reading = threading.Thread(target=lambda: list(source.pictures()))
        reading.start()
        source.close()
        reading.join(PATIENCE)
        assert not reading.is_alive()


def test_an_address_without_its_beginning_does_not_show_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stream", "doctor:secret@127.0.0.1:1/x"]) == 2
    told = capsys.readouterr().err
    assert "127.0.0.1:1/x does not exist" in told
    assert "secret" not in told


@pytest.mark.parametrize("number", ["-1", "0", "nan", "inf", "true"])
@pytest.mark.parametrize("flag", ["--fps", "--seconds"])
def test_a_rate_or_time_that_is_none_is_refused(flag: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["stream", "demo:", flag, number])
    assert ended.value.code == 2
    assert f"argument {flag}: " in capsys.readouterr().err


def test_of_a_camera_no_more_frames_are_sent_than_wanted(patched: Patches) -> None:
    now = 0.0

    def pictures() -> Iterator[TimedPicture]:
        nonlocal now
        for number in (*range(30), *range(300, 330)):  # it pauses for 9 s
            now = number / 29.99
            yield TimedPicture(b"", None)

    patched(source, "time", SimpleNamespace(monotonic=lambda: now))
    camera: Any = object()
    sent = list(paced(Source(pictures(), 30, live=camera), 15, None, hold=True))
    assert [each.frame_id for each in sent] == list(range(30))
    assert [round(30 * each.captured) for each in sent] == [*range(0, 30, 2), *range(300, 330, 2)]


def test_a_video_in_a_folder_of_memory_is_no_camera(tmp_path: Path, patched: Patches) -> None:
    film = videos.write(tmp_path / "film.mp4", [Image.new("RGB", (64, 48))])
    patched(source, "CAMERAS", f"{tmp_path}/video")
    assert not source.open_source(str(film)).live


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://doctor:secret@camera:554/room/1", "rtsp://camera:554/room/1"),
        ("rtsp://camera/user=doctor&password=secret&channel=1", "rtsp://camera/"),
        ("http://camera/video?token=secret", "http://camera/video"),
        ("rtsp://doctor:sec/r?e#t[@camera/room/1", "rtsp://camera/room/1"),
        ("rtsp://doctor:p@secret@camera/", "rtsp://camera/"),
        ("rtsp://camera", "rtsp://camera"),
        ("/dev/video0", "/dev/video0"),
    ],
)
def test_an_address_is_shown_without_its_secrets(address: str, expected: str) -> None:
    assert shown(address) == expected
