"""The two commands of the documentation as scripts, and what they printed as figures."""

import re
from dataclasses import dataclass

from tools.machines.debian import BUNDLE
from tools.machines.machine import Outcome

# Other servers may run on this machine, so this one takes free ports; it says which.
SERVE = f"""
set -e
folder=${{CHECKOUT:-/home/visitor/pranet}}
[ -e "$folder" ] || git -c advice.detachedHead=false -c init.defaultBranch=main clone --quiet {BUNDLE} "$folder"
cd "$folder"
export PRANET_PORT=0 PRANET_GRPC_PORT=0
log=$(mktemp) mask=$(mktemp)
make serve > "$log" 2>&1 & made=$!
until url=$(sed -n 's/^PraNet is ready: \\(http[^ ]*\\) .*/\\1/p' "$log"); [ -n "$url" ]; do
    kill -0 $made 2> /dev/null || {{ cat "$log"; exit 1; }}
    sleep 0.2
done
tail -n 30 "$log"
[ "$(curl -sS -o /dev/null -w '%{{http_code}}' "$url/readyz")" = 200 ]
curl -fsS -H 'Content-Type: image/jpeg' --data-binary @service/samples/polyp-1.jpg "$url/segment" -o "$mask"
.venv/bin/python - "$mask" << 'END'
import sys
import numpy
from PIL import Image
mask = Image.open(sys.argv[1])
assert (mask.format, mask.mode) == ("PNG", "L")
found, drawn = (numpy.asarray(each.convert("L")) > 127 for each in (mask, Image.open("tests/data/polyp-1-mask.png")))
overlap = 2 * (found & drawn).sum() / (found.sum() + drawn.sum())
print("Dice of the mask:", round(overlap, 3))
assert overlap > 0.8
END
kill -TERM $made
wait $made || true
"""
TEST = "cd /home/visitor/pranet && make test"
# Where a test lacks a program, it is skipped, but never in CI.
TEST_IN_CI = "cd /home/visitor/pranet && CI=true .venv/bin/pytest -q tests/deployment/test_proxies.py"

SUMMARY = re.compile(r"^=+ (?P<counts>.*) in [\d.]+s.*=+$", re.MULTILINE)
SKIPPED = re.compile(r"^SKIPPED \[(\d+)\] ([^:]+(?:::\S+)?):(?:\d+: )?(.*)$", re.MULTILINE)
WRONG = re.compile(r"^(?:FAILED|ERROR) .*$", re.MULTILINE)


@dataclass(frozen=True)
class Tests:
    """What ``make test`` counted."""

    passed: int
    skipped: int
    wrong: list[str]
    reasons: dict[str, int]  # why tests were skipped, and how many


def tests(outcome: Outcome) -> Tests:
    """Read the summary of pytest; without one, the last line says why."""
    found = SUMMARY.findall(outcome.log)
    if not found:
        return Tests(0, 0, outcome.log.splitlines()[-1:], {})
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", found[-1])}
    reasons: dict[str, int] = {}
    for number, _, reason in SKIPPED.findall(outcome.log):
        reasons[reason] = reasons.get(reason, 0) + int(number)
    return Tests(counts.get("passed", 0), counts.get("skipped", 0), WRONG.findall(outcome.log), reasons)
