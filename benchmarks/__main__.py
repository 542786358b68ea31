"""Measures speed and memory, as ratios to a reference, and prints tables.

    python -m benchmarks [PART ...] [--quick] [--json FILE] [--docs FILE] [--cache FOLDER] [--threads N ...]

PART is one of the main jobs (cold, warm, long, growth; by default all four, see :mod:`benchmarks.jobs`) or
networks, engines, archive, step or packs, each in the module of that name.

Conventions: every figure is a ratio of two measurements of the same run. Needs the extra "train".
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import jobs, networks
from benchmarks.plan import QUICK, Plan
from benchmarks.processes import run
from benchmarks.tables import machine, update

Measured = tuple[str, list[Any]]
"""A table, and the rows that it was made of."""
OTHERS = ("networks", "engines", "archive", "step", "packs")
"""Parts besides the main jobs, in the order they run in: packs last, as it makes this process grow."""


def measure_networks(plan: Plan, cache: Path | None, threads: tuple[int, ...]) -> Measured:
    """The published networks; model files that the folder lacks are exported first."""
    with _folder(cache) as folder:
        run(("-m", "benchmarks.prepare", "networks", str(folder)))
        rows = _shown(networks.measured(folder, plan.networks, threads))
    return networks.table(rows), rows


def measure_engines(plan: Plan, cache: Path | None, threads: tuple[int, ...]) -> Measured:
    """Engines and precisions; model files that the folder lacks are exported first."""
    from benchmarks import engines

    with _folder(cache) as folder:
        run(("-m", "benchmarks.prepare", "engines", str(folder)))
        rows = _shown(engines.measured(folder, plan.engines, threads))
        return engines.table(rows, engines.shares(folder, plan.engines)), rows


def measure_archive(plan: Plan) -> Measured:
    """Archives."""
    from benchmarks import archive

    found = archive.prepared(plan)
    return archive.table(found), found.rows


def measure_step(plan: Plan) -> Measured:
    """A training step."""
    from benchmarks import step

    rows = list(step.measured(plan.step, steps=2))
    return step.table(rows), rows


def measure_packs(plan: Plan) -> Measured:
    """Reading clips for training."""
    from benchmarks import packs

    with _folder(None) as folder:
        rows = list(packs.measured(folder, plan.packs))
    return packs.table(rows), rows


@contextmanager
def _folder(cache: Path | None) -> Iterator[Path]:
    """The cache, or a temporary folder; absolute, as the processes start in another folder."""
    if cache is not None:
        cache.mkdir(parents=True, exist_ok=True)
        yield cache.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _shown(rows: Iterable[Any]) -> list[Any]:
    """Collects rows, and prints each to standard error as it comes."""
    found = []
    for row in rows:
        found.append(row)
        print("  ".join(row.cells()), file=sys.stderr, flush=True)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, as ratios.")
    parser.add_argument(
        "parts",
        nargs="*",
        choices=[[], *jobs.PARTS, *OTHERS],
        metavar="PART",
        help=f"{', '.join(jobs.PARTS)} (default: these four), {', '.join(OTHERS)}",
    )
    parser.add_argument("--quick", action="store_true", help="few repetitions, one minute instead of ten")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="replace the tables of this page")
    parser.add_argument("--cache", type=Path, metavar="FOLDER", help="keep the files of networks and engines")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=networks.THREADS, metavar="N", help="of networks, engines"
    )
    return parser


def main() -> None:
    """Measures the parts asked for and prints their tables."""
    arguments = _parser().parse_args()
    plan = QUICK if arguments.quick else Plan()
    parts = arguments.parts or list(jobs.PARTS)
    threads = tuple(arguments.threads)
    results: dict[str, Measured] = {}
    if main_jobs := [part for part in parts if part in jobs.PARTS]:
        rows = _shown(jobs.measured(main_jobs, plan))
        results["jobs"] = jobs.table(rows), rows
    if "networks" in parts:
        results["networks"] = measure_networks(plan, arguments.cache, threads)
    if "engines" in parts:
        results["engines"] = measure_engines(plan, arguments.cache, threads)
    if "archive" in parts:
        results["archive"] = measure_archive(plan)
    if "step" in parts:
        results["step"] = measure_step(plan)
    if "packs" in parts:
        results["packs"] = measure_packs(plan)
    facts: dict[str, Any] = {"machine": machine(), "plan": asdict(plan)}
    for name, (table, rows) in results.items():
        shown = f"{table}\n{machine()}.\n"
        print(shown, end="")
        facts[name] = [asdict(row) for row in rows]
        if arguments.docs:
            update(arguments.docs, name, shown)
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
