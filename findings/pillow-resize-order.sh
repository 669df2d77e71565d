#!/usr/bin/env bash
# The order in which a picture's sides are resized: Pillow 12 and 13, and fast_image_resize behind cykooz-resizer.
#
# Guess:   antialiased bilinear on 8 bits is the same filter everywhere, so implementations differ in a few values at most,
#          where a sum lies next to a half; and Pillow, which resizes the width first, does so in every release.
# Truth:   the order decides, since each pass rounds to 8 bits. fast_image_resize takes the height first: in noise, one
#          value in five differs from Pillow's by a level, in pictures of endoscopes one in eight. With one call for the
#          width and one for the height, fewer than one in 100 differ. Pillow 13 takes the height first in some tall
#          pictures: to 352x352 from 300x360, 400x600 and 1080x1920, but not from 200x300 and 1080x1350. The same call
#          on the same picture then gives other values than in Pillow 12.
# Versions: Pillow 12.3.0 and 13.0.0, cykooz-resizer 4.0.1 (fast_image_resize 6), numpy 2.4.6
# Matters: over 200 validation pictures, masks from one call of fast_image_resize agreed with those of Pillow by a Dice of
#          0.992, and one polyp was lost; weights that were validated with Pillow 12 get other inputs from Pillow 13.
#          The service takes the width first in every picture.
#
# Exit code 0: as described. 1: something changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
install() { "$folder/venv/bin/pip" --disable-pip-version-check install -q "$@"; }
cat > "$folder/resize.py" <<'PYTHON'
import sys

import cykooz_resizer as fir
import numpy as np
import PIL
from PIL import Image

SIDE = 352
BILINEAR = Image.Resampling.BILINEAR
SHAPES = (568, 497), (1200, 400), (200, 300), (300, 360), (400, 600), (400, 1200), (1080, 1350), (1080, 1920)
ORDERS = {"width first": lambda picture: (SIDE, picture.height), "height first": lambda picture: (picture.width, SIDE)}


def by_pillow(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture.resize(size, BILINEAR)


def by_fast_image_resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    options = fir.ResizeOptions(fir.ResizeAlg.convolution(fir.FilterType.bilinear), use_alpha=False)
    source = fir.ImageData(*picture.size, fir.PixelType.U8x3, picture.tobytes())
    resized = fir.ImageData(*size, fir.PixelType.U8x3)
    fir.Resizer().resize(source, resized, options)
    return Image.frombytes("RGB", size, bytes(resized.get_buffer()))


def apart(first: Image.Image, second: Image.Image) -> float:
    difference = np.abs(np.asarray(first, int) - np.asarray(second, int))
    assert difference.max() <= 1
    return float((difference > 0).mean())


shapes = {}
for width, height in SHAPES:
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8))
    once = {each.__name__: each(picture, (SIDE, SIDE)) for each in (by_pillow, by_fast_image_resize)}
    two = {name: by_pillow(by_pillow(picture, step(picture)), (SIDE, SIDE)) for name, step in ORDERS.items()}
    order = [name for name, made in two.items() if apart(once["by_pillow"], made) == 0]
    step = by_fast_image_resize(picture, ORDERS["width first"](picture))
    reached = {
        "one call": apart(two["width first"], once["by_fast_image_resize"]),
        "height first": apart(two["height first"], once["by_fast_image_resize"]),
        "two calls": apart(two["width first"], by_fast_image_resize(step, (SIDE, SIDE))),
    }
    shapes[width, height] = order
    print(f"Pillow {PIL.__version__}, {width}x{height}: {', '.join(order)}; values that fast_image_resize makes otherwise:")
    print(f"  {reached['one call']:.1%} of width first, {reached['height first']:.1%} of height first, with two calls"
          f" {reached['two calls']:.1%} of width first")
    if not (reached["one call"] > 0.05 > 0.01 > max(reached["two calls"], reached["height first"])):
        sys.exit("fast_image_resize has another order")
late = {(300, 360), (400, 600), (400, 1200), (1080, 1920)} if sys.argv[1] == "13" else set()
if shapes != {shape: ["height first" if shape in late else "width first"] for shape in SHAPES}:
    sys.exit(f"Pillow {PIL.__version__} has other orders: {shapes}")
PYTHON
for pillow in 12.3.0 13.0.0; do
  install "pillow==$pillow" cykooz-resizer==4.0.1 numpy==2.4.6
  "$folder/venv/bin/python" "$folder/resize.py" "${pillow%%.*}"
done
