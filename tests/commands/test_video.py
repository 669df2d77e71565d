"""Video as players show it: turned, in its colours, at its times; and the videos that commands write."""

import asyncio
import contextlib
import errno
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from time import monotonic, sleep
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from model.errors import SourceError
from model.transforms import Floats, Pixels
from pranet_client.async_client import AsyncClient
from pranet_client.connection import Reply
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from pranet_client.pictures import VideoFrame
from pranet_client.sources import in_thread
from service.commands import recording, stream
from service.commands.main import main
from service.commands.segment import session
from service.commands.video.decoding import TimedPicture
from service.commands.video.live import Live
from service.commands.video.matroska import missing_bytes
from service.commands.video.source import open_source, paced
from service.commands.video.writer import VideoWriter
from service.frames.codec import encode_png, to_rgb
from service.frames.decoded_video import Damage
from service.frames.shapes import OUTLINE_COLOUR
from tests.support import videos
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, encoded, red_box
from tests.support.predictors import RedPredictor
from tests.support.serving import serving

QUARTERS = Image.fromarray(
    np.kron(np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8), np.ones((32, 48, 1)))
    .astype(np.uint8)
)  # fmt: skip
NEAR = 6  # levels that lossy video and its colours may be off


def pictures(name: Path) -> list[Pixels]:
    return [np.asarray(to_rgb(shot.picture, 10**7)[0]) for shot in open_source(str(name), raw=True).pictures]


def near(one: Pixels, other: Pixels, *, share: float = 0.9) -> bool:
    """Tell whether pictures agree, but for the blurred edges of their colours."""
    assert one.shape == other.shape
    return bool((np.abs(one.astype(int) - other).max(axis=2) <= NEAR).mean() > share)


@pytest.mark.parametrize(
    ("matrix", "operation"),
    [
        ((1, 0, 0, 1), None),
        ((0, 1, -1, 0), Image.Transpose.ROTATE_270),  # Pillow counts counter-clockwise
        ((-1, 0, 0, -1), Image.Transpose.ROTATE_180),
        ((0, -1, 1, 0), Image.Transpose.ROTATE_90),
        ((-1, 0, 0, 1), Image.Transpose.FLIP_LEFT_RIGHT),
        ((1, 0, 0, -1), Image.Transpose.FLIP_TOP_BOTTOM),
        ((0, 1, 1, 0), Image.Transpose.TRANSPOSE),
        ((0, -1, -1, 0), Image.Transpose.TRANSVERSE),
    ],
)
def test_a_video_is_turned_by_its_display_matrix(
    matrix: tuple[int, int, int, int], operation: Image.Transpose | None, tmp_path: Path
) -> None:
    path = videos.turn(videos.write(tmp_path / "turned.mp4", [QUARTERS]), *matrix)
    expected = QUARTERS if operation is None else QUARTERS.transpose(operation)
    (shown,) = pictures(path)
    assert near(shown, np.asarray(expected))


@pytest.mark.parametrize(("rows", "matrix"), [(64, 1), (64, 5), (64, None), (720, 1), (720, 5)])
def test_colours_are_those_of_the_tag_and_without_one_bt601_for_few_rows(
    rows: int, matrix: int | None, tmp_path: Path
) -> None:
    colour = Image.new("RGB", (64, rows), OUTLINE_COLOUR)
    (shown,) = pictures(videos.write(tmp_path / "colour.mp4", [colour], matrix=matrix))
    assert near(shown, np.asarray(colour))


def test_without_a_tag_many_rows_are_bt709(tmp_path: Path) -> None:
    colour = Image.new("RGB", (64, 720), OUTLINE_COLOUR)
    (shown,) = pictures(videos.write(tmp_path / "colour.mp4", [colour]))  # converted by BT.601
    assert near(shown, np.full((720, 64, 3), (48, 227, 95)))


def test_a_written_video_says_its_colours_and_keeps_its_times(tmp_path: Path) -> None:
    seconds = [0.0, 2.5, 5.0, 5.04]
    with VideoWriter(tmp_path / "out.mp4", 0.4, Fraction(1, 12_800)) as writer:
        for each in seconds:
            writer.write(np.full((720, 64, 3), OUTLINE_COLOUR, np.uint8), each)
    frames, times, facts = videos.read(tmp_path / "out.mp4")
    assert times == seconds
    assert facts["tags"] == (1, 1, 1, 1)  # BT.709 three times (ITU-T H.273), and 16 to 235
    assert facts["seconds"] == pytest.approx(5.04 + 2.5, abs=1e-3)
    assert np.abs(frames[0].astype(int) - OUTLINE_COLOUR).max() <= 2


