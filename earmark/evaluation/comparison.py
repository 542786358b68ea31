"""Models side by side: what each costs and how well it does, with each engine, precision and thread count.

Conventions: a line is one model in one setting. Scores are those of the engine and precision that they stand
beside; they do not depend on the number of threads. The rule by which one is named to be shipped: of all
lines whose score is at most ``WITHIN`` below the highest, the one that tags the recording fastest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from earmark.data.manifest import Clip, file_hash
from earmark.errors import MissingExtraError, extra
from earmark.evaluation.evaluation import Values, evaluate
from earmark.evaluation.report import markdown_table
from earmark.evaluation.speed import Setting, Speed, measure, peak_bytes
from earmark.evaluation.speed_report import machine
from earmark.hub import registry
from earmark.model_file.atomic import write_atomically
from earmark.model_file.onnx_file import read_info
from earmark.version import __version__

WITHIN = 0.005
"""A score so far below the highest still counts as good: half a point."""
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
    """What a model is, whatever runs it.

    Args:
        file_bytes: Of its file, or of its members' files.
        stored: What its weights are stored in.
        parameters: None where PyTorch is not installed or the network is not in the registry.
        macs: Multiply-accumulate operations of a window; None likewise.
        maps_kb: The most that its feature maps take, calculated (:mod:`earmark.evaluation.complexity.model_cost`);
            None likewise.
        sha256: Of the files.
    """

    file_bytes: int
    stored: str
    parameters: int | None = None
    macs: int | None = None
    maps_kb: float | None = None
    sha256: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One model in one setting.

    Args:
        setting: Which.
        size: Of the model.
        speed: As measured.
        peak_bytes: The most memory that a fresh process held which loaded it and tagged the recording.
        scores: Metrics by name; empty without a manifest.
    """

    setting: Setting
    size: Size
    speed: Speed
    peak_bytes: int
    scores: Values = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Accuracy where each clip has one label, else mAP; None without a manifest."""
        return next((self.scores[name] for name in _HEADS if name in self.scores), None)


def compare(
    settings: Sequence[Setting],
    recording: Path,
    clips: Sequence[Clip] = (),
    rounds: int = 9,
    before: Callable[[str], object] = lambda text: None,
    complain: Callable[[str], object] = lambda reason: None,
) -> list[Line]:
    """Measures models in settings: first how well each does, then all of them in turns.

    Args:
        settings: See :func:`~earmark.evaluation.speed.settings_of`.
        recording: To measure time and memory by.
        clips: To judge by; none: no scores.
        rounds: Of the time measurement.
        before: Is told what comes next.
        complain: Is told, at once, what was wrong with a clip.

    Raises:
        DataError: If a clip has a label that is not a model's.
        ModelError: If a model cannot be loaded in a setting.
    """
    sizes = {setting.model: size_of(setting.model) for setting in settings}
    scores: dict[tuple[str, str, str], Values] = {}
    for setting in reversed(settings):  # with the most threads first
        key = setting.model, setting.engine, setting.precision
        if clips and key not in scores:
            before(f"judge {setting.model} {setting.options}")
            scores[key] = evaluate(setting.load(), clips, complain=complain).overall
    speeds = measure(settings, recording, rounds, before)
    lines = []
    for setting in settings:
        before(f"memory of {setting.model} {setting.options}")
        own = scores.get((setting.model, setting.engine, setting.precision), {})
        peak = peak_bytes(setting, recording)
        lines.append(Line(setting, sizes[setting.model], speeds[setting], peak, own))
    return lines


def size_of(model: str) -> Size:
    """What a model is: its files, and what its network costs where PyTorch is there to say so."""
    path = registry.find(model)
    info, size, hashes = read_info(path), path.stat().st_size, (file_hash(path),)
    try:
        with extra("counting parameters", "train"):
            from earmark.evaluation.complexity.model_cost import complexity
    except MissingExtraError:
        return Size(size, info.precision, sha256=hashes)
    cost = complexity(model, info.window_s).cost
    return Size(size, info.precision, cost.parameters, cost.macs, cost.peak_memory_kb, hashes)


def to_ship(lines: Sequence[Line]) -> Line:
    """The fastest of those that do well; of all where nothing was judged."""
    best = max((line.score for line in lines if line.score is not None), default=None)
    good = [line for line in lines if best is None or (line.score or 0) >= best - WITHIN]
    return min(good, key=lambda line: line.speed.clip_s)


def table(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """The lines as rows of text, the head first; a star marks the one to ship."""
    columns = _score_columns(lines)
    rows: list[tuple[str, ...]] = [(*_COLUMNS, *columns.values())]
    chosen = to_ship(lines)
    for line in lines:
        scores = [f"{line.scores[name]:.4f}" if name in line.scores else "" for name in columns]
        mark = "*" if line is chosen else ""
        rows.append((mark, *_size_cells(line), *_speed_cells(line.speed), *scores))
    return rows


def _score_columns(lines: Sequence[Line]) -> dict[str, str]:
    """Metric -> head of its column; calibration by class and clip only where no clip has but one label."""
    alone = any("log_loss" in line.scores for line in lines)
    pairs = {f"binary_{name}": f"binary {head}" for name, head in _CALIBRATION.items()}
    known = {**_HEADS, **(_CALIBRATION if alone else pairs)}
    return {name: head for name, head in known.items() if any(name in line.scores for line in lines)}


def _size_cells(line: Line) -> list[str]:
    size, setting = line.size, line.setting
    return [
        f"{name_of(setting.model)} ({size.stored})",
        f"{setting.engine} {setting.precision}",
        str(setting.threads),
        f"{size.file_bytes / MEGA:.2f}",
        "" if size.parameters is None else f"{size.parameters / MEGA:.3f}",
        "" if size.macs is None else f"{size.macs / 1e9:.3f}",
        "" if size.maps_kb is None else f"{size.maps_kb:.0f}",
        f"{line.peak_bytes / MEGA:.0f}",
    ]


def _speed_cells(speed: Speed) -> list[str]:
    times = f"{speed.window_s * 1e3:.1f}", f"{speed.clip_s * 1e3:.1f}"
    return [*times, f"{speed.clip_factor:.4f}", f"{speed.gain:.2f} x"]


def name_of(model: str) -> str:
    """A model for people: the names of files without their folders."""
    return Path(model).stem if Path(model).suffix else model


def summary(lines: Sequence[Line]) -> str:
    """Which one to ship, and by which rule."""
    chosen = to_ship(lines)
    best = max((line.score for line in lines if line.score is not None), default=None)
    rule = "the fastest" if best is None else f"the fastest within {WITHIN:g} of the best score, {best:.4f}"
    return f"ship (*): {name_of(chosen.setting.model)} with {chosen.setting.options}, {rule}"


def to_dict(lines: Sequence[Line], traced: Mapping[str, Any]) -> dict[str, Any]:
    """All numbers, as JSON can hold them.

    Args:
        lines: At least one.
        traced: What else the numbers can be traced by.
    """
    rows = [
        {**asdict(line.setting), **asdict(line.speed), "peak_bytes": line.peak_bytes, **asdict(line.size)}
        | {"scores": dict(line.scores)}
        for line in lines
    ]
    ship = {"setting": asdict(to_ship(lines).setting), "within": WITHIN}
    where = {"machine": machine({line.setting: line for line in lines}), "earmark": __version__}
    return {**traced, **where, "lines": rows, "ship": ship}


def write(lines: Sequence[Line], traced: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes report.json, report.md and, of judged models where matplotlib is installed, tradeoff.png.

    Raises:
        OSError: If they cannot be written.
    """
    values = to_dict(lines, traced)
    plots = _plot(lines, folder)
    pictures = [f"![score against time]({path.name})" for path in plots]
    sections = ["# What to ship", summary(lines), markdown_table(table(lines)), values["machine"], *pictures]
    text = "\n\n".join(sections) + "\n"
    write_atomically(folder / "report.json", json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "report.md", text)
    return [folder / "report.json", folder / "report.md", *plots]


def _plot(lines: Sequence[Line], folder: Path) -> list[Path]:
    points = [line for line in lines if line.score is not None]
    if not points:
        return []
    try:
        with extra("a plot of score against time", "plot"):
            from earmark.evaluation.plots import plot_tradeoff
    except MissingExtraError:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tradeoff.png"
    score = next(head for name, head in _HEADS.items() if name in points[0].scores)
    drawn = [(_point_name(line), line.speed.clip_s * 1e3, line.score or 0.0) for line in points]
    plot_tradeoff(drawn, points.index(to_ship(lines)), score, path)
    return [path]


def _point_name(line: Line) -> str:
    setting = line.setting
    how = f"{setting.engine} {setting.precision}, {setting.threads} thread{'s'[: setting.threads > 1]}"
    return f"{name_of(setting.model)} ({line.size.stored}), {how}"
