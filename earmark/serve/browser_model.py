"""A model as files for a browser: graphs that take waveforms, and a table of all that a page needs to know.

Conventions: lengths in samples at the model's rate have no unit in their names, those in seconds end in
``_s``. Scores along time are those of ``earmark tag --events``: local scores where the model has them, else
those of overlapping windows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.events.online import listen_lengths
from earmark.events.options import EventOptions
from earmark.export.export import Exported, Progress, export
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource
from earmark.export.verify import Recording
from earmark.features.front_end import FrontEnd
from earmark.inference.engines import open_engine
from earmark.inference.lengths import window_and_hop
from earmark.inference.load import load
from earmark.inference.local_scores import finest_scores, piece_steps, seconds_per_position
from earmark.inference.tagger import Tagger
from earmark.model_file.calibration import calibration_to_dict
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_model_file, replace_info
from earmark.model_file.subgraph import SplitGraph, split_before_pooling
from earmark.version import __version__

MODEL, HEAD, CARD = "model.onnx", "head.onnx", "model.json"


@dataclass(frozen=True)
class BrowserModel:
    """A model for a browser.

    Args:
        info: Model info of the graph.
        card: What the page needs to know, as JSON types.
        files: Name -> content of the graphs.
        exported: How they were made and verified.
    """

    info: ModelInfo
    card: dict[str, Any]
    files: dict[str, bytes]
    exported: Exported


def browser_model(
    sources: Sequence[ExportSource],
    options: ExportOptions,
    *,
    calibration_clips: Sequence[Clip] = (),
    recordings: Sequence[Recording] = (),
    progress: Progress = lambda text: None,
) -> BrowserModel:
    """Exports a model, or an ensemble, for a browser, and verifies its outputs.

    Args:
        sources: The model, or several whose logits are averaged.
        options: Form of the export; ``waveform`` must be set.
        calibration_clips: As for :func:`earmark.export.export.export`.
        recordings: As there.
        progress: As there.

    Raises:
        ModelError: As there.
        DataError: As there.
        AudioError: As there.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / MODEL
        exported = export(
            sources,
            path,
            options,
            calibration_clips=calibration_clips,
            recordings=recordings,
            progress=progress,
        )
        content, info = read_model_file(path)
        timeline, finest_hop_s = _timeline(load(path), sources[0].info)
    files = {MODEL: content}
    try:
        split = split_before_pooling(content)
    except ModelError:  # overlapping windows then
        split = None
    if split is not None:
        files = {MODEL: replace_info(split.body, info), HEAD: split.head}
        timeline |= _local(split, timeline["window"], finest_hop_s)
    return BrowserModel(info, _card(info, timeline), files, exported)


def _card(info: ModelInfo, timeline: dict[str, Any]) -> dict[str, Any]:
    """All that a page needs to know; the first entries are those of a server's ``/v1/models``."""
    is_one = not isinstance(info.threshold, tuple)
    window, hop = window_and_hop(info, None, None)
    return {
        "name": info.name,
        "summary": info.description,
        "num_labels": len(info.labels),
        "labels": list(info.labels),
        "task": info.task,
        "sample_rate_hz": info.front_end.sample_rate,
        "window_s": info.window_s,
        "threshold": info.threshold if is_one else None,
        "thresholds": None if info.thresholds is None else list(info.thresholds),
        "calibrated": info.calibration is not None,
        "licence": info.license,
        "default": True,
        "attribution": info.source,
        "earmark": __version__,
        "file": MODEL,
        "padding": info.padding,
        "calibration": calibration_to_dict(info.calibration),
        "tagging": {"window": window, "hop": hop},
        "timeline": timeline,
        "live": _live(info),
    }


def _timeline(tagger: Tagger, original: ModelInfo) -> tuple[dict[str, Any], float]:
    """Windows and thresholds of scores along time, and the seconds that a window counts as."""
    finest, window_s, hop_s = finest_scores(tagger)
    window, hop = window_and_hop(tagger.info, window_s, hop_s)
    front_end = original.front_end
    positions = front_end.num_frames(window) if isinstance(front_end, FrontEnd) else window
    limits = EventOptions().resolved(finest.info.thresholds).limits(finest.labels)
    rate = tagger.sample_rate
    timeline = {
        "window": window,
        "hop": hop,
        "hop_s": hop / rate,
        "thresholds": limits.on.tolist(),
        "local": None,
    }
    return timeline, positions * seconds_per_position(original)


def _local(split: SplitGraph, window: int, window_s: float) -> dict[str, Any]:
    """How local scores are computed: the feature map, its steps along time, and those of a piece."""
    silence = np.zeros((1, window), np.float32)
    [features] = open_engine(split.body, MODEL).run([split.feature_map], {"waveform": silence})
    steps = features.shape[split.time_axis]
    count, step_s = piece_steps(steps, window_s), window_s / steps
    local = {
        "file": HEAD,
        "feature_map": split.feature_map,
        "time_axis": split.time_axis,
        "steps": steps,
        "piece_steps": count,
    }
    return {"hop_s": step_s, "local": local}


def _live(info: ModelInfo) -> dict[str, Any]:
    """Windows and limits of live sound, as those of :meth:`earmark.Tagger.listen`."""
    window, hop = window_and_hop(info, *listen_lengths(None, None, info.window_s, info.fixed_window))
    options = EventOptions()
    limits = options.resolved(info.thresholds).limits(info.labels)
    return {
        "window": window,
        "hop": hop,
        "hop_s": hop / info.front_end.sample_rate,
        "on": limits.on.tolist(),
        "off": limits.off.tolist(),
        "min_duration_s": options.min_duration_s,
        "merge_gap_s": options.merge_gap_s,
    }
