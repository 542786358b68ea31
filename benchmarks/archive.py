"""Archives: clips of 5 s per second, by several processes, against the reference's path for one file.

    python -m benchmarks.archive SIDE FOLDER COUNT [WORKERS MODEL ENGINE PRECISION]

runs one side and prints milliseconds per clip. SIDE is "reference" (one process, PyTorch's default number of
threads), "earmark" (the whole of ``earmark tag --output FOLDER``), or "long" (one long recording).

Conventions: the sides alternate, each in a process of its own. Starting processes and opening models is not
counted: the clock starts when a fifth of the clips is done. Ratios are medians over the rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.plan import Plan
from benchmarks.processes import ROOT
from benchmarks.tables import markdown

CLIPS = 40
"""Different clips, each of which is tagged several times."""
LONG = ("mn04", "mn10")
SIDES = {
    "ONNX Runtime, fp32": (2, "mn10", "onnx", "fp32"),
    "ONNX Runtime, fp32, one process": (1, "mn10", "onnx", "fp32"),
    "OpenVINO, fp32": (2, "mn10", "openvino", "fp32"),
    "OpenVINO, bf16": (2, "mn10", "openvino", "bf16"),
    "ONNX Runtime, int8": (2, "mn10_int8", "onnx", "fp32"),
    "OpenVINO, int8 and bf16": (2, "mn10_int8", "openvino", "bf16"),
}
"""Side -> processes, model, engine, precision."""
FP32, ONE = list(SIDES)[:2]
TARGETS = {"fp32": 3.5, "fastest": 5.0, "processes": 1.85}


@dataclass(frozen=True)
class ArchiveRow:
    """A row of the table.

    Args:
        side: What was measured.
        processes: Number of processes.
        ms: Median of milliseconds per clip.
        ratio: Median of the reference's time over that of this side.
    """

    side: str
    processes: int
    ms: float
    ratio: float

    def cells(self) -> list[str]:
        """The cells of the row."""
        return [
            self.side,
            str(self.processes),
            f"{self.ms:.1f} ms",
            f"{1e3 / self.ms:.0f}",
            f"{self.ratio:.2f} x",
        ]


@dataclass(frozen=True)
class Measured:
    """What was measured: the rows, the gain by a second process, and hours of long recordings a second."""

    rows: list[ArchiveRow]
    processes: float
    hours_per_s: dict[str, float]


def measured(folder: Path, rounds: int) -> Measured:
    """Measures all sides in turn; the folder has the clips and the models."""
    times: dict[str, list[float]] = {name: [] for name in ("reference", *SIDES, *LONG)}
    for _ in range(rounds):
        times["reference"].append(_side("reference", folder, 50))
        for name, (workers, model, engine, precision) in SIDES.items():
            count = 150 * workers
            times[name].append(_side("earmark", folder, count, str(workers), model, engine, precision))
        for model in LONG:
            times[model].append(_side("long", folder, 1, "1", model))
        print("  ".join(f"{name} {own[-1]:.1f}" for name, own in times.items()), file=sys.stderr, flush=True)
    reference = times["reference"]
    rows = [ArchiveRow("reference", 1, median(reference), 1.0)]
    for name, (workers, *_) in SIDES.items():
        ratio = median(before / own for before, own in zip(reference, times[name], strict=True))
        rows.append(ArchiveRow(name, workers, median(times[name]), ratio))
    gain = median(one / two for one, two in zip(times[ONE], times[FP32], strict=True))
    return Measured(rows, gain, {model: 1 / median(times[model]) for model in LONG})


def table(found: Measured) -> str:
    """The figures as a Markdown table, and the targets."""
    head = ["side", "processes", "a clip", "clips/s", "of the reference"]
    ratios = {row.side: row.ratio for row in found.rows}
    fastest = max(ratios, key=ratios.__getitem__)
    checks = [
        ("fp32", ratios[FP32], TARGETS["fp32"]),
        (f"the fastest ({fastest})", ratios[fastest], TARGETS["fastest"]),
        ("a second process", found.processes, TARGETS["processes"]),
    ]
    verdicts = [
        f"{name} {value:.2f} x (≥ {least:g} x: {'met' if value >= least else 'MISSED'})"
        for name, value, least in checks
    ]
    hours = ", ".join(f"{model} {rate:.2f}" for model, rate in found.hours_per_s.items())
    lines = "; ".join(verdicts) + f".\n\nHours of one long recording per second, two threads: {hours}.\n"
    return markdown(head, [row.cells() for row in found.rows], numbers=head[1:]) + "\n" + lines


def prepared(plan: Plan) -> Measured:
    """Writes clips and models into a temporary folder, and measures."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-m", "benchmarks.prepare", "archive", name, str(60 * plan.minutes)]
        subprocess.run(command, cwd=ROOT, check=True)
        return measured(Path(name), plan.archive)


def _side(side: str, folder: Path, count: int, *options: str) -> float:
    """Milliseconds per clip of one side; of a long recording, seconds per hour."""
    command = [sys.executable, "-m", "benchmarks.archive", side, str(folder), str(count), *options]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout))


def _clips(folder: Path, count: int) -> Iterator[str]:
    return (str(folder / f"{number % CLIPS:03}.ogg") for number in range(count))


def _reference_ms(folder: Path, count: int) -> float:
    from benchmarks.reference import Reference

    reference = Reference(str(folder / "mn10"))
    window_s = reference.info.window_s
    began_s = 0.0
    for number, path in enumerate(_clips(folder, count)):
        if number == count // 5:
            began_s = time.perf_counter()
        reference.windows(reference.read(path), window_s, window_s)
    return 1e3 * (time.perf_counter() - began_s) / (count - count // 5)


def _earmark_ms(folder: Path, count: int, workers: str, model: str, engine: str, precision: str) -> float:
    from earmark import load
    from earmark.batch.analysis import Analysis, Filter
    from earmark.batch.run import Summary, write_archive

    tagger = load(folder / f"{model}.onnx", engine=engine, precision=precision, threads=1)  # type: ignore[arg-type]
    ends: list[float] = []

    def report(summary: Summary, path: str, error: str | None) -> None:
        if error:
            raise SystemExit(error)
        ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as out:
        analysis = Analysis(tagger, filter=Filter(top=10))
        write_archive(analysis, _clips(folder, count), Path(out), workers=int(workers), report=report)
    first = count // 5
    return 1e3 * (ends[-1] - ends[first]) / (len(ends) - 1 - first)


def _long_s(folder: Path, model: str) -> float:
    from earmark import load

    tagger = load(folder / f"{model}.onnx")
    tagger.tag(folder / "000.ogg")
    began_s = time.perf_counter()
    result = tagger.tag(folder / "long.wav")
    return 3600 * (time.perf_counter() - began_s) / result.duration_s


def main(side: str, folder: str, count: str, *options: str) -> None:
    """Runs one side."""
    if side == "reference":
        print(_reference_ms(Path(folder), int(count)))
    elif side == "earmark":
        print(_earmark_ms(Path(folder), int(count), *options))
    else:
        print(_long_s(Path(folder), options[1]))


if __name__ == "__main__":
    main(*sys.argv[1:])
