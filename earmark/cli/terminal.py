"""The standard streams of a command: text for people, complaints, and streams that are closed or broken.

Conventions: every command prints through this module. Control characters are shown escaped: labels, names,
cards and messages come from files and servers of others, and must not steer a terminal.
"""

from __future__ import annotations

import io
import locale
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_LINE_BREAK = re.compile(r"[ \t]*\n\s*")


def printable(text: str) -> str:
    r"""Text with control characters, except tabs and line ends, as ``\u001b``: also valid within JSON."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table_width() -> int:
    """Characters in a line of a table: those of the terminal, within reason."""
    return min(100, max(40, shutil.get_terminal_size().columns))


def has_blocks() -> bool:
    """Whether the terminal has block characters; what is written to it is UTF-8 all the same."""
    if os.name == "nt" and sys.stdout.isatty():
        return True
    encoding = os.environ.get("PYTHONIOENCODING", "").partition(":")[0] or locale.getencoding()
    try:
        return bool("\u258f\u2588".encode(encoding))
    except (UnicodeEncodeError, LookupError):
        return False


def say(text: str) -> None:
    """Prints text for people, or JSON, to standard output."""
    print(printable(text))


def say_raw(text: str) -> None:
    """Prints paths or CSV for programs as they are; escaped in a terminal only."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(text: str) -> None:
    """Prints a line to standard error; where nobody reads it any more, nothing."""
    try:
        print(printable(text), file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


def complain(message: str) -> None:
    """Prints an error or a warning as one line to standard error."""
    note("earmark: " + _LINE_BREAK.sub(" ", message.strip("\n")))


def warn(messages: Iterable[str], quiet: bool) -> None:
    """Prints warnings, one line each, unless quiet; they name their files."""
    for message in () if quiet else messages:
        complain(f"warning: {message}")


def abandon(stream: Any) -> None:
    """Sends what is left in a stream that cannot be written to, and what follows, nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Opens the standard streams that are closed, and restores what :func:`silence_libraries` changed.

    Without this, files that are opened later would take the numbers of the closed streams, and get what
    libraries write to these. Reading from, or writing results to, a stream that was closed is an error.
    """
    for number, name, flags in (
        (0, "stdin", os.O_WRONLY),
        (1, "stdout", os.O_RDONLY),
        (2, "stderr", os.O_RDWR),
    ):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest free number: this one
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    kept, stderr = os.dup(2), sys.stderr
    try:
        yield
    finally:
        if isinstance(sys.stderr, _OwnStandardError):
            sys.stderr.close()
        sys.stderr = stderr
        os.dup2(kept, 2)
        os.close(kept)


class _OwnStandardError(io.TextIOWrapper):
    """Standard error of Python code while that of libraries in C leads nowhere."""


def silence_libraries(quiet: bool) -> bool:
    """Discards what libraries in C, such as decoders, print to standard error, if a command is quiet."""
    if quiet:
        if _number(sys.stderr) == 2:
            own = open(os.dup(2), "wb", buffering=0)  # noqa: SIM115
            sys.stderr = _OwnStandardError(own, "utf-8", "backslashreplace", write_through=True)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
    return quiet


def _number(stream: Any) -> int | None:
    try:
        return int(stream.fileno())
    except (OSError, ValueError):
        return None
