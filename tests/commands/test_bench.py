"""The benchmark counts what it says it counts."""

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from model.engines.factory import PRECISIONS
from model.training.data.pairs import PairFile
from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from service.commands.bench import fidelity, local, report, servers, streaming
from service.commands.bench.errors import BenchError
from service.commands.bench.load import closed_loop, open_loop, watched
from service.commands.bench.measure import Answer, Row, Window, summarise
from service.commands.bench.overhead_loads import LOADS, Addresses, Pace
from service.commands.bench.pictures import read
from service.commands.flags.bench import size
from service.commands.main import main
from service.commands.segment.jobs import NothingToDo
from service.frames.codec import decode
from tests.support.patching import Patches
from tests.support.pictures import ROOT
from tests.support.predictors import RedPredictor
from tests.support.serving import serving


def test_an_answer_counts_for_the_share_of_its_life_in_the_window() -> None:
    answers = [Answer(0.0, 2.0, frames=4), Answer(1.0, 2.0), Answer(2.5, 3.5), Answer(5.0, 6.0), Answer(1.0, 2.0, "no")]
    row = summarise("load", answers, Window(1.0, 3.0, server_cpu=7.0, own_cpu=None))
    assert row.frames_per_second == pytest.approx((2 + 1 + 0.5) / 2)
    assert (row.answered, row.failed, row.first_error) == (3, 1, "no")
    assert row.server_cpu_ms == pytest.approx(1e3 * 7 / 3.5)
    assert row.client_cpu_ms is None


async def test_a_closed_loop_keeps_so_many_in_flight_and_no_more() -> None:
    in_flight, most = 0, 0

    async def send(image: bytes) -> None:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.001)
        in_flight -= 1

    answers = await closed_loop(send, [b"a", b"b"], 3, time.perf_counter() + 0.05)
    assert most == 3
    assert len(answers) >= 3


@pytest.mark.parametrize("poisson", [False, True])
async def test_open_loop_latencies_count_from_the_scheduled_time(poisson: bool) -> None:
    gate = asyncio.Lock()  # a server that takes one at a time, far slower than the rate

    async def send(image: bytes) -> None:
        async with gate:
            await asyncio.sleep(0.01)

    answers = await open_loop(send, [b""], 1000, time.perf_counter() + 0.03, poisson=poisson)
    due = [answer.due for answer in answers]
    assert due == sorted(due)
    assert 10 <= len(answers) <= 60
    latencies = [answer.done - answer.due for answer in answers]
    assert latencies[-1] > latencies[0]  # nothing waits for the answers before it


async def test_what_fails_is_counted_and_stops_nothing() -> None:
    async def send(image: bytes) -> None:
        raise ConnectionError("gone")

    answers = await open_loop(send, [b""], 500, time.perf_counter() + 0.01, poisson=False)
    assert {answer.error for answer in answers} == {"ConnectionError: gone"}


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_a_served_frame_is_measured_with_the_servers_own_processor_time(transport: str) -> None:
    images = [(ROOT / "service" / "samples" / "polyp-1.jpg").read_bytes()]
    async with serving(RedPredictor()) as running:
        url = f"http://127.0.0.1:{running.port}"
        connect = servers.http(url) if transport == "http" else servers.rpc(url, f"127.0.0.1:{running.grpc_port}")
        async with connect as server:
            answers, window = await watched(
                lambda until: closed_loop(server.send, images, 2, until), server.cpu_seconds, warm_up=0, seconds=0.2
            )
    assert answers
    assert not any(answer.error for answer in answers)
    assert window.server_cpu is not None


@pytest.mark.parametrize("page", ["<html>no</html>", '{"detail": "forbidden"}'])
async def test_a_proxy_that_hides_the_metrics_leaves_the_processor_time_out(page: str) -> None:
    proxy = httpx.MockTransport(lambda request: httpx.Response(403, text=page))
    async with httpx.AsyncClient(transport=proxy, base_url="http://proxy") as client:

        async def send(image: bytes) -> None: ...

        assert await servers.Server(send, client).cpu_seconds() is None


async def test_a_server_that_is_not_there_is_named_with_the_command_that_starts_one() -> None:
    with pytest.raises(BenchError, match="start one with: pranet serve"):
        async with servers.http("http://127.0.0.1:9"):
            pass


def test_engine_and_pipeline_need_no_server() -> None:
    image = (ROOT / "service" / "samples" / "polyp-1.jpg").read_bytes()
    predictor = RedPredictor(slots=2)
    rows = list(local.engine_rows(predictor, [1, 3], warm_up=0, seconds=0.2))
    assert [row.load for row in rows][:2] == ["batches of 1", "batches of 1, 2 at once"]
    assert set(predictor.batch_sizes) == {1, 3}
    assert all(row.answered for row in local.pipeline_rows(RedPredictor(), [image], warm_up=0, seconds=0.2))


