"""Arguments and options that several commands share, so that each is spelled and explained once.

Conventions: a default that is computed stands in the help text. Times are seconds. Options that few need have
a panel of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from earmark.cli.terminal import silence_libraries
from earmark.errors import EarmarkError
from earmark.model_file.atomic import require_other_files

ENGINE = "Engine"
"""The panel of what computes the network."""
WINDOWS = "Windows"
"""The panel of how clips are cut."""

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILES...", help="Files, folders, patterns, lists (.txt), or - for standard input."
    ),
]
Dataset = Annotated[
    Path,
    typer.Argument(
        metavar="DATASET", help="A CSV file with the columns path and labels, a pack, or a corpus."
    ),
]
Datasets = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATASETS...", help="CSV files with the columns path and labels, packs, or corpora."
    ),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The dataset is the folder of this published corpus: esc50, fsd50k ..."
    ),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", metavar="NAME", help="Split of the corpus; repeatable."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Name or file of a model (default: the one that ships); repeat it for an ensemble.",
    ),
]
ReportFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FOLDER", help="Write a report there: JSON, Markdown, plots."),
]
Window = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Window length (default: the model's)."),
]
Hop = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", help="Hop between windows (default: the window length)."),
]
Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Search subfolders too.")]
Audio = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Where relative paths start (default: the dataset's folder)."),
]
Fold = Annotated[int | None, typer.Option(metavar="N", help="Use the clips of this fold only.")]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Use at most N clips, spread over the dataset.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=silence_libraries, help="Print no progress and no warnings."),
]

Device = Annotated[
    str,
    typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or auto.", rich_help_panel=ENGINE),
]
EngineName = Annotated[
    Literal["onnx", "openvino"],
    typer.Option("--engine", help="ONNX Runtime, or OpenVINO (extra openvino).", rich_help_panel=ENGINE),
]
Precision = Annotated[
    Literal["fp32", "fp16", "bf16"],
    typer.Option(help="Number format of the computation; 16 bits with openvino.", rich_help_panel=ENGINE),
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Threads (default: one per core).", rich_help_panel=ENGINE),
]


def parse_threshold(text: str, name: str = "--threshold") -> float | Literal["auto"]:
    """Reads a score from 0 to 1, or auto.

    Args:
        text: What was given.
        name: Of the option, for the error.
    """
    if text == "auto":
        return "auto"
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise typer.BadParameter(f"must be a number from 0 to 1 or auto, got {text!r}", param_hint=name)
    return value


def inputs(files: list[str], recursive: bool, output: Path | None) -> Iterator[str | EarmarkError]:
    """The recordings of :data:`Files`, none of which is the output."""
    from earmark.audio.find import find_recordings

    for item in find_recordings(files, recursive):
        if output is not None and not isinstance(item, EarmarkError):
            require_other_files([output], [item])
        yield item


Rounds = Annotated[int, typer.Option(min=1, metavar="N", help="Benchmark rounds.")]
ThreadCounts = Annotated[
    list[int] | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="Number of threads to measure; repeatable (default: 1, 2, 4 ... cores).",
    ),
]
Recording = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Audio file to time (default: 10 s of noise at 44.1 kHz)."),
]
