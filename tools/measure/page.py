"""Lighthouse's scores of the page and of /docs: ``make lighthouse``. It needs Chromium, and npm with a network once.

The service runs in front of a predictor that needs no weights, since only the pages are judged.
"""

import json
import os
import subprocess
import sys

from tests.support import processes
from tests.support.browser import CHROMIUM

LIGHTHOUSE = "lighthouse@12.8.2"
PAGES = ("/", "/docs")
LEAST = {"/": 1.0, "/docs": 0.95}  # of every category
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")


def scores(url: str) -> dict[str, float]:
    """Return the score of each category, 0 to 1."""
    command = ["npx", "--yes", LIGHTHOUSE, url, "--quiet", "--output=json", f"--only-categories={','.join(CATEGORIES)}"]
    command += ["--chrome-flags=--headless --no-sandbox", "--preset=desktop"]
    environment = {**os.environ, "CHROME_PATH": str(CHROMIUM)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)["categories"]
    return {name: found[name]["score"] for name in CATEGORIES}


def main() -> int:
    """Print the scores; return 1 if one is below what the pages had."""
    worst = 0
    with processes.fake_server() as server:
        for page in PAGES:
            found = scores(server.url + page)
            print(page, *(f"{name} {100 * score:.0f}" for name, score in found.items()), sep="  ")
            worst |= min(found.values()) < LEAST[page]
    return int(worst)


if __name__ == "__main__":
    sys.exit(main())
