"""What was measured of a model's speed, as words and as JSON.

Conventions: times in milliseconds for people, in seconds for programs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from earmark.evaluation.report import aligned
from earmark.evaluation.speed import Setting, Speed, fastest
from earmark.version import __version__

_DISTRIBUTIONS = {"onnx": "onnxruntime", "openvino": "openvino"}


def summary(speeds: Mapping[Setting, Speed], model: str, what: str) -> str:
    """The table, and a hint which setting is fastest.

    Args:
        speeds: Of one model.
        model: Its name.
        what: Which recording was tagged.
    """
    head = ("engine", "precision", "threads", "window, ms", "factor", "clip, ms", "factor", "faster")
    rows = [head]
    for setting, speed in speeds.items():
        window = f"{speed.window_s * 1e3:.1f}", f"{speed.window_factor:.4f}"
        clip = f"{speed.clip_s * 1e3:.1f}", f"{speed.clip_factor:.4f}"
        rows.append(
            (setting.engine, setting.precision, str(setting.threads), *window, *clip, f"{speed.gain:.2f} x")
        )
    lines = [f"{model}, clip: {what}", f"{machine(speeds)}", "", *aligned(rows), "", *_hints(speeds)]
    return "\n".join(lines)


def _hints(speeds: Mapping[Setting, Speed]) -> list[str]:
    best = fastest(speeds)
    lines = [f"fastest here: {best.options}"]
    if best.precision != "fp32":
        exact = fastest({one: speed for one, speed in speeds.items() if one.precision == "fp32"})
        lines.append(f"fastest here in fp32: {exact.options}")
        lines.append(f"what {best.precision} costs in accuracy: earmark report {best.model} MANIFEST")
    return lines


def to_dict(speeds: Mapping[Setting, Speed], what: str) -> dict[str, Any]:
    """All numbers, as JSON can hold them."""
    best = fastest(speeds)
    return {
        "clip": what,
        "machine": machine(speeds),
        "earmark": __version__,
        "settings": [{**asdict(setting), **asdict(speed)} for setting, speed in speeds.items()],
        "fastest": asdict(best),
    }


def machine(settings: Mapping[Setting, object]) -> str:
    """What was measured on, in a line."""
    engines = dict.fromkeys(_DISTRIBUTIONS[setting.engine] for setting in settings)
    versions = ", ".join(f"{name} {version(name)}" for name in engines)
    return f"{_processor()}, {os.cpu_count()} cores, {versions}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
