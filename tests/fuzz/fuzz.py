"""Reads changed files in child processes with limits, and counts what happens.

``python tests/fuzz/fuzz.py --count 1000`` prints the counts of every kind, ``--kind model --first 17
--count 1`` repeats one file. Outcomes: accepted; typed, an EarmarkError of one line; untyped, another
exception or several lines; crashed, the process died or took too long.
"""

import argparse
import faulthandler
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
MEMORY = 4 << 30
"""Limit of a child's data, in bytes."""
SECONDS = 60
"""Limit of one file."""
LIBRARY_FAULTS = ("h5py/_hl/dataset.py",)
"""Where a process may end by a fault of a library: libhdf5 can loop for ever in a damaged heap of rows."""
OUTCOMES = ("accepted", "typed", "untyped", "crashed")


class Report(NamedTuple):
    """What happened to the files of a kind.

    Attributes:
        counts: Outcome -> number of files.
        failures: Number and reason of those whose outcome is untyped or crashed.
        library_faults: The same of those where the process ended within one of ``LIBRARY_FAULTS``.
    """

    counts: Counter[str]
    failures: list[tuple[int, str]]
    library_faults: list[tuple[int, str]]


def fuzz(kind: str, count: int, folder: Path, first: int = 0) -> Report:
    """Reads changed files of a kind; after a crash it goes on with the next in another process.

    Args:
        kind: One of ``KINDS``.
        count: Number of files.
        folder: An empty folder to work in; files that failed stay there.
        first: Number of the first file; each number is a file of its own.
    """
    counts, last = Counter(dict.fromkeys(OUTCOMES, 0)), first + count
    failures: list[tuple[int, str]] = []
    of_libraries: list[tuple[int, str]] = []
    while first < last:
        # isolated from the environment of the tests, which may hide modules or faults
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(HERE.parents[1]),
            "MALLOC_ARENA_MAX": "2",
        }
        command = [sys.executable, str(HERE / "fuzz.py"), "--child", kind, str(first), str(last), str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
        for number, outcome, reason in lines:
            counts[outcome] += 1
            if outcome == "untyped":
                failures.append((number, reason))
        first += len(lines)
        if first < last:
            counts["crashed"] += 1
            innermost = next((line for line in done.stderr.splitlines() if line.startswith("  File ")), "")
            known = any(place in innermost for place in LIBRARY_FAULTS)
            (of_libraries if known else failures).append(
                (first, f"exit {done.returncode}: {done.stderr[-600:]}")
            )
            first += 1
    return Report(counts, failures, of_libraries)


def child(kind: str, first: int, last: int, folder: Path) -> None:
    """Reads files and prints a line for each; the limits are those of the process."""
    sys.path.insert(0, str(HERE.parent))
    from kinds import KINDS

    from earmark.errors import EarmarkError

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    faulthandler.enable()
    for number in range(first, last):
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        place = folder / str(number)
        shutil.rmtree(place, ignore_errors=True)
        KINDS[kind].write(Random(f"{kind} {number}"), folder / "intact", place)
        outcome, reason = "accepted", ""
        try:
            KINDS[kind].read(place)
        except EarmarkError as error:
            reason = str(error)
            outcome = "typed" if len(reason.splitlines()) == 1 else "untyped"
        except Exception as error:
            outcome, reason = "untyped", f"{type(error).__name__}: {error} ({_origin(error)})"
        print(json.dumps([number, outcome, reason[:600]]), flush=True)
        if outcome != "untyped":
            shutil.rmtree(place)


def _origin(error: BaseException) -> str:
    """The last line of earmark that an error came through."""
    found, trace = "", error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        found = f"{Path(path).name}:{trace.tb_lineno}" if "earmark/" in path else found
        trace = trace.tb_next
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        kind, first, last, folder = sys.argv[2:]
        child(kind, int(first), int(last), Path(folder))
        return
    sys.path.insert(0, str(HERE.parent))
    from kinds import KINDS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    print(f"{'kind':12}" + "".join(f"{outcome:>10}" for outcome in OUTCOMES))
    for kind in given.kind or KINDS:
        folder = Path(tempfile.mkdtemp(prefix=f"fuzz_{kind}_"))
        report = fuzz(kind, given.count, folder, given.first)
        print(f"{kind:12}" + "".join(f"{report.counts[outcome]:>10}" for outcome in OUTCOMES), flush=True)
        for number, reason in report.failures + report.library_faults:
            print(f"  {folder / str(number)}: {reason}", flush=True)
        if not report.failures + report.library_faults:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
