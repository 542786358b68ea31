"""The program around the sub-commands: groups of commands, help texts, errors and exit codes.

Conventions: each sub-command registers itself with :func:`command` and imports what it needs when it runs.
Help is plain text of at most 80 columns, the same in a terminal and in a pipe: Typer's own rich panels leave
too little room for the texts at that width, and box-drawing characters do not belong into a pipe.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any, TextIO, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from earmark.cli.terminal import abandon, complain, note, say, standard_streams
from earmark.errors import EarmarkError, first_line
from earmark.version import __version__

USE, OWN, MODELS, TRAIN, SHIP = "Use", "Own sounds", "Models", "Train and evaluate", "Ship"
"""Groups of ``earmark --help``."""
COULD_NOTHING, COULD_SOME, INTERRUPTED = 2, 1, 130
"""Exit codes: a wrong command, or nothing could be done; some inputs failed; Ctrl-C."""
INTERNAL = 70
"""Exit code of a mistake in earmark itself."""

_OF_STANDARD_OUTPUT = {errno.EBADF, errno.ENOSPC, errno.EIO}
"""Errors without a file name: every other file is named."""

Function = TypeVar("Function", bound=Callable[..., Any])
Row = tuple[str, str]


def _write_panels(formatter: Any, rows: Iterable[tuple[str, Row | None]]) -> None:
    """Writes rows of a name and a text, those of one panel under one heading."""
    panels: dict[str, list[Row]] = {"Arguments": [], "Options": []}
    for panel, row in rows:
        if row is not None:
            panels.setdefault(panel, []).append(row)
    for panel, own in panels.items():
        if own:
            with formatter.section(panel):
                formatter.write_dl(own)


def _parameters(command: TyperCommand | TyperGroup, ctx: Any) -> Iterable[tuple[str, Row | None]]:
    for parameter in command.get_params(ctx):
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        yield getattr(parameter, "rich_help_panel", None) or usual, parameter.get_help_record(ctx)


class _Command(TyperCommand):
    """A command whose plain help shows its panels of options."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_panels(formatter, _parameters(self, ctx))


class _Program(TyperGroup):
    """A group whose plain help shows its panels of commands, with whole summaries."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        _write_panels(formatter, _parameters(self, ctx))
        width = max(map(len, self.commands))
        _write_panels(formatter, (self._row(name, width) for name in self.list_commands(ctx)))

    def _row(self, name: str, width: int) -> tuple[str, Row]:
        entry: Any = self.commands[name]
        summary, _, _ = (entry.help or "").partition("\n")
        return entry.rich_help_panel, (name.ljust(width), summary)


app = typer.Typer(
    name="earmark",
    cls=_Program,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(group: str) -> Callable[[Function], Function]:
    """Registers a function as the sub-command of its name.

    Args:
        group: The heading under which ``earmark --help`` lists it.
    """
    return app.command(rich_help_panel=group, cls=_Command)


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    with standard_streams():
        code = _run(arguments)
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    """Runs the command line; errors become one line."""
    out = sys.stdout
    try:
        code = app(arguments, standalone_mode=False)
        out.flush()
    except (EarmarkError, TyperException) as error:
        complain(error.format_message() if isinstance(error, TyperException) else str(error))
        for line in getattr(error, "__notes__", []):
            note(f"  {line}")
        return COULD_NOTHING
    except (SystemExit, OSError) as error:  # Typer exits where a pipe is broken, and has wrapped the streams
        sys.stdout = out
        return _without_reader(out) if isinstance(error, SystemExit) else _system_error(error, out)
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        complain(
            f"internal error ({type(error).__name__}: {first_line(error)}): please report it with what "
            "python -X dev -m earmark prints"
        )
        return INTERNAL
    if code == INTERRUPTED:
        complain("interrupted")
    return code if isinstance(code, int) else 0


def _without_reader(out: TextIO) -> int:
    """The end of a command whose reader has gone, as in ``earmark tag ... | head``: it has all it wanted."""
    abandon(out)
    return 0


def _system_error(error: OSError, out: TextIO) -> int:
    """The end of a command on an error of the system, which names its file unless that is standard output."""
    if isinstance(error, BrokenPipeError):
        return _without_reader(out)
    reason = error.strerror or first_line(error)
    if error.filename is not None:
        complain(f"{os.fsdecode(error.filename)}: {reason}")
    elif error.errno in _OF_STANDARD_OUTPUT:
        complain(f"standard output: {reason}")
        abandon(out)
    else:
        complain(reason)
    return COULD_NOTHING


def exit_code(done: int, failed: int) -> None:
    """Ends a command of which some inputs failed: code 1, or 2 where none was processed."""
    if failed or not done:
        raise typer.Exit(COULD_SOME if done else COULD_NOTHING)


def one_matrix_thread() -> None:
    """Limits NumPy's matrix library to one thread, before NumPy is loaded: its products are small."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _version(wanted: bool) -> None:
    if wanted:
        say(__version__)
        raise typer.Exit


@app.callback()
def earmark(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Tag sounds in audio files, and train, evaluate and ship the models for it."""
