"""Comparison of models by size, speed, memory and scores, with each engine, precision and number of threads.

Conventions: an entry is one model in one setting. Scores are measured with the entry's engine and precision;
they do not depend on the number of threads. Recommended is the fastest entry whose score is at most
``MAX_SCORE_DROP`` below the best.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from earmark.data.manifest import Clip, file_hash
from earmark.errors import MissingExtraError, extra
from earmark.evaluation.evaluation import Values, evaluate_predictions
from earmark.evaluation.predictions import predict_clips, require_labels
from earmark.evaluation.report import markdown_table
from earmark.evaluation.speed import Setting, Speed, machine, measure, peak_bytes
from earmark.hub import registry
from earmark.model_file.atomic import write_atomically
from earmark.model_file.onnx_file import read_info
from earmark.version import __version__

MAX_SCORE_DROP = 0.005
"""Largest distance of the recommended entry's score from the best."""
MEGA = 1e6
_COLUMNS: tuple[str, ...] = (
    "",
    "model",
    "engine",
    "threads",
    "file, MB",
    "parameters, M",
    "MACs, G",
    "maps, kB",
    "peak, MB",
)
_COLUMNS += ("window, ms", "clip, ms", "factor", "faster")
_HEADS = {"accuracy": "accuracy", "map_macro": "mAP"}
_CALIBRATION = {"expected_calibration_error": "ECE", "log_loss": "log loss", "brier": "Brier"}


@dataclass(frozen=True)
class Size:
    """Size of a model, which does not depend on the setting.

    Args:
        file_bytes: Size of its file.
        stored: Precision of the stored weights.
        parameters: None where PyTorch is not installed or the network is not in the registry.
        macs: Multiply-accumulate operations of a window; None likewise.
        maps_kb: Peak memory of the feature maps, computed (:mod:`earmark.evaluation.complexity`); None
            likewise.
        sha256: Of the file.
    """

    file_bytes: int
    stored: str
    parameters: int | None = None
    macs: int | None = None
    maps_kb: float | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Entry:
    """One model in one setting.

    Args:
        setting: The setting.
        size: Of the model.
        speed: Measured times.
        peak_bytes: Peak memory of a fresh process that opens the model and tags the file.
        scores: Metrics by name; empty without clips.
    """

    setting: Setting
    size: Size
    speed: Speed
    peak_bytes: int
    scores: Values = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Accuracy where each clip has one label, else mAP; None without clips."""
        return next((self.scores[name] for name in _HEADS if name in self.scores), None)


def compare(
    settings: Sequence[Setting],
    recording: Path,
    clips: Sequence[Clip] = (),
    rounds: int = 9,
    progress: Callable[[str], object] = lambda text: None,
    on_error: Callable[[str], object] = lambda reason: None,
) -> list[Entry]:
    """Measures models in settings: first their scores, then their times in turns.

    Args:
        settings: See :func:`~earmark.evaluation.speed.all_settings`.
        recording: Audio file for time and memory.
        clips: To evaluate on; empty: no scores.
        rounds: Of the time measurement.
        progress: Called with a text before each step.
        on_error: Called with the reason when a clip cannot be processed.

    Raises:
        DataError: If a clip has a label that a model lacks.
        ModelError: If a model cannot be opened with a setting.
    """
    sizes = {setting.model: model_size(setting.model) for setting in settings}
    scores: dict[tuple[str, str, str], Values] = {}
    for setting in reversed(settings):  # with the most threads first
        key = setting.model, setting.engine, setting.precision
        if clips and key not in scores:
            progress(f"evaluate {setting.model} {setting.options}")
            scores[key] = _scores(setting, clips, on_error)
    speeds = measure(settings, recording, rounds, progress)
    entries = []
    for setting in settings:
        progress(f"memory of {setting.model} {setting.options}")
        own = scores.get((setting.model, setting.engine, setting.precision), {})
        peak = peak_bytes(setting, recording)
        entries.append(Entry(setting, sizes[setting.model], speeds[setting], peak, own))
    return entries


def _scores(setting: Setting, clips: Sequence[Clip], on_error: Callable[[str], object]) -> Values:
    tagger = setting.load()
    require_labels(clips, tagger.labels)
    predictions, info = predict_clips(tagger, clips, on_error=on_error), tagger.info
    return evaluate_predictions(predictions, info.labels, info.task, threshold=info.threshold).overall


def model_size(model: str) -> Size:
    """Size of a model file, and cost of its network where PyTorch is installed."""
    path = registry.find(model)
    info = read_info(path)
    size = Size(path.stat().st_size, info.precision, sha256=file_hash(path))
    try:
        with extra("counting parameters", "train"):
            from earmark.evaluation.complexity.model_cost import complexity
    except MissingExtraError:
        return size
    cost = complexity(model, info.window_s).cost
    return replace(size, parameters=cost.parameters, macs=cost.macs, maps_kb=cost.peak_memory_kb)


def recommended(entries: Sequence[Entry]) -> Entry:
    """The fastest entry with a good score; of all where there are no scores."""
    best = max((entry.score for entry in entries if entry.score is not None), default=None)
    good = [entry for entry in entries if best is None or (entry.score or 0) >= best - MAX_SCORE_DROP]
    return min(good, key=lambda entry: entry.speed.clip_s)


def table(entries: Sequence[Entry]) -> list[tuple[str, ...]]:
    """The entries as rows of text, the head first; a star marks the recommended one."""
    columns = _score_columns(entries)
    rows: list[tuple[str, ...]] = [(*_COLUMNS, *columns.values())]
    chosen = recommended(entries)
    for entry in entries:
        scores = [f"{entry.scores[name]:.4f}" if name in entry.scores else "" for name in columns]
        mark = "*" if entry is chosen else ""
        rows.append((mark, *_size_cells(entry), *_speed_cells(entry.speed), *scores))
    return rows


def _score_columns(entries: Sequence[Entry]) -> dict[str, str]:
    """Metric -> head of its column; binary calibration metrics only where clips have several labels."""
    alone = any("log_loss" in entry.scores for entry in entries)
    pairs = {f"binary_{name}": f"binary {head}" for name, head in _CALIBRATION.items()}
    known = {**_HEADS, **(_CALIBRATION if alone else pairs)}
    return {name: head for name, head in known.items() if any(name in entry.scores for entry in entries)}


def _size_cells(entry: Entry) -> list[str]:
    size, setting = entry.size, entry.setting
    return [
        f"{display_name(setting.model)} ({size.stored})",
        f"{setting.engine} {setting.precision}",
        str(setting.threads),
        f"{size.file_bytes / MEGA:.2f}",
        "" if size.parameters is None else f"{size.parameters / MEGA:.3f}",
        "" if size.macs is None else f"{size.macs / 1e9:.3f}",
        "" if size.maps_kb is None else f"{size.maps_kb:.0f}",
        f"{entry.peak_bytes / MEGA:.0f}",
    ]


def _speed_cells(speed: Speed) -> list[str]:
    times = f"{speed.window_s * 1e3:.1f}", f"{speed.clip_s * 1e3:.1f}"
    return [*times, f"{speed.clip_factor:.4f}", f"{speed.speedup:.2f} x"]


def display_name(model: str) -> str:
    """Name of a model: of a file without folder and suffix."""
    return Path(model).stem if Path(model).suffix else model


def summary(entries: Sequence[Entry]) -> str:
    """The recommended entry, and the rule."""
    chosen = recommended(entries)
    best = max((entry.score for entry in entries if entry.score is not None), default=None)
    rule = (
        "the fastest"
        if best is None
        else f"the fastest within {MAX_SCORE_DROP:g} of the best score, {best:.4f}"
    )
    return f"recommended (*): {display_name(chosen.setting.model)} with {chosen.setting.options}, {rule}"


def to_dict(entries: Sequence[Entry], traced: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, for JSON.

    Args:
        entries: At least one.
        traced: Origin of the numbers.
    """
    rows = [
        {**asdict(entry.setting), **asdict(entry.speed), "peak_bytes": entry.peak_bytes, **asdict(entry.size)}
        | {"scores": dict(entry.scores)}
        for entry in entries
    ]
    best = {"setting": asdict(recommended(entries).setting), "max_score_drop": MAX_SCORE_DROP}
    where = {"machine": machine({entry.setting: entry for entry in entries}), "earmark": __version__}
    return {**traced, **where, "entries": rows, "recommended": best}


