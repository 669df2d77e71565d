import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
from PIL import Image

from model.errors import SourceError
from model.transforms import Pixels
from pranet_client.async_client import AsyncClient
from pranet_client.client import Client
from pranet_client.connection import Reply
from pranet_client.errors import RequestFailed
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from service.commands import recording
from service.commands.main import main
from service.commands.stream_statistics import StreamStatistics
from service.commands.video.demo import sweep
from service.commands.video.source import open_source, paced
from service.commands.video.writer import VideoWriter
from service.frames.codec import decode
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, encoded, mask_of, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import PATIENCE, Running, free_port, serving

PICTURE = encoded(red_box(64, 48, (16, 12, 48, 36)))
EVERY = pb.StreamConfig(policy=pb.POLICY_EVERY)


def target(it: Running) -> str:
    return f"127.0.0.1:{it.grpc_port}"


def frame(number: int) -> VideoFrame:
    return VideoFrame(number, PICTURE, monotonic())


async def some(count: int) -> AsyncIterator[VideoFrame]:
    for number in range(count):
        yield frame(number)


async def endless() -> AsyncIterator[VideoFrame]:
    for number in itertools.count():
        yield frame(number)


async def test_a_picture_is_segmented_and_a_refusal_names_its_cause() -> None:
    async with serving() as it, AsyncClient(f"http://127.0.0.1:{it.port}") as client:
        assert mask_of(await client.render(PICTURE)).sum() == 32 * 24
        assert (await client.segment(PICTURE)).width == 64
        with pytest.raises(RequestFailed, match="image"):
            await client.segment(b"<html></html>")


async def test_a_service_that_cannot_be_reached_is_said_to_be() -> None:
    async with AsyncClient(f"http://127.0.0.1:{free_port()}") as client:
        with pytest.raises(RequestFailed, match="unreachable"):
            await client.segment(PICTURE)


def test_a_stream_to_a_server_that_is_not_there_ends_with_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], patched: Patches
) -> None:
    patched("pranet_client.reconnection", "FIRST_REPLY_SECONDS", 0.3)
    address = f"127.0.0.1:{free_port()}"
    assert main(["stream", "demo:", "--server", address]) == 2
    said = capsys.readouterr()
    assert f"no service answers at {address}; check that it runs (pranet serve)" in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


@pytest.mark.parametrize("address", ["http://127.0.0.1:{grpc_port}", "127.0.0.1:{port}"])
async def test_the_address_of_rest_is_told_from_that_of_a_stream(address: str, patched: Patches) -> None:
    patched("pranet_client.reconnection", "FIRST_REPLY_SECONDS", 0.3)
    async with (
        serving() as it,
        AsyncClient(target=address.format(grpc_port=it.grpc_port, port=it.port)) as client,
    ):
        with pytest.raises(RequestFailed, match="is not the gRPC address of a service; streams need the gRPC port"):
            await anext(client.stream(some(1), EVERY))


async def test_a_stream_that_is_refused_for_too_long_names_the_cause(patched: Patches) -> None:
    patched("pranet_client.reconnection", "FIRST_REPLY_SECONDS", 0.3)
    async with (
        serving(max_streams=1) as it,
        AsyncClient(target=target(it)) as client,
        contextlib.aclosing(client.stream(endless(), EVERY)) as first,
    ):
        await anext(first)
        with pytest.raises(RequestFailed, match="too-many-streams"):
            await anext(client.stream(some(1), EVERY))


async def test_a_server_that_goes_away_is_waited_for_no_longer_than_asked() -> None:
    port = free_port()
    async with (
        asyncio.timeout(PATIENCE),
        AsyncClient(target=f"127.0.0.1:{port}") as client,
        contextlib.aclosing(client.stream(endless(), EVERY, until=monotonic())) as replies,
    ):
        async with serving(grpc_port=port):
            await anext(replies)
        with pytest.raises(RequestFailed, match=r"unreachable|draining"):
            async for _ in replies:
                pass


