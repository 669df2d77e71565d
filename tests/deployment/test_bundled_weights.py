"""What is answered with the weights that come with the service."""

import httpx

from tests.support.pictures import SAMPLES, annotation, dice, mask_of
from tests.support.processes import Server


def test_the_bundled_weights_find_the_polyps_of_the_sample_frames(server: Server) -> None:
    for sample in SAMPLES:
        answer = httpx.post(f"{server.url}/segment", content=sample.read_bytes(), timeout=60, trust_env=False)
        assert dice(mask_of(answer.content), annotation(sample)) >= 0.7
