"""Reports of an evaluation: text for the console, JSON, Markdown, scores and plots.

Conventions: ``report.json`` has all numbers and their origin (model, manifest, settings, versions); the other
files show some of them.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import MissingExtraError, extra
from earmark.evaluation.evaluation import Evaluation, Values
from earmark.model_file.atomic import write_atomically

REPORT_FILES = ("report.json", "report.md", "scores.npz", "scores.csv")
"""Files of a report, besides plots."""
DECIMALS = 4
ON_CONSOLE = ("clips", "accuracy", "log_loss", "map_macro", "auroc_macro", "lwlrap")
"""Metrics of groups that the console shows; the files have all."""


def to_dict(found: Evaluation) -> dict[str, Any]:
    """All numbers and their origin, for JSON."""
    failed = [
        {"id": clip.id, "path": str(clip.path), "reason": why} for clip, why in found.predictions.failed
    ]
    values: dict[str, Any] = {
        **found.origin,
        "clips": {"evaluated": len(found.predictions.clips), "failed": failed},
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


def write_report(found: Evaluation, folder: Path) -> list[Path]:
    """Writes report.json, report.md, scores.npz and scores.csv, and plots where matplotlib is installed.

    Args:
        found: The evaluation.
        folder: Created if it is missing.

    Returns:
        The files.

    Raises:
        OSError: If they cannot be written.
    """
    contents: dict[str, str | bytes] = {
        "report.json": json.dumps(to_dict(found), indent=1, ensure_ascii=False) + "\n",
        "scores.npz": _scores_npz(found),
        "scores.csv": _scores_csv(found),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    plots = _plots(found, folder)
    write_atomically(folder / "report.md", markdown_report(found, plots))
    return [*(folder / name for name in contents), folder / "report.md", *plots]


def _scores_npz(found: Evaluation) -> bytes:
    file, clips = io.BytesIO(), found.predictions.clips
    np.savez_compressed(
        file,
        id=np.array([clip.id for clip in clips]),
        path=np.array([str(clip.path) for clip in clips]),
        labels=np.array(found.labels),
        scores=found.predictions.scores,
        targets=found.targets,
    )
    return file.getvalue()


def _scores_csv(found: Evaluation) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", *found.labels))
    for clip, scores in zip(found.predictions.clips, found.predictions.scores, strict=True):
        writer.writerow((clip.id, *(f"{score:.6g}" for score in scores)))
    return text.getvalue()


def _plots(found: Evaluation, folder: Path) -> list[Path]:
    try:
        with extra("plots of an evaluation", "plot"):
            from earmark.plots import metrics as plots
    except MissingExtraError:
        return []
    made = []
    precision = {label: own["average_precision"] for label, own in found.by_class.items()}
    if precision:
        made.append(folder / "average_precision.png")
        clips = {label: int(own["clips"]) for label, own in found.by_class.items()}
        plots.plot_classes(precision, "average precision", made[-1], clips)
    if found.confusion is not None:
        made.append(folder / "confusion.png")
        table, *axes = _trimmed_confusion(found)
        rows, columns = ([found.labels[index] for index in axis] for axis in axes)
        plots.plot_confusion(table, rows, columns, made[-1])
    if found.reliability is not None:
        made.append(folder / "reliability.png")
        plots.plot_reliability({"": found.reliability}, made[-1])
    return made


def summary(found: Evaluation) -> str:
    """Text for the console: overall metrics, and some of each group."""
    width = max(len(name) for name in found.overall)
    lines = [f"{name:<{width}}  {_text(value)}" for name, value in found.overall.items()]
    if found.by_group:
        short = {
            name: {metric: values[metric] for metric in ON_CONSOLE if metric in values}
            for name, values in found.by_group.items()
        }
        lines += ["", *aligned(_rows(short, "group"))]
    return "\n".join(lines)


def markdown_report(found: Evaluation, plots: Sequence[Path] = ()) -> str:
    """The report in Markdown.

    Args:
        found: The evaluation.
        plots: Pictures in the same folder.
    """
    overall = [("metric", "value"), *((name, _text(value)) for name, value in found.overall.items())]
    sections = [_head(found), "## Overall\n\n" + markdown_table(overall)]
    if found.by_group:
        sections.append(
            f"## By {found.origin.get('settings', {}).get('group_by', 'group')}\n\n"
            + markdown_table(_rows(found.by_group, "group"))
        )
    if found.by_class:
        sections.append("## By class\n\n" + markdown_table(_rows(found.by_class, "label")))
    if found.confusion is not None:
        sections.append(_confusion_section(found))
    sections += [f"![{plot.stem.replace('_', ' ')}]({plot.name})\n" for plot in plots]
    if found.predictions.failed:
        named = "".join(f"- `{clip.id}`: {why}\n" for clip, why in found.predictions.failed)
        sections.append("## Not evaluated\n\n" + named)
    return "\n".join(sections)


def _head(found: Evaluation) -> str:
    title = found.info.name if found.info else "Evaluation"
    failed = f", {len(found.predictions.failed)} could not be read" if found.predictions.failed else ""
    lines = [f"# {title}\n\n{len(found.predictions.clips)} clips were evaluated{failed}.\n\n"]
    origin = found.origin
    files = [("model", file) for file in origin.get("model", {}).get("files", ())]
    table = origin.get("manifest")
    files += [(f"corpus {table['corpus']}" if "corpus" in table else "manifest", table)] if table else []
    lines += [f"- {kind}: `{file['path']}`, SHA-256 {file['sha256'][:16]}\n" for kind, file in files]
    for kind in ("settings", "versions"):
        values = origin.get(kind, {}).items()
        text = ", ".join(f"{name} {value}" for name, value in values if value is not None)
        lines += [f"- {kind}: {text}\n"] if text else []
    return "".join(lines)


def _confusion_section(found: Evaluation) -> str:
    table, rows, columns = _trimmed_confusion(found)
    head = ("", *(str(index + 1) for index in columns))
    lines = [
        (f"{index + 1} {found.labels[index]}", *map(str, own)) for index, own in zip(rows, table, strict=True)
    ]
    return "## Confusion\n\nRows: the true class; columns: the predicted class.\n\n" + markdown_table(
        [head, *lines]
    )


def _trimmed_confusion(found: Evaluation) -> tuple[NDArray[np.int64], list[int], list[int]]:
    """The confusion without empty rows and columns, and the classes of those that are left."""
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
