"""The Open Inference Protocol, by KServe's own clients, in a process and an environment of their own."""

import asyncio
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.pictures import encoded, red_box
from tests.support.serving import serving

CLIENT = Path(__file__).parent / "kserve_client"
PYTHON = CLIENT / ".venv" / "bin" / "python"
NAMES = ("array", "array_as_list", "array_to_binary", "picture", "picture_to_binary", "outputs")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON.exists(), reason="no KServe client (make kserve-client)"),
]


async def test_its_clients_get_the_mask_by_rest_and_grpc_with_their_defaults(tmp_path: Path) -> None:
    picture = red_box(96, 72, (20, 10, 70, 50))
    content = np.frombuffer(encoded(picture), np.uint8)
    np.savez(tmp_path / "pictures.npz", pixels=np.asarray(picture)[None], encoded=content)
    async with serving() as it:
        addresses = (f"http://127.0.0.1:{it.port}", f"127.0.0.1:{it.grpc_port}")
        command = [PYTHON, CLIENT / "checks.py", *addresses, tmp_path / "pictures.npz", tmp_path / "answers.npz"]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    masks = dict(np.load(tmp_path / "answers.npz"))
    assert sorted(masks) == sorted(f"{kind} {name}" for kind in ("rest", "grpc") for name in NAMES)
    for name, mask in masks.items():
        assert (mask.shape, mask.dtype) == ((1, 72, 96), np.uint8), name
        assert ((mask[0] == 255) == (np.asarray(picture)[:, :, 0] > 0)).mean() > 0.99, name
