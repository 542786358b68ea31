"""An evaluation as files and as words: JSON for programs, Markdown for people, scores, plots.

Conventions: every number stands in ``report.json``, with what it can be traced by (model, manifest,
versions); the other files show some of them.
"""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.data.manifest import file_hash
from earmark.errors import MissingExtraError, extra
from earmark.evaluation.evaluation import Evaluation, Values
from earmark.model_file.atomic import write_atomically
from earmark.model_file.info import ModelInfo
from earmark.version import __version__

DECIMALS = 4
ON_CONSOLE = ("clips", "accuracy", "log_loss", "map_macro", "auroc_macro", "lwlrap")
"""Metrics of groups that stand there; the report has all."""


def traces(
    info: ModelInfo, models: Iterable[Path], manifest: Path, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What an evaluation can be traced by.

    Args:
        info: Of the model.
        models: Its files, several of an ensemble.
        manifest: The table of clips.
        settings: How it was judged, as the command line has it.
    """
    files = list(models)
    packages = ["numpy", "openvino" if settings.get("engine") == "openvino" else "onnxruntime"]
    packages += ["torch"] if _in_torch(files) else []
    return {
        "model": {
            "name": info.name,
            "architecture": info.architecture,
            "task": info.task,
            "window_s": info.window_s,
            "threshold": info.threshold,
            "calibration": info.calibration.method if info.calibration else None,
            "files": [{"path": str(path), "sha256": file_hash(path)} for path in files],
        },
        "manifest": {"path": str(manifest), "sha256": file_hash(manifest)},
        "settings": dict(settings),
        "versions": {
            "earmark": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _in_torch(files: Iterable[Path]) -> bool:
    return any(path.suffix == ".safetensors" for path in files)


def to_dict(found: Evaluation) -> dict[str, Any]:
    """All numbers, as JSON can hold them."""
    failed = [{"id": clip.id, "path": str(clip.path), "reason": why} for clip, why in found.answers.failed]
    values: dict[str, Any] = {
        "clips": {"judged": len(found.answers.clips), "failed": failed},
        "overall": dict(found.overall),
        "by_class": {label: dict(own) for label, own in found.by_class.items()},
        "by_group": {name: dict(own) for name, own in found.by_group.items()},
    }
    if found.confusion is not None:
        values["confusion"] = {"labels": list(found.labels), "table": found.confusion.tolist()}
    if found.reliability is not None:
        columns = found.reliability._asdict().items()
        values["reliability"] = {name: np.nan_to_num(column).tolist() for name, column in columns}
    return values


def write_report(found: Evaluation, traced: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes report.json, report.md, scores.npz and scores.csv, and plots where matplotlib is installed.

    Args:
        found: What was found.
        traced: See :func:`traces`.
        folder: Made where it is missing.

    Returns:
        The files.

    Raises:
        OSError: If they cannot be written.
    """
    contents: dict[str, str | bytes] = {
        "report.json": json.dumps({**traced, **to_dict(found)}, indent=1, ensure_ascii=False) + "\n",
        "scores.npz": _scores_npz(found),
        "scores.csv": _scores_csv(found),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    plots = _plots(found, folder)
    write_atomically(folder / "report.md", in_markdown(found, traced, plots))
    return [*(folder / name for name in contents), folder / "report.md", *plots]


def _scores_npz(found: Evaluation) -> bytes:
    file, clips = io.BytesIO(), found.answers.clips
    np.savez_compressed(
        file,
        id=np.array([clip.id for clip in clips]),
        path=np.array([str(clip.path) for clip in clips]),
        labels=np.array(found.labels),
        scores=found.answers.scores,
        targets=found.targets,
    )
    return file.getvalue()


def _scores_csv(found: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", *found.labels))
    for clip, scores in zip(found.answers.clips, found.answers.scores, strict=True):
        writer.writerow((clip.id, *(f"{score:.6g}" for score in scores)))
    return text.getvalue()


def _plots(found: Evaluation, folder: Path) -> list[Path]:
    try:
        with extra("plots of an evaluation", "plot"):
            from earmark.evaluation import plots
    except MissingExtraError:
        return []
    made = []
    precision = {label: own["average_precision"] for label, own in found.by_class.items()}
    if precision:
        made.append(folder / "average_precision.png")
        plots.plot_classes(precision, "average precision", made[-1])
    if found.confusion is not None:
        made.append(folder / "confusion.png")
        table, *axes = _confused(found)
        rows, columns = ([found.labels[index] for index in axis] for axis in axes)
        plots.plot_confusion(table, rows, columns, made[-1])
    if found.reliability is not None:
        made.append(folder / "reliability.png")
        plots.plot_reliability({"": found.reliability}, made[-1])
    return made


def summary(found: Evaluation) -> str:
    """What stands on the console: metrics over all, and some of each group."""
    width = max(len(name) for name in found.overall)
    lines = [f"{name:<{width}}  {_text(value)}" for name, value in found.overall.items()]
    if found.by_group:
        short = {
            name: {metric: values[metric] for metric in ON_CONSOLE if metric in values}
            for name, values in found.by_group.items()
        }
        lines += ["", *aligned(_rows(short, "group"))]
    return "\n".join(lines)


def in_markdown(found: Evaluation, traced: Mapping[str, Any], plots: Sequence[Path] = ()) -> str:
    """The report for people.

    Args:
        found: What was found.
        traced: See :func:`traces`.
        plots: Pictures that lie beside it.
    """
    overall = [("metric", "value"), *((name, _text(value)) for name, value in found.overall.items())]
    sections = [_head(found, traced), "## Overall\n\n" + markdown_table(overall)]
    if found.by_group:
        sections.append(
            f"## By {traced['settings']['by']}\n\n" + markdown_table(_rows(found.by_group, "group"))
        )
    if found.by_class:
        sections.append("## By class\n\n" + markdown_table(_rows(found.by_class, "label")))
    if found.confusion is not None:
        sections.append(_confusion(found))
    sections += [f"![{plot.stem.replace('_', ' ')}]({plot.name})\n" for plot in plots]
    if found.answers.failed:
        named = "".join(f"- `{clip.id}`: {why}\n" for clip, why in found.answers.failed)
        sections.append("## Not judged\n\n" + named)
    return "\n".join(sections)


def _head(found: Evaluation, traced: Mapping[str, Any]) -> str:
    model, manifest = traced["model"], traced["manifest"]
    settings = ", ".join(f"{name} {value}" for name, value in traced["settings"].items() if value is not None)
    versions = ", ".join(f"{name} {value}" for name, value in traced["versions"].items())
    failed = f", {len(found.answers.failed)} could not be" if found.answers.failed else ""
    return (
        f"# {model['name']}\n\n{len(found.answers.clips)} clips were judged{failed}.\n\n"
        + "".join(f"- model: `{one['path']}`, SHA-256 {one['sha256'][:16]}\n" for one in model["files"])
        + f"- manifest: `{manifest['path']}`, SHA-256 {manifest['sha256'][:16]}\n"
        + f"- settings: {settings}\n- versions: {versions}\n"
    )


def _confusion(found: Evaluation) -> str:
    table, rows, columns = _confused(found)
    head = ("", *(str(index + 1) for index in columns))
    lines = [
        (f"{index + 1} {found.labels[index]}", *map(str, own)) for index, own in zip(rows, table, strict=True)
    ]
    return "## Confusion\n\nRows: the truth; columns: the highest score.\n\n" + markdown_table([head, *lines])


def _confused(found: Evaluation) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """The confusion without empty rows and columns, and which classes those that are left stand for."""
    assert found.confusion is not None
    own = found.confusion.any(1)
    rows, columns = np.flatnonzero(own), np.flatnonzero(own | found.confusion.any(0))
    return found.confusion[np.ix_(rows, columns)], rows.tolist(), columns.tolist()


def _rows(named: Mapping[str, Values], head: str) -> list[tuple[str, ...]]:
    """A table of metrics, one row a name; where a name lacks one, its cell is empty."""
    columns = list(dict.fromkeys(column for values in named.values() for column in values))
    rows = [
        (name or "(none)", *(_text(values[column]) if column in values else "" for column in columns))
        for name, values in named.items()
    ]
    return [(head, *columns), *rows]


def _text(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.{DECIMALS}f}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text, the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown, its head first."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
