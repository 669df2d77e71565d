"""``make training-check`` (minutes): tests that ``pranet train`` learns the masks that it is given.

It overfits random weights to eight scenes of 256 pixels, without augmentation and with a fixed seed.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.network.normalisation import normalise
from model.network.pranet import PraNet
from model.weights import checkpoint
from tests.support.pictures import Mask, dice
from tests.support.processes import pranet

SIZE = 256
SCENES = 8
LOUD = 5.0  # initial standard deviation of what S3 adds to S4: large enough to do harm if it is not trained
RECIPE = """
steps = 72
batch = 2
learning_rate = 1e-3
supervise = {supervise}
[[phases]]
start = 0
sizes = [256]
"""


def scene(index: int) -> tuple[Image.Image, Mask]:
    """Paint one bright bump on mottled tissue, and its mask; its position depends on the scene."""
    rng = np.random.default_rng(index)
    angle = 2 * np.pi * index / SCENES
    centre = SIZE * (0.5 + 0.28 * np.array([np.sin(angle), np.cos(angle)]))
    y, x = np.ogrid[:SIZE, :SIZE]
    distance = np.hypot(y - centre[0], x - centre[1]) / rng.uniform(40, 48)
    tissue = np.kron(rng.integers(70, 110, (32, 32, 3)), np.ones((8, 8, 1)))
    bump = 130 * np.clip(6 - 5 * distance, 0, 1)[..., None] * (1, 0.8, 0.3)
    return Image.fromarray((tissue + bump).astype(np.uint8)), distance < 1


IMAGES, MASKS = zip(*map(scene, range(SCENES)), strict=True)


def start(path: Path) -> Path:
    """Write the random weights with which every run starts."""
    torch.manual_seed(0)
    network = PraNet()
    torch.nn.init.constant_(network.ra2_conv4.bn.weight, LOUD)
    checkpoint.save(path, network.state_dict(), "fp32", {"name": "random"})
    return path


def trained_dice(folder: Path, masks: Sequence[Mask], supervise: str = "s6 s5 s4 s3") -> float:
    """Train with these masks; return the mean Dice of S3 with the true ones."""
    for name, pictures in (("images", IMAGES), ("masks", map(Image.fromarray, masks))):
        (folder / name).mkdir()
        for number, picture in enumerate(pictures):
            picture.save(folder / name / f"{number}.png")
    (folder / "learns.toml").write_text(RECIPE.format(supervise=supervise.split()))
    data = ("--images", folder / "images", "--masks", folder / "masks", "--init", start(folder / "random"))
    done = pranet("train", folder / "learns.toml", *data, "--out", folder, "--device", "cpu")
    assert done.returncode == 0, done.stderr
    network = checkpoint.load(folder / "last.safetensors").network()
    images = torch.from_numpy(np.stack([np.asarray(image).transpose(2, 0, 1) for image in IMAGES]))
    with torch.inference_mode():
        found = network(normalise(images))[:, 0].numpy() > 0
    mean = float(np.mean([dice(one, mask) for one, mask in zip(found, MASKS, strict=True)]))
    print(f"\nDice {mean:.3f}", end="")
    return mean


def test_it_learns_eight_scenes_by_heart(tmp_path: Path) -> None:
    assert trained_dice(tmp_path, MASKS) >= 0.95


def test_masks_of_other_scenes_teach_nothing_of_these(tmp_path: Path) -> None:
    assert trained_dice(tmp_path, np.roll(MASKS, 3, axis=0)) <= 0.7


def test_a_map_that_is_not_supervised_does_not_learn(tmp_path: Path) -> None:
    assert trained_dice(tmp_path, MASKS, supervise="s6 s5 s4") <= 0.7