async def test_every_streamed_frame_has_its_reply_in_order() -> None:
    async with serving() as it, AsyncClient(target=target(it)) as client:
        replies = [reply async for reply in client.stream(some(12), EVERY)]
        assert [reply.frame.frame_id for reply in replies] == list(range(12))
        assert {reply.outcome for reply in replies} == {"answered"}


async def test_a_refused_stream_is_not_tried_again() -> None:
    async with serving() as it, AsyncClient(target=target(it)) as client:
        with pytest.raises(RequestFailed, match="invalid-parameter"):
            async for _ in client.stream(some(3), pb.StreamConfig(roi="full", threshold=7)):
                pass


async def test_a_source_that_fails_raises_after_the_frames_before_it_are_answered() -> None:
    async def failing() -> AsyncIterator[VideoFrame]:
        yield frame(0)
        raise SourceError("the camera was unplugged")

    seen: list[Reply] = []

    async def run(client: AsyncClient) -> None:
        async for reply in client.stream(failing(), EVERY):
            seen.append(reply)

    async with serving() as it, AsyncClient(target=target(it)) as client:
        with pytest.raises(SourceError):
            await run(client)
        assert len(seen) == 1


@pytest.mark.parametrize(("policy", "lost"), [(pb.POLICY_EVERY, False), (pb.POLICY_LATEST, True)])
async def test_a_client_reconnects_and_sends_again_or_counts_as_lost_what_was_on_its_way(
    policy: pb.Policy, lost: bool, caplog: pytest.LogCaptureFixture
) -> None:
    port, first, more = free_port(), asyncio.Event(), asyncio.Event()
    replies: list[Reply] = []

    async def frames() -> AsyncIterator[VideoFrame]:
        yield frame(0)
        await more.wait()
        yield frame(1)  # sent to a service that is gone, or to the next one
        yield frame(2)

    async def stream() -> None:
        async with AsyncClient(target=f"127.0.0.1:{port}") as client:
            async for reply in client.stream(frames(), pb.StreamConfig(policy=policy)):
                replies.append(reply)
                first.set()

    async with asyncio.timeout(PATIENCE):
        async with serving(grpc_port=port):
            streaming = asyncio.create_task(stream())  # a service that is not ready yet could lose the first frame
            await first.wait()
        more.set()
        async with serving(grpc_port=port):
            await streaming
    assert [reply.frame.frame_id for reply in replies] == [0, 1, 2]
    assert f"the connection to 127.0.0.1:{port} broke" in caplog.text
    outcomes = {reply.outcome for reply in replies}
    assert outcomes <= {"answered", "lost", "stale"} if lost else outcomes == {"answered"}


async def test_the_same_works_without_an_event_loop() -> None:
    def run(url: str, address: str) -> tuple[bytes, list[Reply]]:
        with Client(url, address) as client:
            png = client.render(PICTURE)
            return png, list(client.stream((frame(number) for number in range(3)), EVERY))

    async with serving() as it:
        png, replies = await asyncio.to_thread(run, f"http://127.0.0.1:{it.port}", target(it))
        assert mask_of(png).any()
        assert [reply.outcome for reply in replies] == ["answered"] * 3