@pytest.mark.parametrize("b_frames", [0, 2])
def test_h264_in_avi_is_shown_at_its_times_although_avi_has_none(b_frames: int, tmp_path: Path) -> None:
    times = [0, 1, 2, 5, 6, 10, 11, 12, 13, 14, 15]  # what a recorder dropped is an empty chunk
    video = videos.write(tmp_path / "video.avi", [QUARTERS] * len(times), times=times, b_frames=b_frames)
    seen = [shot.seconds for shot in open_source(str(video), raw=True).pictures]
    assert seen == pytest.approx([time / 25 for time in times])


async def test_a_written_video_has_the_pixel_aspect_of_its_source(tmp_path: Path) -> None:
    """PAL of 4:3 has 720 columns: players stretch each pixel to 16:15 of its height."""
    film = videos.write(tmp_path / "pal.mp4", [red_box(720, 576, (40, 30, 120, 90))] * 2, pixel_aspect=Fraction(16, 15))
    out = tmp_path / "out.mp4"
    async with serving(RedPredictor()) as it:
        command = ["stream", str(film), "--server", f"127.0.0.1:{it.grpc_port}", "--out", str(out)]
        assert await asyncio.to_thread(main, command) == 0
    assert videos.read(out)[2]["pixel_aspect"] == Fraction(16, 15)


