"""The contact sheet of an evaluation: its best, median and worst pictures with what was annotated and found."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from model.evaluation.metrics.overlap import Array, Mask
from model.evaluation.protocols import THRESHOLD, Judgement
from model.transforms import Pixels

COLUMNS = 4
CELL = (320, 256)  # width and height of one picture, pixels
LINE = 26  # height of a line of text, pixels
TEXT_SIZE = 15
TRUTH, FOUND = (0, 255, 0), (255, 64, 255)  # RGB of the outlines
LEGEND = "Green: the annotation. Magenta: what was found."


def cases(judgements: Sequence[Judgement]) -> dict[str, list[int]]:
    """Return the indices of the best, the median and the worst pictures by Dice, under their heading."""
    order = sorted(range(len(judgements)), key=lambda index: -judgements[index].metrics["dice"])
    middle = max(0, len(order) // 2 - COLUMNS // 2)
    found = {"Best": order[:COLUMNS], "Median": order[middle : middle + COLUMNS], "Worst": order[-COLUMNS:]}
    return {"Pictures": order} if len(order) <= COLUMNS else found


def tile(image: Pixels, probability: Array, truth: Mask) -> Pixels:
    """Draw truth (green) and mask (magenta) as outlines on RGB (H, W, 3); one cell of the sheet."""
    cell = np.ascontiguousarray(cv2.resize(image, CELL, interpolation=cv2.INTER_AREA), np.uint8)
    for mask, colour in ((truth, TRUTH), (probability > THRESHOLD, FOUND)):
        small = cv2.resize(mask.astype(np.uint8), CELL, interpolation=cv2.INTER_NEAREST)
        outlines, _ = cv2.findContours(small, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(cell, outlines, -1, colour, 2)
    return cell


def draw(rows: Mapping[str, Sequence[tuple[str, Pixels]]]) -> Image.Image:
    """Lay out captions and cells, a row for each heading, under the legend."""
    width, height = CELL
    columns = max(len(cells) for cells in rows.values())
    sheet = Image.new("RGB", (columns * width, LINE + len(rows) * (height + 2 * LINE)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT_SIZE)
    pen.text((4, 4), LEGEND, "black", font)
    for row, (heading, cells) in enumerate(rows.items()):
        top = LINE + row * (height + 2 * LINE)
        pen.text((4, top + 4), heading, "black", font)
        for column, (caption, cell) in enumerate(cells):
            sheet.paste(Image.fromarray(cell), (column * width, top + LINE))
            pen.text((column * width + 4, top + LINE + height + 4), _fitted(caption, width - 8, font), "black", font)
    return sheet


def _fitted(caption: str, width: int, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> str:
    """Shorten the beginning of a caption, whose end has the figure, until it is at most ``width`` pixels wide."""
    if font.getlength(caption) <= width:
        return caption
    while font.getlength(f"…{caption}") > width:
        caption = caption[1:]
    return f"…{caption}"
