"""Makes the picture at the top of the README: a sample beside what the bundled weights find in it. ``make readme``."""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "service" / "samples" / "polyp-1.jpg"
PICTURE = ROOT / "service" / "rest" / "static" / "overlay.jpg"
GAP = 8  # pixels


def picture() -> Image.Image:
    """Return the sample and its overlay next to each other, as ``pranet segment`` makes it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "service.commands.main", "segment", str(SAMPLE), "--output", "overlay"]
        subprocess.run([*command, "--engine", "torch", "--precision", "fp32", "--out", folder], check=True, cwd=ROOT)
        halves = [Image.open(SAMPLE), Image.open(Path(folder) / f"{SAMPLE.name}.png")]
        width, height = halves[0].size
        both = Image.new("RGB", (2 * width + GAP, height), "white")
        for i, half in enumerate(halves):
            both.paste(half, (i * (width + GAP), 0))
        return both


if __name__ == "__main__":
    picture().save(PICTURE, quality=92)
