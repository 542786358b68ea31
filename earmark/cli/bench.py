"""``earmark bench``: how fast a model is here, with each engine, precision and number of threads.

Conventions: a table for people, ``--json`` for programs; times are those of this machine and hour.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from earmark.cli.program import TRAIN, command, one_matrix_thread
from earmark.cli.progress import download_bar, status_line


@command(TRAIN)
def bench(
    model: Annotated[
        str | None,
        typer.Argument(help="A model's name or file, or several: a+b; by default the one that ships."),
    ] = None,
    clip: Annotated[
        Path | None, typer.Option(help="A recording to tag; by default 10 s of noise, 16 bit at 44.1 kHz.")
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Numbers of threads; by default 1, 2, 4 ... up to one per core."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often each one's turn comes.")] = 9,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measures a model with each engine, precision and number of threads, in turns."""
    one_matrix_thread()
    from earmark.evaluation import speed
    from earmark.evaluation.speed_report import summary, to_dict
    from earmark.hub import registry
    from earmark.inference.load import load

    name = model or registry.DEFAULT
    with download_bar(quiet) as report:
        load(name, report=report)  # fetched, and found to be usable
    settings = speed.settings_of([name], threads or speed.thread_counts())
    with recording(clip) as heard, status_line(quiet) as show:
        found = speed.measure(settings, heard, rounds, show)
    what = str(clip) if clip else f"{speed.CLIP_S:g} s of noise"
    print(json.dumps(to_dict(found, what), indent=1) if as_json else summary(found, name, what))


@contextmanager
def recording(clip: Path | None) -> Iterator[Path]:
    """What is measured by: the recording that was named, or one that is made for it."""
    from earmark.evaluation.speed import write_noise

    if clip is not None:
        yield clip
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        write_noise(path)
        yield path
