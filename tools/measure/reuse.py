"""Measures streams whose frames repeat, with and without reuse of logits, on a running ``pranet serve``.

python -m tools.measure.reuse   prints frames a second, and how much masks change by reuse if frames differ as much as
                                it allows
"""

import argparse
import io
import itertools
import time

import numpy as np
import uvloop
from PIL import Image

from model.transforms import SIZE
from pranet_client.async_client import AsyncClient
from pranet_client.pb.pranet.v1 import segmentation_pb2 as pb
from service.commands.video.demo import sweep
from service.frames import codec
from service.streams.reuse import MOST_LEVELS
from tests.support.pictures import Mask, dice
from tools.measure.stream import unpaced

PICTURES = 40  # in each video


async def reuse(url: str, target: str) -> None:
    """Measure streams whose frames repeat, and what reuse does to the masks of frames that are nearly the same."""
    pictures = sweep()[:: len(sweep()) // PICTURES]
    videos = {
        "each picture twice": [each for each in pictures for _ in range(2)],
        "one picture": pictures[:1] * 2 * PICTURES,
    }
    async with AsyncClient(url, target) as client:
        print("| video | reuse | fps | frames | reused |\n|---|---|---|---|---|")
        for (name, video), on in itertools.product(videos.items(), (False, True)):
            began = time.monotonic()
            config = pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=on)
            answers = [reply.response async for reply in client.stream(unpaced(len(video), video), config)]
            reused = sum(answer.reused for answer in answers if answer)
            fps = len(answers) / (time.monotonic() - began)
            print(f"| {name} | {'on' if on else 'off'} | {fps:.1f} | {len(answers)} | {reused} |")
        await _masks_of_near_copies(client, pictures)


async def _masks_of_near_copies(client: AsyncClient, pictures: list[bytes]) -> None:
    """Print the Dice between a copy's own mask and the one it gets by reuse, for copies that differ most."""
    random = np.random.default_rng(0)
    video = []
    for picture in pictures:
        shown = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB").resize((SIZE, SIZE)), np.int16)
        for noise in (0, random.integers(-MOST_LEVELS, MOST_LEVELS, shown.shape, endpoint=True)):
            pixels = np.clip(shown + noise, 0, 255).astype(np.uint8)
            video.append(codec.encode_png(pixels))
    masks: dict[bool, list[Mask]] = {}
    for on in (False, True):
        config = pb.StreamConfig(policy=pb.POLICY_EVERY, reuse=on)
        answers = [reply.response async for reply in client.stream(unpaced(len(video), video), config)]
        copies = [answer for answer in answers[1::2] if answer and answer.reused is on]
        masks[on] = [codec.read_mask(answer.mask.png) > 0 for answer in copies]
    overlaps = [dice(own, got) for own, got in zip(masks[False], masks[True], strict=True)]
    print(
        f"{len(overlaps)} copies with noise of up to {MOST_LEVELS} levels: Dice of their own mask and the reused one "
        f"{np.mean(overlaps):.4f} on average, {min(overlaps):.4f} at least"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--server", default="127.0.0.1:8001")
    arguments = parser.parse_args()
    uvloop.run(reuse(arguments.url, arguments.server))


if __name__ == "__main__":
    main()