def test_a_report_names_the_machine_and_can_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no matplotlib")
    rows = [Row("1 at once", 2, 0, 10.0, 1.0, 2.0, 3.0, 4.0, None)]
    report.write(tmp_path, "http", rows, {"1 at once": [Answer(0.0, 0.1), Answer(0.1, 0.3)]}, images="samples")
    content = json.loads((tmp_path / "http.json").read_text())
    assert content["machine"]["cores"] >= 1
    assert content["rows"][0]["frames_per_second"] == 10.0
    assert {path.name for path in tmp_path.glob("*.png")} == {"http-latency.png", "http-curve.png"}
    assert report.table(rows).splitlines()[2].startswith("| 1 at once | 2       | 0      | 10.0     |")


def test_charts_show_answered_and_dropped_frames_apart_and_the_target(tmp_path: Path, patched: Patches) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="no matplotlib")
    drawn: list[Any] = []
    patched(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self.axes[0]))
    answers = [Answer(0.0, 0.1), Answer(0.0, 0.3), Answer(0.0, 0.9, dropped=True), Answer(0.0, 5.0, "failed")]
    rows = [Row("2 at 30/s", 2, 1, 10.0, 1.0, 2.0, 3.0, 4.0, None, dropped=1)]
    report.write(tmp_path, "streams", rows, {"2 at 30/s": answers}, slo_ms=120.0)
    histogram, curve = drawn
    names = {text.get_text() for text in histogram.get_legend().get_texts()}
    assert names == {"2 at 30/s, answered", "2 at 30/s, dropped", "target, 120 ms"}
    assert report.waits(answers) == (pytest.approx([100, 300]), pytest.approx([900]))
    assert (histogram.get_xlabel(), histogram.get_ylabel()) == ("latency, ms", "frames")
    assert [text.get_text() for text in curve.texts] == ["2 at 30/s, 1 dropped"]
    assert [line.get_ydata()[0] for line in curve.lines][-1] == 120


async def test_streams_are_measured_by_the_ages_of_their_frames() -> None:
    images = [(ROOT / "service" / "samples" / "polyp-1.jpg").read_bytes()]
    async with serving(RedPredictor()) as running:
        until = time.perf_counter() + 0.5
        async with AsyncClient(target=f"127.0.0.1:{running.grpc_port}") as client:
            answers = await streaming.streams(client, images, 2, 20, until)
        received = [running.metric("pranet_frames_received_total", {"slot": slot}) for slot in "01"]
    assert all(received)
    assert len(answers) == sum(received)
    assert not any(answer.error for answer in answers)
    assert all(answer.due < until for answer in answers)


async def test_a_frame_of_a_stream_that_failed_is_counted_with_its_reason() -> None:
    async with serving(RedPredictor()) as running, AsyncClient(target=f"127.0.0.1:{running.grpc_port}") as client:
        answers = await streaming.streams(client, [b"no picture"], 1, 10, time.perf_counter() + 0.5)
    failed = [answer.error for answer in answers if not answer.dropped]
    assert failed
    assert all("not a supported image" in error for error in failed)


@pytest.mark.parametrize(("outcome", "dropped"), [("answered", False), ("stale", True), ("lost", False)])
def test_what_the_service_drops_is_no_failure_and_no_mask(outcome: str, dropped: bool) -> None:
    answer = streaming._answer(Reply(VideoFrame(0, b"", 0.0), outcome, 0.5, pb.StreamResponse()))
    assert answer.dropped is dropped
    assert answer.done - answer.due == pytest.approx(0.5)
    row = summarise("load", [answer], Window(answer.due, answer.done, None, None))
    assert (row.answered, row.dropped, row.failed) == (outcome == "answered", dropped or None, outcome == "lost")


@pytest.mark.parametrize("most", [0, 1, 2, 5, 8, 11, 12])
async def test_the_search_finds_the_largest_number_that_holds(most: int) -> None:
    tried: list[int] = []

    async def holds(number: int) -> bool:
        tried.append(number)
        return number <= most

    assert await streaming.largest(holds, 12) == min(most, 12)
    assert len(tried) == len(set(tried)) <= 8
    assert max(tried) <= 12


def test_pictures_are_sent_as_they_are_or_in_one_size() -> None:
    folder = ROOT / "service" / "samples"
    assert read(folder)[0] == min(folder.glob("*.jpg")).read_bytes()
    assert {decode(image, 10**7).size for image in read(folder, (320, 240))} == {(320, 240)}
    assert size("1280x1024") == (1280, 1024)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["http", "--concurrency", "0"], "0 should be a finite number above 0"),
        (["http", "--rate", "fast"], "invalid list of numbers value: 'fast'"),
        (["grpc", "--seconds", "-1"], "-1.0 should be a finite number above 0"),
        (["overhead", "--rate", "inf"], "inf should be a finite number above 0"),
        (["streams", "--size", "large"], "'large' should be width and height in pixels, such as 1280x1024"),
    ],
)
def test_what_cannot_be_measured_is_said_at_once(
    flags: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["bench", *flags])
    assert reason in capsys.readouterr().err


def test_a_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="no picture found"):
        read(tmp_path)


