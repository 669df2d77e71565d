"""The command line of the endurance test."""

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

import uvloop

import tools.endurance
from tools.endurance import samples
from tools.endurance.renewal import Site
from tools.endurance.run import Run


def main() -> int:
    """Run everything; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.endurance", description=tools.endurance.__doc__)
    parser.add_argument("--minutes", type=float, default=60, help="under load, after the capacity is measured")
    parser.add_argument("--out", type=Path, help="folder for samples.csv, report.json, report.md and the logs")
    for name in ("input-size", "precision", "processes"):
        parser.add_argument(f"--{name}", help=f"as of pranet serve --{name}")
    arguments = parser.parse_args()
    passed = {name: getattr(arguments, name.replace("-", "_")) for name in ("input-size", "precision", "processes")}
    flags = [word for name, given in passed.items() if given for word in (f"--{name}", given)]
    with tempfile.TemporaryDirectory(prefix="endurance-") as folder:
        return uvloop.run(_run(Site(Path(folder)), flags, 60 * arguments.minutes, arguments.out))


async def _run(site: Site, flags: list[object], seconds: float, out: Path | None) -> int:
    interrupted = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, interrupted.set)
    run = Run(site, flags, seconds, interrupted)
    try:
        await run.all()
    finally:
        text = "\n".join(run.report.markdown())
        print(text)
        broken = run.report.broken()
        for line in broken:
            print(line, file=sys.stderr)
        if out is not None:
            _write(run, out, text)
    return 1 if broken else 0


def _write(run: Run, out: Path, text: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    samples.write(run.report.samples, out / "samples.csv")
    (out / "report.json").write_text(json.dumps(run.report.json(), indent=1))
    (out / "report.md").write_text(f"{text}\n")
    for log in run.site.folder.glob("life-*.log"):
        (out / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
