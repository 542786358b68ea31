"""Writes what is generated in README and docs: tables, and what console examples print.

    python docs/refresh.py

A table stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``; a fence marked ``console`` holds
commands after ``$`` and what they print. Both are made anew from the code; tests/test_docs.py compares.

Conventions: commands run in a folder that holds ``examples/`` and nothing else, with this Python's scripts
first on the path.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path

from earmark.frontend import AUDAX, EFFICIENTAT, FSDKAGGLE, SP4ASC, FrontEnd
from earmark.record import Record
from earmark.train import recipe

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"(<!-- generated: ([a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
REFERENCES = {
    "EfficientAT": EFFICIENTAT,
    "SP4ASC": SP4ASC,
    "sound-clf-pytorch": FSDKAGGLE,
    "audax": AUDAX,
}


def documents() -> list[Path]:
    """README, CONTRIBUTING, CHANGELOG and every page of docs/."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def fences(text: str, kind: str) -> list[str]:
    """The content of each fence of a kind."""
    return [found[2] for found in FENCE.finditer(text) if found[1] == kind]


def with_tables(text: str) -> str:
    """A document with its generated tables made anew."""
    return GENERATED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[4]}", text)


def with_output(text: str) -> str:
    """A document with the output of its console examples made anew."""
    return FENCE.sub(
        lambda found: f"```console\n{run(found[2])}```" if found[1] == "console" else found[0], text
    )


def run(example: str) -> str:
    """Runs the commands of a console example: the commands and what they print to both streams."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
    pieces = []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "examples").symlink_to(ROOT / "examples")
        for command in commands(example):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                check=False,
            )
            pieces.append(f"$ {command}\n{done.stdout}")
    return "".join(pieces)


def commands(example: str) -> list[str]:
    """The commands of a console example, without their prompts."""
    return [line.removeprefix("$ ") for line in example.splitlines() if line.startswith("$ ")]


def record_table() -> str:
    """The fields of a model's record."""
    meanings = _arguments(Record)
    return _table(
        ("field", "meaning"), ((f"`{entry.name}`", meanings[entry.name]) for entry in fields(Record))
    )


def front_end_table() -> str:
    """The fields of a front-end, and the values that make it one of the references'."""
    rows = (
        (f"`{entry.name}`", *(f"{getattr(front_end, entry.name)}" for front_end in REFERENCES.values()))
        for entry in fields(FrontEnd)
    )
    return _table(("field", *REFERENCES), rows)


def field_table() -> str:
    """The fields of a front-end and their meaning."""
    meanings = _arguments(FrontEnd)
    return _table(
        ("field", "meaning"), ((f"`{entry.name}`", meanings[entry.name]) for entry in fields(FrontEnd))
    )


def recipe_table() -> str:
    """Every key that a recipe may have."""
    sections = {
        "": recipe.Recipe,
        "model.": recipe.Model,
        "data.": recipe.Data,
        "data.sources.": recipe.Source,
        "augment.": recipe.Augment,
        "optimizer.": recipe.Optimizer,
        "teacher.": recipe.Imitation,
        "judge.": recipe.Judge,
    }
    tables = {prefix.split(".")[0] for prefix in sections}
    rows = []
    for prefix, section in sections.items():
        for name, entry in section.model_fields.items():
            if prefix or name not in tables | {"front_end"}:
                default = "required" if entry.is_required() else f"`{_toml(entry.default)}`"
                rows.append((f"`{prefix}{name}`", default, entry.description or ""))
    return _table(("key", "default", "meaning"), rows)


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)


def _arguments(documented: type) -> dict[str, str]:
    """The meaning of each argument, from the section Args of a docstring."""
    section = (documented.__doc__ or "").split("Args:\n")[1].split("\n\n")[0]
    entries = re.findall(r"^        (\w+): (.*?)(?=^        \w|\Z)", section, re.MULTILINE | re.DOTALL)
    return {name: " ".join(meaning.split()).replace("``", "`") for name, meaning in entries}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


TABLES: dict[str, Callable[[], str]] = {
    "record": record_table,
    "front ends": front_end_table,
    "front end fields": field_table,
    "recipe": recipe_table,
}


def main() -> int:
    """Rewrites the documents that are out of date, and names them."""
    for path in documents():
        text = path.read_text(encoding="utf-8")
        fresh = with_output(with_tables(text))
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
