"""Measures the main jobs against the reference's way and prints a table.

    python -m benchmarks [cold|warm|long|growth ...] [--quick] [--json FILE] [--docs FILE]
    python -m benchmarks zoo [--cache FOLDER] [--threads N ...] [--quick] [--json FILE] [--docs FILE]
    python -m benchmarks packs|step [--quick] [--json FILE] [--docs FILE]
    python -m benchmarks engines [--cache FOLDER] [--threads N ...] [--quick] [--json FILE] [--docs FILE]

The second form measures the published networks against one of them (see :mod:`benchmarks.zoo`), the third one
how fast clips are read for training (see :mod:`benchmarks.packs`), or steps of training with one lever after
another (see :mod:`benchmarks.step`), the fourth one what engines and precisions bring (see
:mod:`benchmarks.engines`).

Conventions: every figure is a ratio of two measurements of this run. The two sides are measured in turns;
times are medians, ratios are medians over the pairs. Needs the extra "train".
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.processes import Usage, run, worker
from benchmarks.tables import machine, markdown, update
from benchmarks.zoo import THREADS, Line, measured
from benchmarks.zoo import table as zoo_table

MEGA = 1e6


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        job: What was done.
        threads: By both sides.
        reference: Its median, in ``unit``.
        earmark: Its median, in ``unit``.
        unit: "ms" or "MB".
        figure: What is judged, in ``figure_unit``.
        figure_unit: "x" (reference / earmark), "%" (earmark of reference) or "MB" (earmark alone).
        target: For the figure: at least for "x", at most for the others; None where there is none.
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
        """The target and whether it is met."""
        if self.target is None:
            return ""
        faster = self.figure_unit == "x"
        met = self.figure >= self.target if faster else self.figure <= self.target
        return f"{'≥' if faster else '≤'} {self.target:g} {self.figure_unit}: {'met' if met else 'MISSED'}"

    def cells(self) -> list[str]:
        """The line of the table."""
        figure = f"{self.figure:.{1 if self.figure_unit == 'x' else 0}f} {self.figure_unit}"
        sides = [
            f"{value:.{1 if value < 100 else 0}f} {self.unit}" for value in (self.reference, self.earmark)
        ]
        return [self.job, str(self.threads), *sides, figure, self.verdict]


@dataclass(frozen=True)
class Plan:
    """How much is measured: numbers of pairs, and minutes of the long recording."""

    cold: int = 11
    warm: int = 15
    long: int = 5
    memory: int = 3
    zoo: int = 11
    packs: int = 9
    steps: int = 5
    engines: int = 15
    minutes: int = 10


QUICK = Plan(cold=3, warm=3, long=2, memory=1, zoo=3, packs=3, steps=1, engines=5, minutes=1)


def cold(folder: Path, plan: Plan) -> Iterator[Row]:
    """A clip of 10 s on the command line, from nothing: default model, two threads."""
    pairs = _cold_pairs(folder, "default", "clip", (), plan.cold)
    job = "tag a 10 s clip from a cold start"
    walls = [(reference.wall_s * 1e3, ours.wall_s * 1e3) for reference, ours in pairs]
    yield _row(f"{job}: time", 2, walls, "ms", target=5)
    peaks = list(zip(*_peaks(pairs), strict=True))
    yield _row(f"{job}: peak memory", 2, peaks, "MB", target=40)


def warm(folder: Path, plan: Plan) -> Iterator[Row]:
    """Front-end, and samples to scores."""
    for threads in (1, 2):
        yield _timed("front-end, 10 s", "front_end", threads, folder, plan.warm)
    for model in ("mn04", "mn10"):
        for threads in (1, 2):
            target = 2 if (model, threads) == ("mn10", 2) else None
            job = f"{model}, 10 s of samples to scores"
            yield _timed(job, f"clip {model}", threads, folder, plan.warm, target)


def long(folder: Path, plan: Plan) -> Iterator[Row]:
    """A long file in windows."""
    for hop, target in (("2.5", 2.5), ("10", None)):
        job = f"mn10, {plan.minutes} min of file, 10 s every {hop} s"
        yield _timed(job, f"long mn10 10 {hop}", 2, folder, plan.long, target)


def growth(folder: Path, plan: Plan) -> Iterator[Row]:
    """What the length of a file adds to the peak memory that a clip of 10 s takes."""
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
    return pairs[1:]  # the first ones read from the disk


def _timed(name: str, job: str, threads: int, folder: Path, count: int, target: float | None = None) -> Row:
    with (
        worker("reference", job, folder, threads) as reference,
        worker("earmark", job, folder, threads) as ours,
    ):
        _check_alike(reference.answer, ours.answer, job)
        pairs = [(reference.measure() * 1e3, ours.measure() * 1e3) for _ in range(count)]
    return _row(name, threads, pairs, "ms", target)


def _check_alike(reference: list[float], ours: list[float], job: str) -> None:
    """Both sides must have done the same work, or their times say nothing."""
    difference = max(abs(a - b) for a, b in zip(reference, ours, strict=True))
    if difference > 0.01 * (max(reference) - min(reference)):
        raise SystemExit(f"{job}: the answers of the two sides differ by {difference:.2g}")


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


def jobs(parts: list[str], plan: Plan) -> tuple[str, list[Row]]:
    """Measures the main jobs."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(("-m", "benchmarks.prepare", name, str(60 * plan.minutes)))
        for part in parts:
            for row in PARTS[part](folder, plan):
                rows.append(row)
                print("  ".join(row.cells()), file=sys.stderr, flush=True)
    return table(rows), rows


