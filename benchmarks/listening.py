"""Measures live listening: the share of a core that it takes, and how soon events are noticed.

    python -m benchmarks.listening cost MODEL ... [--seconds 300] [--hop 1]
    python -m benchmarks.listening delay SCENES [--model MODEL] [--window 1 2 5]

``cost`` feeds noise at 48 kHz in blocks of a tenth of a second, with one thread, and divides the processor
time of the process, loading excepted, by the time of the sound. Window lengths take turns, and the median of
five rounds counts. ``delay`` listens to scenes of :mod:`benchmarks.scenes` and compares notices with the
truth.

Conventions: processor time is that of all threads, so a machine with other work to do changes it little. A
true event is found if an event of a label of its category overlaps it. Its delay is the position in the
stream at the first notice of such a start, or the last of such an end, minus the true one.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import time
from collections import defaultdict
from pathlib import Path
from runpy import run_path

import numpy as np

import earmark
from benchmarks.scenes import HELD_OUT
from earmark.audio import load_audio
from earmark.events.online import Notice

RATE, BLOCK = 48_000, 4_800
ROUNDS = 5


def cost(models: list[str], seconds: float, hop_s: float) -> None:
    """Prints a row per model and window."""
    sound = 0.1 * np.random.default_rng(0).standard_normal(RATE * 10).astype(np.float32)
    print("| model | window, s | hop, s | share of a core |\n| --- | --: | --: | --: |")
    for name in models:
        tagger = earmark.load(None if name == "default" else name, threads=1)
        settings = [(1.0, 0.5), (1.0, hop_s), (tagger.info.window_s, hop_s)]
        shares = defaultdict(list)
        for _ in range(ROUNDS):
            for setting in settings:
                shares[setting].append(share(tagger, sound, seconds, *setting))
        for (window_s, hop), found in shares.items():
            print(
                f"| {tagger.info.name} | {window_s:g} | {hop:g} | {statistics.median(found):.2%} |",
                flush=True,
            )


def share(tagger: earmark.Tagger, sound: np.ndarray, seconds: float, window_s: float, hop_s: float) -> float:
    """Processor time over time of the sound."""
    listener = tagger.listen(RATE, window_s=window_s, hop_s=hop_s)
    before = time.process_time()
    for number in range(round(seconds * RATE / BLOCK)):
        first = number * BLOCK % len(sound)
        listener.feed(sound[first : first + BLOCK])
    return (time.process_time() - before) / listener.position_s


def delay(scenes: Path, model: str | None, windows: list[float]) -> None:
    """Prints a row per window."""
    tagger = earmark.load(model, threads=1)
    truth = defaultdict(list)
    with (scenes / "truth.csv").open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            truth[row["file"]].append((row["label"], float(row["start_s"]), float(row["end_s"])))
    print(
        "| window, s | found | start: median, 95 % of events | end: median, 95 % | other events per minute |"
    )
    print("| --: | --: | --: | --: | --: |")
    for window_s in windows:
        delays: list[tuple[float, float]] = []
        others = 0
        for file, events in truth.items():
            waveform, _ = load_audio(scenes / file, tagger.sample_rate)
            listener = tagger.listen(tagger.sample_rate, window_s=window_s, hop_s=0.5)
            found, extra = compare(listener.feed(waveform) + listener.flush(), events)
            delays, others = delays + found, others + extra
        shown = [
            f"{np.median(each):.1f} s, {np.percentile(each, 95):.1f} s" for each in zip(*delays, strict=True)
        ]
        share_found = len(delays) / sum(map(len, truth.values()))
        print(
            f"| {window_s:g} | {share_found:.0%} | {' | '.join(shown)} | {others / len(truth):.1f} |",
            flush=True,
        )


def compare(
    notices: list[Notice], truth: list[tuple[str, float, float]]
) -> tuple[list[tuple[float, float]], int]:
    """Delays of start and end of each true event that was found, and the number of other events."""
    categories = run_path(str(HELD_OUT))["CATEGORIES"]
    known = {label for names in categories.values() for label in names}
    delays, used = [], set()
    for category, start_s, end_s in truth:
        hits = [one for one in notices if _overlaps(one, categories[category], start_s, end_s)]
        used |= {id(one) for one in hits}
        starts = [one.at_s for one in hits if one.kind == "start"]
        ends = [one.at_s for one in hits if one.kind == "end"]
        if starts and ends:
            delays.append((min(starts) - start_s, max(ends) - end_s))
    return delays, sum(
        one.kind == "end" and one.event.label in known and id(one) not in used for one in notices
    )


def _overlaps(notice: Notice, labels: tuple[str, ...], start_s: float, end_s: float) -> bool:
    event = notice.event
    end = event.end_s if notice.kind == "end" else float("inf")
    return event.label in labels and event.start_s < end_s and end > start_s and notice.at_s > start_s


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("cost")
    one.add_argument("models", nargs="+", metavar="MODEL")
    one.add_argument("--seconds", type=float, default=300)
    one.add_argument("--hop", type=float, default=1.0)
    other = commands.add_parser("delay")
    other.add_argument("scenes", type=Path)
    other.add_argument("--model")
    other.add_argument("--window", type=float, nargs="+", default=[1, 2, 5])
    args = parser.parse_args()
    if args.command == "cost":
        cost(args.models, args.seconds, args.hop)
    else:
        delay(args.scenes, args.model, args.window)


if __name__ == "__main__":
    main()