async def test_the_stream_command_records_a_session_and_replay_finds_it_unchanged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("av")
    video, session, masks = tmp_path / "overlay.mp4", tmp_path / "session", tmp_path / "masks"
    async with serving() as it:
        server = ["--server", target(it), "--policy", "every"]
        wanted = ["--out", str(video), "--save-masks", str(masks), "--record", str(session)]
        folder = str(SAMPLES[0].parent)
        assert await asyncio.to_thread(main, ["stream", folder, *server, *wanted]) == 0
        assert f"answered {len(SAMPLES)}" in capsys.readouterr().out
        assert len(list(masks.iterdir())) == len(SAMPLES)
        assert await asyncio.to_thread(main, ["replay", str(session), *server]) == 0
        assert f"identical {len(SAMPLES)}" in capsys.readouterr().out
        (session / "masks" / "00000000.png").write_bytes(encoded(red_box(568, 497, (0, 0, 9, 9)).convert("L")))
        assert await asyncio.to_thread(main, ["replay", str(session), *server]) == 1  # it differs now
        answers = session / "answers.jsonl"
        answers.write_text(answers.read_text()[:-9])  # as a kill leaves it
        capsys.readouterr()
        assert await asyncio.to_thread(main, ["replay", str(session), *server]) == 1
        assert f"compared {len(SAMPLES) - 1}" in capsys.readouterr().out
        answers.write_text("")
        assert await asyncio.to_thread(main, ["replay", str(session), *server]) == 1  # nothing agrees
        assert await asyncio.to_thread(main, ["stream", str(video), "--raw", *server]) == 0
        assert f"answered {len(SAMPLES)}" in capsys.readouterr().out


async def test_a_frame_that_failed_before_does_not_spoil_its_replay_but_one_that_fails_now_does(tmp_path: Path) -> None:
    def fail_on_green(frames: Pixels) -> None:
        if fails and frames[:, 1].max() > 127:
            raise RuntimeError("no answer to this one")

    fails, folder = True, tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(encoded(Image.new("RGB", (64, 48), (255, 255 * (number == 1), 0))))
    async with serving(RedPredictor(fail_on_green), max_batch_size=1) as it:
        server = ["--server", target(it), "--policy", "every"]
        for name, failed in (("one", True), ("none", False)):
            fails = failed
            wanted = [*server, "--record", str(tmp_path / name)]
            assert await asyncio.to_thread(main, ["stream", str(folder), *wanted]) == int(failed)
        fails = True
        assert await asyncio.to_thread(main, ["replay", str(tmp_path / "one"), *server]) == 0
        assert await asyncio.to_thread(main, ["replay", str(tmp_path / "none"), *server]) == 1
    comparison = recording.Comparison(tmp_path / "none", recording.read(tmp_path / "none"))
    for outcome in ("stale", "failed"):  # of a stream that may drop frames
        comparison.take(Reply(frame(0), outcome, 0.0, None, None))
    assert (comparison.compared, comparison.failed) == (0, 1)


async def test_a_session_is_replayed_with_the_options_it_was_recorded_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, session = tmp_path / "in", tmp_path / "session"
    folder.mkdir()
    for number, shade in enumerate((255, 0, 135, 255, 120)):
        (folder / f"{number}.png").write_bytes(encoded(Image.new("RGB", (64, 48), (shade, 0, 0))))
    options = ["--threshold", "0.7", "--smoothing-ms", "300", "--hysteresis", "--roi", "8,8,40,32"]
    async with serving() as it:
        server = ["--server", target(it), "--policy", "every"]
        recorded = ["stream", str(folder), *server, *options, "--record", str(session)]
        assert await asyncio.to_thread(main, recorded) == 0
        again = ["replay", str(session), *server]
        assert await asyncio.to_thread(main, again) == 0
        assert "compared 5  identical 5" in capsys.readouterr().out
        kept = {"threshold": 0.7, "smoothing_ms": 300, "hysteresis": True, "reuse": False, "roi": "8,8,40,32"}
        assert json.loads((session / "config.json").read_text()) == kept
        for other in (["--threshold", "0.2"], ["--roi", "full"]):
            assert await asyncio.to_thread(main, [*again, *other]) == 1, other
        (session / "config.json").unlink()  # as of an earlier version
        assert await asyncio.to_thread(main, again) == 1
        assert await asyncio.to_thread(main, [*again, *options]) == 0


