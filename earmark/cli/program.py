"""The program around the sub-commands: how it starts and ends, and what several commands share.

Conventions: each sub-command is registered with ``app``; what it needs it imports itself, when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.exceptions import Abort, TyperException

from earmark.errors import EarmarkError
from earmark.version import __version__

if TYPE_CHECKING:
    from rich.progress import Progress

app = typer.Typer(
    name="earmark",
    help="Says what is heard in recordings.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="A model's name or file, or several: a+b; by default the one that ships."
    ),
]

EngineOption = Annotated[
    Literal["onnx", "openvino"],
    typer.Option(help="What computes the network: ONNX Runtime or OpenVINO (extra openvino)."),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(help="What the engine computes in: f32 (default); with openvino also bf16 or f16."),
]


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
    except EarmarkError as error:
        complain(str(error))
        for note in getattr(error, "__notes__", []):
            print(f"  {note}", file=sys.stderr)
        code = 2
    except TyperException as error:
        complain(error.format_message())
        code = 2
    except (Abort, KeyboardInterrupt):
        complain("interrupted")
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as in `earmark tag ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        complain(str(error))
        code = 2
    sys.exit(code if isinstance(code, int) else 0)


def complain(message: str) -> None:
    """Prints an error or a warning as one line to standard error."""
    print("earmark: " + " ".join(message.split()), file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def earmark(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Says what is heard in recordings."""


def one_matrix_thread() -> None:
    """Before NumPy is loaded: its matrix library takes one thread, as a front-end's products are small."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


@contextmanager
def progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows which file is being worked on, on a terminal only."""
    if quiet or not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(text.replace("[", r"\["))


@contextmanager
def download_bar(quiet: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """Shows how much of a file has arrived, on a terminal only; nothing until something arrives."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    bars: list[Progress] = []

    def show(received: int, total: int | None) -> None:
        if not bars:
            bars.append(_bar())
        bars[0].update(bars[0].task_ids[0], completed=received, total=total)

    try:
        yield show
    finally:
        for bar in bars:
            bar.stop()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True))
    bar.add_task("download", total=None)
    bar.start()
    return bar
