"""Writes the results of a benchmark as Markdown tables, JSON and plots."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from model import files
from model.cores import usable_cores
from model.errors import how_to_install
from service import __version__
from service.commands.bench.errors import BenchError
from service.commands.bench.fidelity import Fidelity
from service.commands.bench.measure import Answer, Row
from service.commands.bench.parts import Part

COLUMNS = {
    "load": "load",
    "answered": "answers",
    "dropped": "dropped",
    "failed": "failed",
    "frames_per_second": "frames/s",
    "p50_ms": "p50 ms",
    "p90_ms": "p90 ms",
    "p99_ms": "p99 ms",
    "server_cpu_ms": "CPU ms/frame",
    "client_cpu_ms": "client's",
}


def table(rows: Sequence[Row]) -> str:
    """Return rows as an aligned Markdown table, without empty columns."""
    names = [name for name in COLUMNS if any(getattr(row, name) is not None for row in rows)]
    return aligned(
        [[COLUMNS[name] for name in names], *([_text(getattr(row, name)) for name in names] for row in rows)]
    )


def fidelity_table(lines: Sequence[Fidelity]) -> str:
    """Return the comparison of engines and precisions as a Markdown table."""
    head = [
        "engine",
        "precision",
        "mean Dice",
        "worst",
        "which",
        "Dice to truth",
        "change",
        "batch 1 to 8: mean, worst",
    ]
    rows = (
        [
            line.engine,
            line.precision,
            f"{line.mean:.4f}",
            f"{line.worst:.4f}",
            line.worst_name,
            f"{line.truth:.4f}",
            f"{line.truth_change:+.4f}",
            f"{line.batch_mean:.4f}, {line.batch_worst:.4f}",
        ]
        for line in lines
    )
    return aligned([head, *rows])


def parts_table(lines: Sequence[Part]) -> str:
    """Return the comparison of ways to do each part as a Markdown table."""
    rows = ([line.part, line.way, f"{line.cpu_ms:.2f}", line.note] for line in lines)
    return aligned([["part", "way", "CPU ms", "difference or size"], *rows])


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as an aligned Markdown table; the first line is its header."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([rows[0], rule, *rows[1:]])


def machine() -> dict[str, Any]:
    """Return the processor, cores and versions, without which the results mean little."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = next(iter(names), model)
    capabilities = [name for name, has in torch.cpu.get_capabilities().items() if has is True]
    return {
        "processor": model,
        "cores": usable_cores(),
        "capabilities": capabilities,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pranet": __version__,
    }


def names(name: str) -> tuple[str, str, str]:
    """Return the files of a benchmark: JSON, a histogram of latencies, and their percentiles over the load."""
    return f"{name}.json", f"{name}-latency.png", f"{name}-curve.png"


def write(out: Path, name: str, rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], **facts: Any) -> None:
    """Write the JSON of ``names`` and, if there are latencies, the plots.

    Raises:
        BenchError: matplotlib is not installed; the JSON is written anyway.

    """
    write_json(out / names(name)[0], rows, **facts)
    if answers:
        _draw(out, name, rows, answers, facts.get("slo_ms"))


def write_json(path: Path, rows: Sequence[Row] | Sequence[Fidelity], **facts: Any) -> None:
    """Write the rows of a table as JSON, together with the machine that they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), **facts, "rows": [asdict(row) for row in rows]}
    files.write_json(path, content)


def _draw(
    out: Path, name: str, rows: Sequence[Row], answers: Mapping[str, Sequence[Answer]], slo_ms: float | None
) -> None:
    try:
        from matplotlib.figure import Figure  # optional extra
    except ImportError:
        raise BenchError(f"plots need matplotlib: {how_to_install('bench')}") from None
    _, latency, curves = names(name)
    histogram = Figure(figsize=(8, 4.5), layout="constrained")
    axes = histogram.subplots()
    for number, (load, each) in enumerate(answers.items()):
        latencies, drops = waits(each)
        colour = f"C{number % 10}"  # of matplotlib's cycle
        axes.hist(latencies, bins=60, histtype="step", color=colour, label=f"{load}, answered")
        if drops:
            axes.hist(drops, bins=60, histtype="step", linestyle=":", color=colour, label=f"{load}, dropped")
    if slo_ms is not None:
        axes.axvline(slo_ms, color="black", linestyle="--", label=f"target, {slo_ms:g} ms")
    axes.set(xlabel="latency, ms", ylabel="frames", title=f"pranet bench {name}")
    axes.legend()
    with files.replacing(out / latency) as draft:
        histogram.savefig(draft, dpi=120)
    curve = Figure(figsize=(8, 4.5), layout="constrained")
    axes = curve.subplots()
    for percentile in ("p50_ms", "p99_ms"):
        points = [(row.frames_per_second, getattr(row, percentile)) for row in rows]
        axes.plot(*zip(*points, strict=True), marker="o", label=COLUMNS[percentile])
    for row in rows:
        drops_of = f", {row.dropped} dropped" if row.dropped else ""
        at = (row.frames_per_second, row.p50_ms)
        axes.annotate(row.load + drops_of, at, textcoords="offset points", xytext=(4, 4))
    if slo_ms is not None:
        axes.axhline(slo_ms, color="black", linestyle="--", label=f"target, {slo_ms:g} ms")
    axes.set(xlabel="frames answered per second", ylabel="latency, ms", title=f"pranet bench {name}")
    axes.legend()
    with files.replacing(out / curves) as draft:
        curve.savefig(draft, dpi=120)


def waits(answers: Sequence[Answer]) -> tuple[list[float], list[float]]:
    """Return the milliseconds after which frames were answered, and those after which others were dropped."""
    good = [answer for answer in answers if not answer.error]
    latencies = [1e3 * (answer.done - answer.due) for answer in good if not answer.dropped]
    return latencies, [1e3 * (answer.done - answer.due) for answer in good if answer.dropped]


def _text(value: str | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
