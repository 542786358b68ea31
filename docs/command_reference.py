"""The reference of the command line, made of the commands themselves.

Conventions: one section for each command, grouped as in ``earmark --help``; options as its ``--help`` shows
them. docs/refresh.py puts it into docs/commands.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from earmark.cli import app

_BRACKETS = re.compile(r" *\[([^][]*)\]$")
_DEFAULT = re.compile(r" *\(default: ([^()]*)\)")


def command_reference() -> str:
    """A section for each command: what it does, its usage, and tables of its arguments and options."""
    program: Any = get_command(app)
    groups: dict[str, list[str]] = {}
    for name, entry in program.commands.items():
        groups.setdefault(entry.rich_help_panel, []).append("\n".join(_section(name, entry)))
    return "\n".join(f"\n## {group}\n\n" + "\n".join(sections) for group, sections in groups.items()) + "\n"


def _section(name: str, entry: Any) -> Iterator[str]:
    context = entry.make_context(name, [], resilient_parsing=True)
    yield f"### earmark {name}\n"
    yield " ".join((entry.help or "").split()) + "\n"
    yield f"```text\nearmark {name} {' '.join(entry.collect_usage_pieces(context))}\n```\n"
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in entry.get_params(context):
        usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            panels.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
    for panel, records in panels.items():
        yield f"| {panel} | meaning | default |\n| --- | --- | --- |"
        yield "\n".join(_row(*record) for record in records) + "\n"


def _row(names: str, text: str) -> str:
    """A row of a table of options; the default and the bounds that a help text states have a column."""
    stated = [_in_words(found[1]) for pattern in (_DEFAULT, _BRACKETS) if (found := pattern.search(text))]
    meaning = _BRACKETS.sub("", _DEFAULT.sub("", text))
    names = re.sub(
        r"<(.*)>", lambda choices: choices[1].replace("|", " or "), names
    )  # a table has bars itself
    cells = (" ".join(cell.split()) for cell in (f"`{names}`", meaning, ", ".join(stated)))
    return "| " + " | ".join(cells) + " |"


def _in_words(stated: str) -> str:
    """``default: 8; 1<=x<=16`` as "8, 1 to 16"."""
    text = stated.removeprefix("default: ").replace("; ", ", ")
    return re.sub(r"x>=(\S+)", r"at least \1", re.sub(r"(\S+)<=x<=(\S+)", r"\1 to \2", text))