@pytest.mark.parametrize(("mask", "other", "expected"), [([1, 1, 0], [1, 0, 0], 2 / 3), ([0], [0], 1), ([1], [0], 0)])
def test_the_dice_of_two_masks(mask: list[int], other: list[int], expected: float) -> None:
    assert fidelity.dice(np.array(mask, np.uint8), np.array(other, np.uint8) * 255) == pytest.approx(expected)


def test_every_engine_is_compared_with_float32_pytorch(tmp_path: Path, patched: Patches) -> None:
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    Image.new("L", (40, 30), 255).save(tmp_path / "mask.png")

    def create(checkpoint: object, *, engine: str, precision: str, **_: object) -> RedPredictor:
        if precision in ("fp16", "int8"):
            raise fidelity.DeviceError("not here")
        return RedPredictor(after=lambda frames, logits: -logits if precision == "bf16" else logits)

    patched(fidelity.factory, "create", create)
    files = [PairFile("set/red", tmp_path / "red.png", tmp_path / "mask.png")]
    lines = list(
        fidelity.compare(None, files, PRECISIONS, max_pixels=10**6, device="cpu", cache_dir=None, out=tmp_path)
    )
    assert [(line.engine, line.precision, line.mean, line.truth_change) for line in lines] == [
        ("torch", "fp32", 1, 0),
        ("torch", "fp32, reduced JPEGs", 1, 0),
        ("torch", "bf16", 0, -1),
        ("openvino", "fp32", 1, 0),
        ("openvino", "bf16", 0, -1),
    ]
    assert lines[2].worst_name == "set/red"
    assert (tmp_path / "worst-torch-bf16.png").exists()
    assert "| torch    | bf16                | 0.0000" in report.fidelity_table(lines)


def test_large_jpegs_are_also_judged_as_the_service_decodes_them(tmp_path: Path, patched: Patches) -> None:
    noise = np.random.default_rng(0).integers(100, 156, (704, 704, 1)) * (1, 0, 0)
    Image.fromarray(noise.astype(np.uint8)).save(tmp_path / "noise.jpg")  # decoded at half its size
    Image.new("L", (704, 704), 255).save(tmp_path / "mask.png")
    patched(fidelity.factory, "create", lambda *_, **__: RedPredictor())
    files = [PairFile("set/noise", tmp_path / "noise.jpg", tmp_path / "mask.png")]
    whole, reduced = fidelity.compare(None, files, (), max_pixels=10**6, device="cpu", cache_dir=None, out=None)
    assert whole.mean == 1
    assert 0 < reduced.mean < 1


SHORT = ["--seconds", "0.5", "--warm-up", "0.1", "--concurrency", "2"]


@pytest.mark.long
def test_overhead_is_measured_over_every_transport_against_another_checkout(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", "overhead", "--against", str(ROOT), "--out", str(tmp_path), "--rounds", "1", *SHORT]) == 0
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip("| ") for cell in line[:3]] for line in table] == [
        [over, "1", checkout] for over in ("grpc", "rest", "stream", "websocket") for checkout in ("this", "other")
    ]
    rows = json.loads((tmp_path / "overhead.json").read_text())["rows"]
    assert all(row["answered"] > 0 and row["server_cpu_ms"] > 0 for row in rows)


@pytest.mark.long
def test_overhead_says_that_a_checkout_does_not_start(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["bench", "overhead", "--against", str(tmp_path), "--rounds", "1", "--over", "rest", *SHORT]) == 2
    assert "is not a checkout of this service" in (told := capfd.readouterr().err)
    assert "ended before it was ready" in told


@pytest.mark.slow
def test_overhead_keeps_a_rate(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    over = ["--over", "rest", "grpc", "--rate", "20", "--seconds", "1", "--warm-up", "0.1", "--out", str(tmp_path)]
    assert main(["bench", "overhead", "--rounds", "1", *over]) == 0
    rows = json.loads((tmp_path / "overhead.json").read_text())["rows"]
    assert [row["answered"] for row in rows] == [pytest.approx(20, abs=12)] * 2  # at random times
    assert "| rest | 1" in capsys.readouterr().out


def test_overhead_has_a_rate_only_for_single_frames(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "overhead", "--rate", "20"]) == 2
    assert "give --over rest grpc, or one of them" in capsys.readouterr().err


async def test_overhead_counts_what_is_no_mask_and_a_closed_connection_as_failed_and_connects_again() -> None:
    png = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x89PNG"
    answers = iter((b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy", b"", png))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for each in answers:
            await reader.readuntil(b"picture")
            writer.write(each)
            if not each:
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, AsyncExitStack() as stack:
        at = Addresses(f"http://127.0.0.1:{port}", "")
        load = await LOADS["rest"](stack, at, [b"picture"], Pace(concurrency=1, rate=50))
        errors = [each.error for each in await load(time.perf_counter() + 0.3)]
    closed = "BenchError: the server closed the connection"
    assert errors[:3] == ["BenchError: 503 busy", closed, ""]
    assert set(errors[3:]) == {closed}
