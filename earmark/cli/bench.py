"""``earmark bench``: the speed of a model on this machine.

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

from earmark.cli.options import AsJson, Device, Quiet, Recording, Rounds, ThreadCounts
from earmark.cli.program import TRAIN, command, one_matrix_thread
from earmark.cli.progress import download_bar, status_line
from earmark.cli.terminal import say


@command(TRAIN)
def bench(
    model: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="Name or file of a model.")
    ] = None,
    recording: Recording = None,
    threads: ThreadCounts = None,
    device: Device = "cpu",
    rounds: Rounds = 9,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Time a model on each engine, precision and thread count."""
    one_matrix_thread()
    from earmark.evaluation import speed
    from earmark.evaluation.speed import summary, to_dict
    from earmark.hub import registry
    from earmark.inference.load import load

    name = model or registry.DEFAULT
    with download_bar(quiet) as bar:
        load(name, device=device, progress=bar)  # downloaded, and found to be usable
    settings = speed.all_settings([name], threads or speed.thread_counts(), device=device)
    with timed_recording(recording) as clip, status_line(quiet) as show:
        found = speed.measure(settings, clip, rounds, show)
    what = str(recording) if recording else f"{speed.CLIP_S:g} s of noise"
    say(json.dumps(to_dict(found, what), indent=1) if as_json else summary(found, name, what))


@contextmanager
def timed_recording(path: Path | None) -> Iterator[Path]:
    """The audio file to time: the one that was named, or noise that is made for it."""
    from earmark.evaluation.speed import write_noise

    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "noise.wav"
        write_noise(path)
        yield path
