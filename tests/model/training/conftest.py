import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import SAMPLES, annotation
from tests.support.training.runs import RECIPE


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    images, masks = tmp_path / "samples" / "images", tmp_path / "samples" / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for sample in SAMPLES:
        Image.open(sample).resize((96, 80)).save(images / f"{sample.stem}.png")
        mask = Image.fromarray(annotation(sample) * np.uint8(255)).resize((96, 80), Image.Resampling.NEAREST)
        mask.save(masks / f"{sample.stem}.png")
    (tmp_path / "tiny.toml").write_text(RECIPE)
    (tmp_path / "held-out.txt").write_text("samples/polyp-3\n")
    return [str(tmp_path / "tiny.toml"), "--images", str(images), "--masks", str(masks), "--device", "cpu"]


@pytest.fixture
def many(arguments, tmp_path) -> list[str]:
    """Return arguments that name two sources: the samples, and two frames without a polyp."""
    frames = tmp_path / "colon" / "images"
    frames.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        mottled = Image.fromarray(rng.integers(60, 160, (10, 12, 3), np.uint8))
        mottled.resize((96, 80), Image.Resampling.BICUBIC).save(frames / f"{name}.png")
    table = (
        '[samples]\nimages = "samples/images"\nmasks = "samples/masks"\nweight = 2\n[colon]\nimages = "colon/images"\n'
    )
    (tmp_path / "sources.toml").write_text(table)
    return [arguments[0], "--sources", str(tmp_path / "sources.toml"), "--device", "cpu"]