@pytest.mark.parametrize("fps", [0.4, 23.976, 24, 29.97, 30])
def test_pictures_without_times_are_shown_at_their_rate(fps: float, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", fps) as writer:
        for number in range(4):
            writer.write(np.zeros((32, 32, 3), np.uint8), number / fps)
    _, times, facts = videos.read(tmp_path / "out.mp4")
    assert times == pytest.approx([number / fps for number in range(4)], rel=1e-4)
    assert facts["seconds"] == pytest.approx(4 / fps, abs=2e-3)


async def test_a_streams_video_has_every_frame_at_its_time_with_the_newest_mask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [0, 40, 80, 160, 200, 240, 280, 320, 400, 440]  # ms: the rate is not constant
    box = red_box(160, 120, (40, 30, 120, 90))
    film = videos.write(tmp_path / "in.mp4", [box] * 10, times=times, time_base=Fraction(1, 1000))
    out = tmp_path / "out.mp4"
    async with serving(RedPredictor(before=lambda frames: sleep(0.15))) as it:
        command = ["stream", str(film), "--server", f"127.0.0.1:{it.grpc_port}", "--out", str(out), "--raw"]
        assert await asyncio.to_thread(main, command) == 0
    assert "stale 0 " not in capsys.readouterr().out.splitlines()[-1]
    assert videos.read(out)[1] == pytest.approx([each / 1000 for each in times])
    assert tinted(out)[-1]
    assert tinted(out) == sorted(tinted(out))  # none before the first mask, all after it


FAILING = 2  # number of a frame on which the network fails


class FailingPredictor(RedPredictor):
    """Fails on pictures that show blue."""

    def predict(self, frames: Pixels) -> Floats:
        if frames[:, 2].max() > 127:
            raise RuntimeError("no answer to this one")
        return super().predict(frames)


def with_a_frame_that_fails(path: Path) -> Path:
    shown = [red_box(160, 120, (40, 30, 120, 90)) for _ in range(5)]
    shown[FAILING].paste((0, 0, 255), (0, 0, 40, 30))
    return videos.write(path, shown)


def tinted(film: Path) -> list[bool]:
    """Tell which frames show their polyp as one; it is red without its tint."""
    return [bool(frame[60, 80, 1] > 30) for frame in videos.read(film)[0]]


def test_a_frame_that_failed_is_not_shown_with_the_outlines_of_another(tmp_path: Path, patched: Patches) -> None:
    patched(session, "load_predictor", lambda settings: FailingPredictor())
    film, out = with_a_frame_that_fails(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    assert main(["segment", str(film), "-o", str(out), "--max-batch-size", "1"]) == 1
    assert tinted(out) == [number != FAILING for number in range(5)]


@pytest.mark.parametrize("masks", ["out/in.mp4.frames", "masks"])
def test_a_mask_of_a_frame_that_failed_is_deleted_and_other_files_stay(
    masks: str, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(session, "load_predictor", lambda settings: FailingPredictor())
    film, folder = with_a_frame_that_fails(tmp_path / "in.mp4"), tmp_path / masks
    folder.mkdir(parents=True)
    others = {"note.png", "1.png", "00000007.json", *(f"{number:08d}.png" for number in (5, 6, 20250101))}
    made = {f"{number:08d}.png" for number in range(5) if number != FAILING}
    for name in (*others, *made, f"{FAILING:08d}.png"):
        (folder / name).write_bytes(b"earlier")
    out = ["out.mp4", "--save-masks", str(folder)] if masks == "masks" else ["out"]
    words = ["segment", str(film), "--max-batch-size", "1", "--overwrite", "-o", str(tmp_path / out[0]), *out[1:]]
    assert main(words) == 1
    assert {file.name for file in folder.iterdir()} == made | others
    assert {name for name in made | others if (folder / name).read_bytes() == b"earlier"} == others
    told = f"{folder}: also has 3 frames from 00000005.png on, which this run did not make; delete them if"
    assert capsys.readouterr().err.count(told) == 1


async def test_a_frame_of_a_stream_that_failed_is_not_shown_with_the_outlines_of_another(tmp_path: Path) -> None:
    film, out = with_a_frame_that_fails(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    async with serving(FailingPredictor(), max_batch_size=1) as it:
        address = f"127.0.0.1:{it.grpc_port}"
        command = ["stream", str(film), "--server", address, "--out", str(out), "--raw", "--policy", "every"]
        assert await asyncio.to_thread(main, command) == 1
    assert tinted(out) == [number != FAILING for number in range(5)]


def test_a_video_that_is_written_too_slowly_leaves_out_frames_that_were_dropped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    moments: list[float] = []
    writer: Any = SimpleNamespace(add=lambda picture, seconds, mask: moments.append(seconds))
    drawing, began, hour = stream._Drawing(writer), monotonic(), 3600.0
    outcomes = ["answered", "stale", "stale", "failed", "lost", "answered", "deadline", "stale"]
    on_time = {5, 6}  # the others came an hour ago, but the last one had to wait for those before it
    response = pb.StreamResponse()
    response.mask.png = encode_png(np.zeros((8, 8), np.uint8))
    for number, outcome in enumerate(outcomes):
        captured = began - 2 * hour + number
        drawing.take(
            Reply(VideoFrame(number, b"", captured), outcome, (2 if number in on_time else 1) * hour, response)
        )
    drawing.tell()
    assert moments == [0, 3, 5, 6, 7]
    assert capsys.readouterr().err == (
        "pranet: --out lacks 3 dropped frames, since the video was written too slowly; send fewer frames with --fps, "
        "or use a faster processor or disk\n"
    )


@pytest.fixture(params=[("mp4", 100), ("ts", 1000)])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a video of 30 frames of which bytes in the middle are lost."""
    kind, lost = request.param
    boxes = [red_box(160, 128, (number, 30, 100 + number, 90)) for number in range(30)]
    film = videos.write(tmp_path / f"in.{kind}", boxes, gop=10)
    content = bytearray(film.read_bytes())
    begin = content.find(b"mdat") + 1
    middle = begin + (len(content) - begin) // 2
    content[middle : middle + lost] = bytes(lost)
    film.write_bytes(content)
    return film


def test_a_damaged_video_is_segmented_to_its_end_but_for_pixels_that_a_decoder_made_up(
    damaged: Path, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    assert main(["segment", str(damaged), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    refused = sorted(int(number) for number in re.findall(r"frame (\d+): this frame is damaged", told))
    kept = sorted(int(file.stem) for file in (tmp_path / "out" / f"{damaged.name}.frames").iterdir())
    assert sorted(refused + kept) == list(range(len(refused + kept)))
    assert len(refused + kept) >= 28  # some have no picture at all
    assert refused == list(range(refused[0], refused[0] + len(refused)))  # those that refer to it, too
    assert 2 <= len(refused) < 10
    assert len(kept) > 20
    assert f"{len(kept)} of {len(refused + kept)} frames, a polyp in" in told
    assert (damaged.suffix == ".mp4") == ("of its packets cannot be decoded" in told)


@pytest.mark.parametrize("kind", ["mp4", "avi"])
@pytest.mark.parametrize("lost", [1, 6, 12, 22])
def test_a_lost_packet_costs_no_frame_of_other_key_frames_whatever_cores_there_are(
    kind: str, lost: int, tmp_path: Path
) -> None:
    film, gop = tmp_path / f"in.{kind}", 8
    videos.write(film, [red_box(160, 128, (number, 30, 100 + number, 90)) for number in range(3 * gop)], gop=gop)
    with av.open(str(film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content, (begin, size) = bytearray(film.read_bytes()), packets[lost]
    content[begin : begin + size] = bytes(size)
    film.write_bytes(content)
    sound: list[int] = []
    with contextlib.suppress(SourceError):  # at the end
        for shot in open_source(str(film), raw=True).pictures:
            assert shot.seconds is not None
            sound += [] if shot.damaged else [round(25 * shot.seconds)]
    hit = set(range(3 * gop)) - set(sound)
    assert {number // gop for number in hit} == {lost // gop}


@pytest.mark.parametrize("damaged", [("ts", 1000)], indirect=True)
async def test_a_stream_goes_on_behind_damage_and_says_how_many_frames_it_hit(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shots = list(open_source(str(damaged), raw=True).pictures)
    hit = sum(shot.damaged for shot in shots)
    async with serving() as it:
        command = ["stream", str(damaged), "--server", f"127.0.0.1:{it.grpc_port}", "--policy", "every", "--raw"]
        assert await asyncio.to_thread(main, command) == 0
    told = capsys.readouterr()
    assert hit > 1
    assert f"{hit} frames came damaged: a part of their pixels is made up" in told.err
    assert f"answered {len(shots)}" in told.out


@pytest.mark.parametrize("damaged", [("mp4", 100)], indirect=True)
async def test_every_frame_before_the_end_of_a_damaged_file_is_answered_and_then_the_damage_is_told(
    damaged: Path, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched("pranet_client.connection", "LAST_ANSWERS_SECONDS", 0.0)  # the service is slower than a source that fails
    shots: list[TimedPicture] = []
    with pytest.raises(SourceError):
        shots += (each for each in open_source(str(damaged), raw=True).pictures)
    masks, out = tmp_path / "masks", tmp_path / "out.mp4"
    async with serving() as it:
        command = ["stream", str(damaged), "--server", f"127.0.0.1:{it.grpc_port}", "--policy", "every", "--raw"]
        assert await asyncio.to_thread(main, [*command, "--save-masks", str(masks), "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert f"answered {len(shots)}" in told.out
    assert "lost 0" in told.out
    assert len(list(masks.iterdir())) == len(pictures(out)) == len(shots)
    assert told.err.count("of its packets cannot be decoded") == 1


@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_a_video_that_is_cut_off_is_segmented_to_its_end_and_then_the_rest_is_missed(
    kind: str, tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched(session, "load_predictor", lambda settings: RedPredictor())
    whole = videos.write(tmp_path / "in.mkv", [red_box(160, 128, (number, 30, 100, 90)) for number in range(20)])
    content, film = whole.read_bytes(), tmp_path / f"cut.{kind}"
    film.write_bytes(content[: len(content) // 2])
    assert main(["segment", str(film), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert f"{film} is cut off: its last {len(content) - len(content) // 2} bytes are missing" in told
    assert "frames, a polyp in" in told
    assert main(["segment", str(whole), "-o", str(tmp_path / "whole")]) == 0


def test_a_recording_without_an_end_is_not_missed(tmp_path: Path) -> None:
    film = videos.write(tmp_path / "in.mkv", [red_box(160, 128, (number, 30, 100, 90)) for number in range(20)])
    content = film.read_bytes()
    size = content.index(bytes.fromhex("18538067")) + 4
    film.write_bytes((content[:size] + b"\x01" + 7 * b"\xff" + content[size + 8 :])[: len(content) // 2])
    assert pictures(film)


@pytest.mark.parametrize(
    "content", ["", "00", "1a45", "1a45dfa3", "1a45dfa384", "1a45dfa380185380", "1a45dfa38018538067"]
)
def test_a_header_that_is_cut_off_tells_nothing(content: str, tmp_path: Path) -> None:
    film = tmp_path / "in.mkv"
    film.write_bytes(bytes.fromhex(content))
    assert missing_bytes(film) == 0


async def test_a_picture_that_cannot_be_read_ends_a_stream_after_the_answers_to_those_before(
    tmp_path: Path, patched: Patches, capsys: pytest.CaptureFixture[str]
) -> None:
    patched("pranet_client.connection", "LAST_ANSWERS_SECONDS", 0.0)
    for number in range(8):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(red_box(160, 128, (number, 30, 100, 90))))
    read = Path.read_bytes

    def fail_at_last(path: Path) -> bytes:
        if path.name == "7.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    patched(Path, "read_bytes", fail_at_last)
    async with serving() as it:
        command = ["stream", str(tmp_path), "--server", f"127.0.0.1:{it.grpc_port}", "--policy", "every"]
        assert await asyncio.to_thread(main, command) == 1
    told = capsys.readouterr()
    assert "answered 7" in told.out
    assert f"pranet: {tmp_path / '7.jpg'} cannot be read: Permission denied" in told.err


def test_one_damaged_frame_is_told_of_in_the_singular(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(list(stream._Frames([VideoFrame(0, b"", 0.0), VideoFrame(1, b"", 0.0, damaged=True)]))) == 2
    assert capsys.readouterr().err == "pranet: 1 frame came damaged: a part of its pixels is made up\n"


@pytest.mark.parametrize("codec", ["qtrle", "cfhd", "rpza", "svq1"])
def test_a_sound_video_whose_decoder_marks_no_key_frame_is_sound(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "in.mov"
    with av.open(str(path), "w") as container:
        track = container.add_stream(codec, rate=25, options={"g": "3"})
        track.width, track.height = 352, 288
        track.pix_fmt = track.codec_context.codec.video_formats[0].name
        for level in range(7):
            picture = np.full((288, 352, 3), 30 * level, np.uint8)
            container.mux(track.encode(av.VideoFrame.from_ndarray(picture).reformat(format=track.pix_fmt)))
        container.mux(track.encode())
    with av.open(str(path)) as container:
        assert not any(frame.key_frame for frame in container.decode(video=0))
    assert [shot.damaged for shot in open_source(str(path), raw=True).pictures] == [False] * 7


def test_live_video_tells_as_much_of_its_damage_as_a_file(tmp_path: Path) -> None:
    """Threads by slice, which add no delay either, would hide it."""

    def hit(pictures: Iterator[TimedPicture]) -> int:
        count = 0
        with contextlib.suppress(SourceError):  # at the end
            for shot in pictures:
                count += shot.damaged
        return count

    noise = np.random.default_rng(0).integers(0, 256, (30, 128, 160, 3), np.uint8)
    damaged = videos.write(tmp_path / "in.mp4", noise, gop=10)
    content = bytearray(damaged.read_bytes())
    eighth = (len(content) - content.index(b"mdat")) // 8
    for place in range(content.index(b"mdat") + eighth, len(content) - eighth, eighth):  # some damage can be decoded
        for at in range(place, place + 100):
            content[at] ^= 0x5A
    damaged.write_bytes(content)
    recorded = hit(iter(open_source(str(damaged), raw=True).pictures))
    assert recorded > 1
    assert hit(Live(f"file://{damaged}", raw=True, until=0).pictures()) >= recorded - 1


def shown(damage: Damage, kinds: str) -> str:
    """Return which frames are damaged (x), given which are key frames (K) and corrupt (c); their times count from 0."""
    frames = [
        SimpleNamespace(key_frame=kind == "K", is_corrupt=kind == "c", pts=time) for time, kind in enumerate(kinds)
    ]
    return "".join("x" if damage.shows_in(frame) else "." for frame in frames)


def test_what_refers_to_a_damaged_frame_is_damaged_until_the_next_key_frame() -> None:
    assert shown(Damage(), "K.c..K..") == "..xxx..."
    assert shown(Damage(), "..K.") == "xx.."  # nor has what comes before the first one anything to refer to


def test_a_cut_packet_damages_its_frame_and_not_those_that_threads_deliver_after_it() -> None:
    damage = Damage()
    damage.cut(SimpleNamespace(pts=4))
    assert shown(damage, "K..K...K") == "....xxx."


@pytest.mark.parametrize(("time", "expected"), [(3.5, "....xx.."), (5.5, "........")])
def test_a_cut_packet_without_a_frame_damages_the_next_ones_up_to_a_key_frame(time: float, expected: str) -> None:
    damage = Damage()
    damage.cut(SimpleNamespace(pts=time))
    assert shown(damage, "K.....K.") == expected


def test_a_lost_packet_damages_all_up_to_the_first_key_frame_behind_it() -> None:
    damage = Damage()
    damage.lose(SimpleNamespace(pts=3))
    assert shown(damage, "..K.K.") == "xxxx.."


def test_a_jpeg_that_is_cut_off_in_a_video_damages_its_frame_only(tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuvj420p"
        for number in range(8):
            picture = av.VideoFrame.from_ndarray(np.asarray(red_box(160, 128, (number, 30, 90, 90))), format="rgb24")
            for packet in stream.encode(picture):
                content = bytes(packet)
                cut = av.Packet(content[: len(content) * 2 // 3] if number == 5 else content)
                cut.stream, cut.pts, cut.dts, cut.time_base = stream, number, number, packet.time_base
                container.mux(cut)
    assert [shot.damaged for shot in open_source(str(path), raw=True).pictures] == [n == 5 for n in range(8)]


async def masks_of(film: str, fps: float | None, config: pb.StreamConfig) -> list[bytes]:
    frames = paced(open_source(film, raw=True, fps=fps), fps, None, hold=bool(fps))
    async with serving() as it, AsyncClient(target=f"127.0.0.1:{it.grpc_port}") as client:
        replies = [reply async for reply in client.stream(in_thread(frames), config)]
    return [reply.response.mask.png for reply in replies if reply.response]


async def test_smoothing_does_not_depend_on_how_fast_a_file_is_read(tmp_path: Path) -> None:
    shades = [Image.new("RGB", (64, 48), (int(127 + 60 * np.sin(number)), 0, 0)) for number in range(12)]
    film = str(videos.write(tmp_path / "in.mp4", shades))
    config = pb.StreamConfig(policy=pb.POLICY_EVERY, smoothing_ms=100, output=pb.OUTPUT_PROBABILITY)
    at_once, slowly = await masks_of(film, None, config), await masks_of(film, 10, config)
    assert len(at_once) == 12
    assert at_once == slowly
    assert at_once != await masks_of(film, None, pb.StreamConfig(policy=pb.POLICY_EVERY, output=pb.OUTPUT_PROBABILITY))


def test_a_recording_of_a_camera_is_replayed_by_its_capture_times() -> None:
    line = {"frame_id": 0, "captured": 7.0, "presented": None}
    assert recording.presented(line) == 7.0
    assert recording.presented(line | {"presented": 0.5}) == 0.5
    assert recording.presented({"frame_id": 0, "captured": 7.0}) == 7.0  # of an earlier version


def test_a_cover_before_the_tracks_of_a_video_is_not_taken_for_it(tmp_path: Path) -> None:
    path = videos.covered(videos.write(tmp_path / "covered.mp4", [QUARTERS] * 3), SAMPLES[0].read_bytes())
    shown = pictures(path)
    assert len(shown) == 3
    assert all(near(each, np.asarray(QUARTERS)) for each in shown)


def test_a_file_with_nothing_but_a_cover_holds_no_video(tmp_path: Path) -> None:
    path = videos.write(tmp_path / "cover.mp4", [QUARTERS])
    with pytest.raises(SourceError, match="holds no video"):
        open_source(str(videos.covered(path, SAMPLES[0].read_bytes(), tracks=False)))


def test_a_video_may_have_tags_in_any_encoding_and_a_colon_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with av.open("made.avi", "w") as container:
        container.metadata["title"] = "Mueller"
        stream = container.add_stream("mjpeg", 10, width=64, height=48, pix_fmt="yuvj420p")
        for packet in (*stream.encode(av.VideoFrame(64, 48, "yuvj420p")), *stream.encode()):
            container.mux(packet)
    whole = Path("made.avi").read_bytes()
    assert b"Mueller" in whole
    Path("10:30.avi").write_bytes(whole.replace(b"Mueller", b"M\xfcller!"))
    assert len(list(open_source("10:30.avi").pictures)) == 1
