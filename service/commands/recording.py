"""Records a streamed session in a folder, reads it again, and compares masks with it.

DIR/frames/00000000.bin    the picture as it was sent (the layout of raw pixels is in answers.jsonl)
DIR/masks/00000000.png     the mask, if the frame got one
DIR/answers.jsonl          one line per frame: times, outcome, timings
DIR/config.json            the options of the stream on which its masks depend
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from model import files
from model.errors import UserError
from pranet_client.connection import Reply
from pranet_client.pictures import ColorMatrix, ColorRange, Picture, PixelFormat, RawPicture, VideoFrame
from service.commands.flags.stream import SHAPING
from service.frames.codec import read_mask

ANSWERS, CONFIG = "answers.jsonl", "config.json"


class RecordingError(UserError):
    """The folder holds no recording, or a damaged one."""


class Recorder:
    """Writes every frame and its answer to a folder. Frames may show patients, so recording is off by default.

    Args:
        folder: where to write.
        arguments: of the command line, with the options of the stream.

    """

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder = folder
        self._config = {name: getattr(arguments, name) for name in SHAPING}

    def __enter__(self) -> Self:
        for part in ("frames", "masks"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        files.write_json(self._folder / CONFIG, self._config)
        self._answers = (self._folder / ANSWERS).open("w", buffering=1)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._answers.close()

    def take(self, reply: Reply) -> None:
        """Write one frame and its answer."""
        name, picture = f"{reply.frame.frame_id:08d}", reply.frame.picture
        line: dict[str, Any] = {
            "frame_id": reply.frame.frame_id,
            "captured": reply.frame.captured,
            "presented": reply.frame.presented,
            "age_ms": round(reply.age_seconds * 1e3, 3),
            "outcome": reply.outcome,
        }
        if isinstance(picture, bytes):
            (self._folder / "frames" / f"{name}.bin").write_bytes(picture)
        else:
            (self._folder / "frames" / f"{name}.bin").write_bytes(picture.data)
            line["raw"] = [
                *(picture.format, picture.width, picture.height, picture.stride),
                *(picture.matrix, picture.range),
            ]
        if reply.response and reply.outcome == "answered":
            (self._folder / "masks" / f"{name}.png").write_bytes(reply.response.mask.png)
            times = reply.response.mask.timings_ms
            line["timings_ms"] = {field.name: round(value, 3) for field, value in times.ListFields()}
            line["weights_sha256"] = reply.response.mask.model.weights_sha256
        if reply.response and reply.outcome == "failed":
            line["error"] = reply.response.error.detail
        print(json.dumps(line), file=self._answers)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of ``answers.jsonl`` in a recording.

    Raises:
        RecordingError: the folder holds no recording, or a damaged one.

    """
    try:
        text = (folder / ANSWERS).read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # a kill may cut off the last
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"{folder} is not a valid recording ({error}); give a folder that pranet stream --record has written"
        ) from error


def complete(arguments: argparse.Namespace, folder: Path) -> None:
    """Give the options that the command line of a replay leaves out the values that a recording has.

    Raises:
        RecordingError: they cannot be read, or are not options of a stream.

    """
    path = folder / CONFIG
    try:
        recorded = json.loads(path.read_text(), parse_int=float)
    except FileNotFoundError:  # of an earlier version
        return
    except (OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read ({error}); delete it, and give the options") from error
    if not isinstance(recorded, dict):
        raise RecordingError(f"{path} holds no options; delete it, and give the options")
    for name, value in recorded.items():
        if name not in SHAPING:
            raise RecordingError(f"{path} has {name!r}, which is no option of a stream; delete it, or take that out")
        if not isinstance(value, SHAPING[name]):
            raise RecordingError(f"{path} has {value!r} for {name!r}; correct it, or delete the file")
    for name in SHAPING:
        if getattr(arguments, name) is None:
            setattr(arguments, name, recorded.get(name))


def frames(folder: Path, lines: list[dict[str, Any]], *, hold: bool) -> Iterator[VideoFrame]:
    """Yield the recorded frames; with ``hold``, at the intervals at which they were captured."""
    began = time.monotonic()
    for number, line in enumerate(lines):
        if hold:
            time.sleep(max(0.0, began + line["captured"] - lines[0]["captured"] - time.monotonic()))
        yield VideoFrame(number, _picture(folder, line), time.monotonic(), presented(line))


def presented(line: dict[str, Any]) -> float:
    """Return the presentation time of a recorded frame, seconds; of a camera's frame, its capture time."""
    time_in_source = line.get("presented")
    return float(line["captured"] if time_in_source is None else time_in_source)


def _picture(folder: Path, line: dict[str, Any]) -> Picture:
    data = (folder / "frames" / f"{line['frame_id']:08d}.bin").read_bytes()
    if "raw" not in line:
        return data
    form, width, height, stride, matrix, levels = line["raw"] + [None, None][len(line["raw"]) - 4 :]
    return RawPicture(
        PixelFormat(form),
        width,
        height,
        stride,
        data,
        ColorMatrix(matrix) if matrix else None,
        ColorRange(levels or ColorRange.LIMITED),
    )


class Comparison:
    """Compares new masks with the recorded ones."""

    def __init__(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        self._folder = folder
        self._lines = lines
        self.compared = self.identical = 0
        self.failed = 0  # that have a mask in the recording
        self.worst_dice = 1.0

    def take(self, reply: Reply) -> None:
        """Compare one answer, if it and the recording have a mask."""
        file = self._folder / "masks" / f"{self._lines[reply.frame.frame_id]['frame_id']:08d}.png"
        if not file.exists():
            return
        self.failed += reply.outcome == "failed"
        if reply.response is None or reply.outcome != "answered":
            return
        now, then = (read_mask(png) > 0 for png in (reply.response.mask.png, file.read_bytes()))
        self.compared += 1
        self.identical += bool((now == then).all())
        total = int(now.sum()) + int(then.sum())
        self.worst_dice = min(self.worst_dice, 2 * int((now & then).sum()) / total if total else 1.0)

    def summary(self) -> str:
        """Return the number of identical masks and the worst Dice, on one line."""
        return f"compared {self.compared}  identical {self.identical}  worst Dice {self.worst_dice:.4f}"
