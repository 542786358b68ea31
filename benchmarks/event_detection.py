"""Measures how well events are detected in synthetic scenes: local scores beside overlapping windows.

    python -m benchmarks.event_detection --esc18 DIR --open-audio DIR --cache DIR [--model M] [--scenes N]

For each way to get scores over time, the threshold of each metric is chosen on the tuning scenes, and the
metric is that of the judging scenes. Scores are kept in the cache, so that an interrupted run goes on.
Results: docs/research/events.md.

Conventions: the score of a category of esc18 is the highest of the AudioSet labels that mean it. Cost is the
time of the network alone, per second of audio, relative to tagging in windows of 5 s that do not overlap.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from runpy import run_path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import earmark
from benchmarks.scenes import HELD_OUT, RATE, SCENE_S, Part, Sources, build_scene, find_sources
from benchmarks.tables import markdown
from earmark.evaluation.metrics.events import Recordings, event_counts, segment_counts
from earmark.evaluation.metrics.psds import SCENARIO_1, SCENARIO_2, psds
from earmark.events.detect import detect
from earmark.events.event import Event, ScoreSeries
from earmark.events.options import EventOptions
from earmark.inference.engines import Session
from earmark.inference.local_scores import with_local_scores
from earmark.inference.tagger import Tagger

Floats = NDArray[np.float32]

THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
CATEGORIES: Mapping[str, Sequence[str]] = run_path(str(HELD_OUT))["CATEGORIES"]
NAMES = tuple(sorted(CATEGORIES))


class Method(NamedTuple):
    """A way to get scores over time: windows and their hop in seconds, and whether scores are local."""

    window_s: float
    hop_s: float
    local: bool = False

    def __str__(self) -> str:
        kind = "local scores, " if self.local else ""
        return f"{kind}windows of {self.window_s:g} s, hop {self.hop_s:g} s"


ORDINARY = Method(5, 5)
METHODS = (
    Method(1, 0.5),
    Method(2, 0.5),
    Method(5, 1),
    Method(10, 1),
    Method(5, 5, local=True),
    Method(10, 10, local=True),
)


class TimedSession:
    """A session that adds up the seconds that it takes.

    Args:
        session: Runs the network.
    """

    def __init__(self, session: Session) -> None:
        self._session, self.seconds = session, 0.0

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs."""
        start = time.process_time()
        outputs = self._session.run(names, inputs)
        self.seconds += time.process_time() - start
        return outputs


def timed(tagger: Tagger) -> tuple[Tagger, TimedSession]:
    """Returns the tagger with a session that measures its time."""
    session = TimedSession(tagger.session)
    return type(tagger)(session, tagger.info), session


def series_of(tagger: Tagger, scene: Floats, method: Method) -> ScoreSeries:
    """Scores of esc18's categories over time."""
    result = tagger.tag(scene, RATE, window_s=method.window_s, hop_s=method.hop_s)
    whole = result.score_series
    columns = [[whole.labels.index(label) for label in CATEGORIES[name]] for name in NAMES]
    scores = np.stack([whole.scores[:, one].max(1) for one in columns], 1)
    return ScoreSeries(NAMES, scores, whole.step_s, whole.resolution_s, whole.start_s, whole.end_s)


class Scored(NamedTuple):
    """Scenes that have been scored: their events, the series of each method, and the seconds of each."""

    truth: list[list[Event]]
    series: dict[Method, list[ScoreSeries]]
    seconds: dict[Method, float]


def score_scenes(model: str, sources: Sources, part: Part, count: int, cache: Path) -> Scored:
    """Scores scenes, or reads their scores from the cache."""
    tagger, ordinary_time = timed(earmark.load(model, threads=1))
    local, local_time = timed(with_local_scores(earmark.load(model, threads=1)))
    scored = Scored([], {method: [] for method in METHODS}, dict.fromkeys((*METHODS, ORDINARY), 0.0))
    for number in range(count):
        path = cache / f"{tagger.info.name}_{part}_{number:03}.npz"
        if not path.exists():
            scene, events = build_scene(sources, part, number)
            content = {
                "truth": np.array([(NAMES.index(one.label), one.start_s, one.end_s) for one in events])
            }
            for method in (*METHODS, ORDINARY):
                clock = local_time if method.local else ordinary_time
                before = clock.seconds
                series = series_of(local if method.local else tagger, scene, method)
                content[f"{method} scores"] = series.scores
                content[f"{method} times"] = np.array(
                    [series.step_s, series.resolution_s, clock.seconds - before]
                )
            np.savez(path, **content)
        _read(path, scored)
    return scored


def _read(path: Path, scored: Scored) -> None:
    with np.load(path) as content:
        scored.truth.append(
            [Event(NAMES[int(label)], start, end, 1.0, 1.0, 0.0) for label, start, end in content["truth"]]
        )
        for method in scored.seconds:
            step_s, resolution_s, seconds = content[f"{method} times"]
            scored.seconds[method] += seconds
            if method in scored.series:
                scores = content[f"{method} scores"]
                scored.series[method].append(ScoreSeries(NAMES, scores, step_s, resolution_s, 0.0, SCENE_S))


METRICS = {
    "segment F1": lambda truth, found: segment_counts(truth, found, NAMES).micro_f1,
    "event F1, 0.2 s": lambda truth, found: event_counts(truth, found, NAMES, 0.2).micro_f1,
    "event F1, 0.5 s": lambda truth, found: event_counts(truth, found, NAMES, 0.5).micro_f1,
}


def detections(series: Sequence[ScoreSeries]) -> list[Recordings]:
    """The events of each scene at each threshold."""
    options = (EventOptions(threshold) for threshold in THRESHOLDS)
    return [[detect(one, each) for one in series] for each in options]


def judge(method: Method, tuning: Scored, judging: Scored) -> list[str]:
    """A row of the table: metrics of the judging scenes at the thresholds of the tuning scenes."""
    tuned, judged = (detections(scored.series[method]) for scored in (tuning, judging))
    cells = []
    for metric in METRICS.values():
        values = np.nan_to_num([metric(tuning.truth, found) for found in tuned])
        best = int(values.argmax())
        cells.append(f"{metric(judging.truth, judged[best]):.3f} ({THRESHOLDS[best]:g})")
    score = partial(psds, judging.truth, judged, NAMES, SCENE_S * len(judging.truth))
    cells += [f"{score(options):.3f}" for options in (SCENARIO_1, SCENARIO_2)]
    return [*cells, f"{judging.seconds[method] / judging.seconds[ORDINARY]:.2f}"]


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--esc18", type=Path, required=True)
    parser.add_argument("--open-audio", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="mn05_open")
    parser.add_argument("--scenes", type=int, default=200, help="of each part")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    tuning, judging = (
        score_scenes(
            args.model, find_sources(args.esc18, args.open_audio, part), part, args.scenes, args.cache
        )
        for part in ("tuning", "judging")
    )
    heading = ["scores over time", *METRICS, "PSDS 1", "PSDS 2", "cost"]
    rows = [[str(method), *judge(method, tuning, judging)] for method in METHODS]
    print(markdown(heading, rows, heading[1:]))


if __name__ == "__main__":
    main()