def write(entries: Sequence[Entry], traced: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes report.json, report.md and, of scored models where matplotlib is installed, tradeoff.png.

    Raises:
        OSError: If they cannot be written.
    """
    values = to_dict(entries, traced)
    plots = _plot(entries, folder)
    pictures = [f"![score against time]({path.name})" for path in plots]
    sections = [
        "# Comparison",
        summary(entries),
        markdown_table(table(entries)),
        values["machine"],
        *pictures,
    ]
    text = "\n\n".join(sections) + "\n"
    write_atomically(folder / "report.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "report.md", text)
    return [folder / "report.json", folder / "report.md", *plots]


def _plot(entries: Sequence[Entry], folder: Path) -> list[Path]:
    points = [entry for entry in entries if entry.score is not None]
    if not points:
        return []
    try:
        with extra("a plot of score against time", "plot"):
            from earmark.plots.cost import plot_tradeoff
    except MissingExtraError:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tradeoff.png"
    score = next(head for name, head in _HEADS.items() if name in points[0].scores)
    drawn = [(_point_name(entry), entry.speed.clip_s * 1e3, entry.score or 0.0) for entry in points]
    plot_tradeoff(drawn, points.index(recommended(entries)), score, path)
    return [path]


def _point_name(entry: Entry) -> str:
    setting = entry.setting
    how = f"{setting.engine} {setting.precision}, {setting.threads} thread{'s'[: setting.threads > 1]}"
    return f"{display_name(setting.model)} ({entry.size.stored}), {how}"