@pytest.mark.parametrize("options", [["--smoothing-ms", "300"], ["--hysteresis"], ["--reuse"]])
async def test_frames_that_were_dropped_change_no_mask_of_a_replay(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, session = tmp_path / "in", tmp_path / "session"
    folder.mkdir()
    for number, shade in enumerate([170, *[129, 127] * 5]):
        (folder / f"{number:02}.png").write_bytes(encoded(Image.new("RGB", (64, 48), (shade, 0, 0))))
    async with serving() as it:
        server = ["--server", target(it), "--policy", "every"]
        recorded = ["stream", str(folder), *server, *options, "--record", str(session)]
        assert await asyncio.to_thread(main, recorded) == 0
        lines = [{"frame_id": 99, "captured": 0.0, "presented": 0.0, "age_ms": 0.0, "outcome": "lost"}]
        for line in recording.read(session):  # as with a dropped frame, of no polyp, behind each
            times = {name: line[name] + 0.01 for name in ("captured", "presented")}
            lines += [line, {**line, **times, "frame_id": 99, "outcome": "stale"}]
        (session / "frames" / "00000099.bin").write_bytes(encoded(Image.new("RGB", (64, 48), (80, 0, 0))))
        (session / "answers.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        assert await asyncio.to_thread(main, ["replay", str(session), *server]) == 0
        assert "compared 11  identical 11" in capsys.readouterr().out


@pytest.mark.parametrize(
    "config",
    ["{", "[]", "null", '{"threshold": "x"}', '{"roi": 1}', '{"reuse": null}', '{"smoothing_ms": true}', '{"fps": 5}'],
)
def test_a_recording_with_options_of_no_stream_is_refused(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "answers.jsonl").touch()
    (tmp_path / "config.json").write_text(config)
    assert main(["replay", str(tmp_path), "--server", "127.0.0.1:1"]) == 2
    assert f"{tmp_path / 'config.json'} " in capsys.readouterr().err


@pytest.mark.parametrize("source", ["nothing-here.mp4", "README.md", "/dev/video99", "."])
def test_a_source_that_cannot_be_read_is_named_in_one_line(
    source: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    Path("README.md").write_text("no video")
    assert main(["stream", source]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_video_that_cannot_be_written_is_refused_before_the_server_is_called(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["stream", "demo:", "--out", str(tmp_path / "o.webm"), "--server", "127.0.0.1:1"]) == 2
    assert "end it with .mp4" in capsys.readouterr().err


def test_the_synthetic_sweep_moves_and_repeats() -> None:
    frames = sweep()
    assert len(set(frames)) > len(frames) * 0.9
    source = open_source("demo:")
    taken = [frame for frame, _ in zip(paced(source, None, None, hold=False), range(len(frames) + 1), strict=False)]
    assert taken[-1].picture == taken[0].picture


def test_a_tally_says_percentiles_and_whether_the_order_was_kept() -> None:
    statistics = StreamStatistics()
    for number in range(100):
        statistics.count(Reply(frame(number), "answered", number / 1e3, None))
    assert (statistics.age_ms(50), statistics.age_ms(99)) == (50, 99)
    statistics.count(Reply(frame(101), "stale", 0.0, None))
    assert "order BROKEN" in statistics.summary()
    assert "stale 1" in statistics.summary()
    assert "dropped" not in statistics.summary()
    statistics.count(Reply(frame(102), "dropped", 0.0, None))
    assert "dropped 1" in statistics.summary()


@pytest.mark.slow
def test_a_video_is_segmented_locally_frame_by_frame(tmp_path: Path) -> None:
    pytest.importorskip("av")
    video = tmp_path / "sweep.mp4"
    with VideoWriter(video, 25) as writer:
        for number, jpeg in enumerate(sweep()[:3]):
            writer.write(np.asarray(decode(jpeg, 10**6)), number / 25)
    assert main(["segment", str(video), "-o", str(tmp_path / "masks")]) == 0
    masks = sorted((tmp_path / "masks" / "sweep.mp4.frames").iterdir())
    assert [mask.name for mask in masks] == [f"{number:08d}.png" for number in range(3)]
    assert all(mask_of(mask.read_bytes()).any() for mask in masks)
