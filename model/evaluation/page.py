"""An evaluation as one HTML page: its tables, and the worst pictures of each set with what was drawn and found."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from model import files
from model.evaluation.contact_sheet import LEGEND
from model.transforms import Pixels

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .25rem .6rem; text-align: left }
.cases { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 320px } img { max-width: 100% }
figcaption { font-size: 13px; overflow-wrap: anywhere }
@media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } td, th { border-color: #555 } }
"""
JPEG_QUALITY = 85


def write(
    path: Path,
    title: str,
    about: Sequence[str],
    tables: Mapping[str, str],
    cases: Mapping[str, Sequence[tuple[str, Pixels]]],
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        title: what was judged.
        about: paragraphs below the title.
        tables: Markdown tables by heading.
        cases: of each set, captions and RGB pictures uint8 (H, W, 3), the worst first.

    """
    parts = [f"<p>{escape(paragraph)}</p>" for paragraph in about]
    parts += [f"<h2>{escape(heading)}</h2>{_table(markdown)}" for heading, markdown in tables.items()]
    parts += [f"<h2>Worst cases</h2><p>{LEGEND}</p>"]
    for name, pictures in cases.items():
        figures = "".join(_figure(caption, picture) for caption, picture in pictures)
        parts.append(f"<h3>{escape(name)}</h3><div class='cases'>{figures}</div>")
    head = f"<meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
    start = f"<!doctype html><html lang='en'><head>{head}</head><body><h1>{escape(title)}</h1>"
    files.write(path, start + "\n".join(parts) + "</body></html>\n")


def _table(markdown: str) -> str:
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines())
    rows = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
    rows += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in body]
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _figure(caption: str, picture: Pixels) -> str:
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    data = base64.b64encode(jpeg.tobytes()).decode()
    return (
        f"<figure><img alt='' src='data:image/jpeg;base64,{data}'><figcaption>{escape(caption)}</figcaption></figure>"
    )
