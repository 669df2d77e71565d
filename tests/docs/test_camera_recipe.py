"""The recipe for a camera, as docs/python.md prints it: only the camera is a video file, and the screen a list."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.docs.test_readme import EXAMPLES
from tests.support import videos
from tests.support.patching import Patches
from tests.support.pictures import SAMPLES, annotation, dice
from tests.support.processes import Server

RECIPE = next(example.text for example in EXAMPLES if "VideoCapture" in example.text)


@pytest.mark.slow
def test_a_camera_is_shown_with_its_polyps_until_it_ends(server: Server, tmp_path: Path, patched: Patches) -> None:
    picture = cv2.imread(str(SAMPLES[0]))[:496, :568]  # even sides
    video = videos.write(tmp_path / "camera.mp4", [picture[:, :, ::-1]] * 5)
    shown: list[np.ndarray] = []
    patched(cv2, "imshow", lambda _, frame: shown.append(frame))  # the headless package has no window
    patched(cv2, "waitKey", lambda _: -1)
    text = RECIPE.replace("VideoCapture(0)", f"VideoCapture({str(video)!r})")
    text = text.replace("http://127.0.0.1:8000", server.url).replace("127.0.0.1:8001", server.grpc_address)
    exec(compile(text, "docs/python.md", "exec"), {})  # what a reader would paste
    assert shown
    assert dice(shown[-1][:, :, 1] == 255, annotation(SAMPLES[0])[:496, :568]) > 0.7
