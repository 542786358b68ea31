"""The main jobs: a cold start, a clip, a long recording, and how memory grows with its length.

Conventions: every figure is a ratio of two measurements of the same run. The two sides alternate; times are
medians, ratios are medians over the pairs. This module must stay small, see :mod:`benchmarks.processes`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.plan import Plan
from benchmarks.processes import Usage, run, worker
from benchmarks.tables import markdown

MEGA = 1e6


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Args:
        job: The job measured.
        threads: Of both sides.
        reference: Median of the reference, in ``unit``.
        earmark: Median of earmark, in ``unit``.
        unit: "ms" or "MB".
        figure: The figure that the target applies to, in ``figure_unit``.
        figure_unit: "x" (reference / earmark), "%" (earmark of reference) or "MB" (earmark alone).
        target: A minimum for "x", a maximum otherwise; None: no target.
    """

    job: str
    threads: int
    reference: float
    earmark: float
    unit: str
    figure: float
    figure_unit: str
    target: float | None = None

    @property
    def verdict(self) -> str:
        """The target, and whether it is met."""
        if self.target is None:
            return ""
        faster = self.figure_unit == "x"
        met = self.figure >= self.target if faster else self.figure <= self.target
        return f"{'≥' if faster else '≤'} {self.target:g} {self.figure_unit}: {'met' if met else 'MISSED'}"

    def cells(self) -> list[str]:
        """The cells of the row."""
        figure = f"{self.figure:.{1 if self.figure_unit == 'x' else 0}f} {self.figure_unit}"
        sides = [
            f"{value:.{1 if value < 100 else 0}f} {self.unit}" for value in (self.reference, self.earmark)
        ]
        return [self.job, str(self.threads), *sides, figure, self.verdict]


def cold(folder: Path, plan: Plan) -> Iterator[Row]:
    """Tagging a clip of 10 s on the command line, from a cold start: default model, two threads."""
    pairs = _cold_pairs(folder, "default", "clip", (), plan.cold)
    job = "tag a 10 s clip from a cold start"
    walls = [(reference.wall_s * 1e3, ours.wall_s * 1e3) for reference, ours in pairs]
    yield _row(f"{job}: time", 2, walls, "ms", target=5)
    peaks = list(zip(*_peaks(pairs), strict=True))
    yield _row(f"{job}: peak memory", 2, peaks, "MB", target=40)


def warm(folder: Path, plan: Plan) -> Iterator[Row]:
    """The front-end, and samples to scores, in a warm process."""
    for threads in (1, 2):
        yield _timed("front-end, 10 s", "front_end", threads, folder, plan.warm)
    for model in ("mn04", "mn10"):
        for threads in (1, 2):
            target = 2 if (model, threads) == ("mn10", 2) else None
            job = f"{model}, 10 s of samples to scores"
            yield _timed(job, f"clip {model}", threads, folder, plan.warm, target)


def long(folder: Path, plan: Plan) -> Iterator[Row]:
    """A long file, window by window."""
    for hop, target in (("2.5", 2.5), ("10", None)):
        job = f"mn10, {plan.minutes} min of file, 10 s every {hop} s"
        yield _timed(job, f"long mn10 10 {hop}", 2, folder, plan.long, target)


def growth(folder: Path, plan: Plan) -> Iterator[Row]:
    """What the length of a file adds to the peak memory of a clip of 10 s."""
    for model, windows in (("default", ()), ("mn10", ("10", "2.5")), ("mn10", ("10", "10"))):
        clip = _peaks(_cold_pairs(folder, model, "clip", windows, plan.memory))
        whole = _peaks(_cold_pairs(folder, model, "long", windows, plan.memory))
        reference, ours = (median(after) - median(before) for before, after in zip(clip, whole, strict=True))
        every = f"10 s every {windows[1]} s" if windows else "its own windows"
        job = f"{model}, {every}: peak memory of {plan.minutes} min above that of 10 s"
        yield Row(job, 2, reference, ours, "MB", ours, "MB", 40)


def _peaks(pairs: list[tuple[Usage, Usage]]) -> tuple[list[float], list[float]]:
    reference, ours = zip(*pairs, strict=True)
    return [usage.peak_bytes / MEGA for usage in reference], [usage.peak_bytes / MEGA for usage in ours]


def _cold_pairs(
    folder: Path, model: str, file: str, windows: tuple[str, ...], count: int
) -> list[tuple[Usage, Usage]]:
    clip = str(folder / f"{file}.wav")
    reference = ("-m", "benchmarks.reference", str(folder / model), clip, *windows)
    lengths = [
        text for name, value in zip(("--window", "--hop"), windows, strict=False) for text in (name, value)
    ]
    ours = (
        "-m",
        "earmark",
        "tag",
        "--threads",
        "2",
        "--model",
        str(folder / f"{model}.onnx"),
        *lengths,
        clip,
    )
    pairs = [(run(reference, threads=2), run(ours)) for _ in range(count + 1)]
    return pairs[1:]  # the first pair reads from the disk


def _timed(name: str, job: str, threads: int, folder: Path, count: int, target: float | None = None) -> Row:
    with (
        worker("reference", job, folder, threads) as reference,
        worker("earmark", job, folder, threads) as ours,
    ):
        _check_alike(reference.output, ours.output, job)
        pairs = [(reference.measure() * 1e3, ours.measure() * 1e3) for _ in range(count)]
    return _row(name, threads, pairs, "ms", target)


def _check_alike(reference: list[float], ours: list[float], job: str) -> None:
    """Checks that both sides did the same work; otherwise their times are not comparable."""
    difference = max(abs(a - b) for a, b in zip(reference, ours, strict=True))
    if difference > 0.01 * (max(reference) - min(reference)):
        raise SystemExit(f"{job}: the outputs of the two sides differ by {difference:.2g}")


def _row(job: str, threads: int, pairs: list[tuple[float, float]], unit: str, target: float | None) -> Row:
    reference, ours = (median(side) for side in zip(*pairs, strict=True))
    if unit == "MB":
        return Row(job, threads, reference, ours, unit, median(100 * b / a for a, b in pairs), "%", target)
    return Row(job, threads, reference, ours, unit, median(a / b for a, b in pairs), "x", target)


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    head = ["job", "threads", "reference", "earmark", "ratio", "target"]
    return markdown(head, [row.cells() for row in rows], numbers=head[1:5])


PARTS: dict[str, Callable[[Path, Plan], Iterator[Row]]] = {
    "cold": cold,
    "warm": warm,
    "long": long,
    "growth": growth,
}


def measured(parts: list[str], plan: Plan) -> list[Row]:
    """Measures the parts in order."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(("-m", "benchmarks.prepare", "jobs", name, str(60 * plan.minutes)))
        for part in parts:
            for row in PARTS[part](folder, plan):
                rows.append(row)
                print("  ".join(row.cells()), file=sys.stderr, flush=True)
    return rows