def zoo(cache: Path | None, threads: tuple[int, ...], plan: Plan) -> tuple[str, list[Line]]:
    """Measures the published networks; their files are made where they are not in the folder yet."""
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as name:
        folder = (cache or Path(name)).resolve()  # the processes start in another folder
        folder.mkdir(parents=True, exist_ok=True)
        run(("-m", "benchmarks.prepare_zoo", str(folder)))
        for line in measured(folder, plan.zoo, threads):
            lines.append(line)
            print("  ".join(line.cells()), file=sys.stderr, flush=True)
    return zoo_table(lines), lines


def packs(plan: Plan) -> tuple[str, list[Any]]:
    """Measures how fast clips are read for training."""
    from benchmarks.packs import measured as measured_packs
    from benchmarks.packs import table as packs_table

    with tempfile.TemporaryDirectory() as name:
        lines = list(measured_packs(Path(name), plan.packs))
    return packs_table(lines), lines


def step(plan: Plan) -> tuple[str, list[Any]]:
    """Measures steps of training."""
    from benchmarks.step import lines as step_lines
    from benchmarks.step import table as step_table

    lines = list(step_lines(plan.steps, steps=2))
    return step_table(lines), lines


def engines(cache: Path | None, threads: tuple[int, ...], plan: Plan) -> tuple[str, list[Any]]:
    """Measures engines and precisions; the model files are made where they are not in the folder yet."""
    from benchmarks.engines import measured as measured_engines
    from benchmarks.engines import shares
    from benchmarks.engines import table as engines_table

    gains = []
    with tempfile.TemporaryDirectory() as name:
        folder = (cache or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        run(("-m", "benchmarks.engines", str(folder)))
        for gain in measured_engines(folder, plan.engines, threads):
            gains.append(gain)
            print("  ".join(gain.cells()), file=sys.stderr, flush=True)
        return engines_table(gains, shares(folder, plan.engines)), gains


def main() -> None:
    """Parses the command, prepares, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, as ratios.")
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[[], *PARTS, "zoo", "packs", "step", "engines"],
        help="by default all but the last four",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, one minute instead of ten")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    parser.add_argument(
        "--docs", type=Path, metavar="FILE", help="replace the table between the marks of this page"
    )
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="where zoo and engines keep their files")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=THREADS, metavar="N", help="of zoo, engines: 1 2"
    )
    arguments = parser.parse_args()
    plan = QUICK if arguments.quick else Plan()
    parts = arguments.parts or list(PARTS)
    results: dict[str, tuple[str, list[Any]]] = {}
    if "zoo" in parts:
        results["zoo"] = zoo(arguments.cache, tuple(arguments.threads), plan)
    if "engines" in parts:
        results["engines"] = engines(arguments.cache, tuple(arguments.threads), plan)
    if set(parts) & set(PARTS):
        results["measured"] = jobs([part for part in parts if part in PARTS], plan)
    if "step" in parts:
        results["step"] = step(plan)
    if "packs" in parts:  # last: this process grows by what it imports
        results["packs"] = packs(plan)
    facts: dict[str, Any] = {"machine": machine(), "plan": asdict(plan)}
    for name, (text, rows) in results.items():
        shown = f"{text}\n{machine()}.\n"
        print(shown, end="")
        facts["rows" if name == "measured" else name] = [asdict(row) for row in rows]
        if arguments.docs:
            update(arguments.docs, name, shown)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
