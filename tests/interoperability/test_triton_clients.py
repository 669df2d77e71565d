"""The Open Inference Protocol, by Triton's own clients, in a process and an environment of their own."""

import asyncio
import json
import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.runtime import Phase
from tests.support.pictures import SAMPLES, encoded, mask_of, red_box
from tests.support.processes import Server
from tests.support.serving import serving

CLIENT = Path(__file__).parent / "triton_client"
PYTHON = CLIENT / ".venv" / "bin" / "python"
SIZE = (256, 192)
BOXES = ((20, 20, 120, 100), (100, 40, 230, 150), (10, 90, 100, 180), (60, 10, 200, 60))
# Checks with four clients each (sync and asyncio, HTTP and gRPC), and those with two: JSON by HTTP, streams by gRPC.
WITH_FOUR, WITH_TWO = 29, 4

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no Triton client (make triton-client)"),
]


def asked(http: str, grpc: str, pictures: Path, phase: str) -> dict[str, str]:
    """Run the checks; return what became of each."""
    command = [PYTHON, CLIENT / "checks.py", http, grpc, pictures, phase]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes: dict[str, str] = json.loads(done.stdout)
    return outcomes


def stored(path: Path, pictures: list[Image.Image], masks: list[np.ndarray], kind: str) -> Path:
    """Write what the checks send, and the masks that they expect."""
    coded = {
        f"encoded{number}": np.frombuffer(encoded(picture, kind), np.uint8) for number, picture in enumerate(pictures)
    }
    other = np.frombuffer(encoded(red_box(64, 48, (8, 8, 40, 40))), np.uint8)
    np.savez(path, pixels=np.stack([*map(np.asarray, pictures)]), masks=np.stack(masks), other_size=other, **coded)
    return path


async def test_every_check_passes_with_every_client(tmp_path: Path) -> None:
    pictures = [red_box(*SIZE, box) for box in BOXES]
    masks = [np.asarray(picture)[:, :, 0] > 0 for picture in pictures]
    file = stored(tmp_path / "pictures.npz", pictures, masks, "PNG")
    async with serving() as it:
        addresses = (f"127.0.0.1:{it.port}", f"127.0.0.1:{it.grpc_port}", file)
        outcomes = await asyncio.to_thread(asked, *addresses, "serving")
        it.service.readiness.enter(Phase.DRAINING)
        outcomes |= await asyncio.to_thread(asked, *addresses, "draining")
    print(*outcomes, sep="\n")
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "passed"} == {}
    assert len(outcomes) == 4 * WITH_FOUR + 2 * WITH_TWO  # none was lost


@pytest.mark.parametrize("phase", ["network", pytest.param("stream", marks=pytest.mark.long)])
async def test_the_real_network_answers_every_client_as_it_answers_rest(
    tmp_path: Path, server: Server, phase: str
) -> None:
    pictures = [Image.open(sample).convert("RGB").resize(SIZE) for sample in SAMPLES]
    pictures.append(pictures[0].transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as rest:
        masks = [
            mask_of((await rest.post("/segment", content=encoded(picture))).raise_for_status().content)
            for picture in pictures
        ]
    file = stored(tmp_path / "pictures.npz", pictures, masks, "PNG")
    outcomes = await asyncio.to_thread(asked, server.url.removeprefix("http://"), server.grpc_address, file, phase)
    assert {name: outcome for name, outcome in outcomes.items() if outcome != "passed"} == {}
