"""Regenerates the tables and console outputs of README.md, CONTRIBUTING.md and docs/.

    python docs/refresh.py [PAGE ...]

A table is delimited by ``<!-- generated: NAME -->`` and ``<!-- end -->``; a fence marked ``console`` holds
commands after ``$`` and their output. tests/test_docs.py checks that both are current.

Conventions: commands run in a folder that holds ``examples/`` and nothing else, with this Python's scripts
first on the path.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import get_args

from command_reference import command_reference
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from earmark.data.corpora import CORPORA
from earmark.features.front_end import FrontEnd
from earmark.features.presets import FRONT_ENDS
from earmark.hub import registry
from earmark.hub.registry import PublishedModel, published
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_info
from earmark.training.config.recipe import Recipe, load_recipe

ROOT = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```([a-z]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = re.compile(r"(<!-- generated: ([a-z ]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
REFERENCES = {
    "EfficientAT": "efficientat",
    "SP4ASC": "sp4asc",
    "sound-clf-pytorch": "fsdkaggle",
    "audax": "audax",
}


def documents() -> list[Path]:
    """README, CONTRIBUTING, CHANGELOG, the pages of docs/, and the README of other folders."""
    pages = [ROOT.glob("*.md"), (ROOT / "docs").rglob("*.md"), ROOT.glob("*/README.md")]
    return [path for found in pages for path in sorted(found)]


def fences(text: str, kind: str) -> list[str]:
    """The content of each fence of a kind."""
    return [found[2] for found in FENCE.finditer(text) if found[1] == kind]


def with_tables(text: str) -> str:
    """A document with its tables regenerated."""
    return GENERATED.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[4]}", text)


def with_output(text: str) -> str:
    """A document with the outputs of its console examples regenerated."""
    return FENCE.sub(
        lambda found: f"```console\n{run(found[2])}```" if found[1] == "console" else found[0], text
    )


def run(example: str) -> str:
    """Runs a console example; returns the commands with their output on both streams."""
    scripts = sysconfig.get_path("scripts")
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
    environment["LC_ALL"] = "C.UTF-8"
    pieces = []
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as nothing:
        environment["EARMARK_CACHE"] = nothing  # an empty cache, so that the output is the same everywhere
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


def model_info_table() -> str:
    """The fields of a model's metadata."""
    meanings = _arguments(ModelInfo)
    return _table(
        ("field", "meaning"), ((f"`{entry.name}`", meanings[entry.name]) for entry in fields(ModelInfo))
    )


def front_end_table() -> str:
    """The fields of a front-end, and the values that make it one of the references'."""
    rows = (
        (f"`{entry.name}`", *(f"{getattr(FRONT_ENDS[name], entry.name)}" for name in REFERENCES.values()))
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
    """Every key of a recipe."""
    return _table(("key", "default", "meaning"), _recipe_rows(Recipe))


def _recipe_rows(section: type[BaseModel], within: str = "") -> Iterator[tuple[str, str, str]]:
    """The keys of a table, those of the tables in it after its own."""
    tables = {name: found for name, entry in section.model_fields.items() if (found := _table_of(entry))}
    for name, entry in section.model_fields.items():
        if name not in tables and name != "front_end":
            default = "required" if entry.is_required() else f"`{_toml(entry.default)}`"
            yield f"`{within}{name}`", default, entry.description or ""
    for name, table in tables.items():
        yield from _recipe_rows(table, f"{within}{name}.")


def _table_of(entry: FieldInfo) -> type[BaseModel] | None:
    """The table that a field holds, if it holds one or several."""
    kinds = [entry.annotation]
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        kinds += get_args(kind)
    return None


def corpora_table() -> str:
    """Every corpus that a recipe may name, and the layout that it is read in."""
    rows = []
    for name, corpus in CORPORA.items():
        what, layout, *_ = (corpus.read.__doc__ or "").split("\n\n")
        splits = "any" if corpus.splits is None else ", ".join(f"`{split}`" for split in corpus.splits)
        rows.append((f"`{name}`", _plain(what), splits, _plain(layout).removeprefix("Layout: ")))
    return _table(("name", "what it is", "splits", "layout of its folder"), rows)


def room_table() -> str:
    """The rooms of the package, layer by layer from the bottom, each with the summary of its docstring."""
    structure = ast.parse((ROOT / "tests" / "test_structure.py").read_text(encoding="utf-8"))
    [layers] = [
        ast.literal_eval(node.value)
        for node in structure.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    rows = (
        (str(number), f"`{room}`", _summary(room))
        for number, layer in enumerate(layers, start=1)
        for room in layer
        if not room.startswith("__")
    )
    return _table(("layer", "room", "what it does"), rows)


def _summary(room: str) -> str:
    folder = ROOT / "earmark" / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return _plain(text.split("\n\n")[0])


def _plain(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").removesuffix(".")


def recipes() -> dict[str, Path]:
    """Every recipe that ships, by its path within recipes/."""
    folder = ROOT / "recipes"
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def shipped_recipes_table() -> str:
    """Every recipe that ships."""
    rows = []
    for name, path in recipes().items():
        own = load_recipe(path)
        link = f"[{name.removesuffix('.toml')}](../recipes/{name})"
        rows.append((link, own.description, own.source, own.expected))
    return _table(("recipe", "trains", "source", "score"), rows)


def published_table() -> str:
    """Every published model."""
    rows = (
        (
            f"`{known.name}`",
            f"`{known.architecture}`" + _braced(known.arguments),
            _front_end_of(known),
            known.labels or "none (initial weights)",
            f"{known.params / 1e6:.2f}" if known.params else "",
            f"{known.macs / 1e9:.3f}" if known.macs else "",
            ", ".join(f"{name} {score:g}" for name, score in known.scores.items()),
            known.license,
        )
        for known in published().values()
    )
    head = (
        "name",
        "architecture",
        "front-end",
        "labels",
        "parameters, M",
        "MACs of 10 s, G",
        "score",
        "licence",
    )
    return _table(head, rows)


def published_summary() -> str:
    """The published models by source and kind, one line each."""
    kinds: dict[tuple[str, str], list[PublishedModel]] = {}
    for known in published().values():
        family = known.architecture.rstrip("0123456789")
        kinds.setdefault((known.source, f"{family} {known.labels or 'initial weights'}"), []).append(known)
    rows = (
        (
            f"`{members[0].name}` ... `{members[-1].name}`",
            f"{len(members)}",
            f"`{members[0].labels}`" if members[0].labels else "none (initial weights)",
            _range([known.params / 1e6 for known in members if known.params]),
            _scores(members),
            source,
        )
        for (source, _), members in kinds.items()
    )
    return _table(("names", "number", "labels", "parameters, M", "published score", "source"), rows)


def _scores(members: list[PublishedModel]) -> str:
    name = next((name for known in members for name in known.scores), "")
    return f"{name} {_range([known.scores[name] for known in members if name in known.scores])}".strip()


def _range(values: list[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values, default=0), max(values, default=0)))
    return "" if not values else low if low == high else f"{low} to {high}"


def _braced(arguments: Mapping[str, object]) -> str:
    return "".join(f", `{name} = {_toml(value)}`" for name, value in arguments.items())


def _front_end_of(known: PublishedModel) -> str:
    """The name of the nearest front-end, and where it differs."""
    own = known.front_end.to_dict()
    changes = {
        name: {key: value for key, value in own.items() if value != base.to_dict()[key]}
        for name, base in FRONT_ENDS.items()
    }
    nearest = min(changes, key=lambda name: len(changes[name]))
    return f"`{nearest}`" + _braced(changes[nearest])


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list):
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


def default_model_table() -> str:
    """The scores of the default model, from its model info."""
    metrics = read_info(registry.find()).metrics
    return _table(("measured", "value"), ((name, f"{value:.3f}") for name, value in metrics.items()))


TABLES: dict[str, Callable[[], str]] = {
    "model info": model_info_table,
    "default model": default_model_table,
    "front ends": front_end_table,
    "front end fields": field_table,
    "recipe": recipe_table,
    "shipped recipes": shipped_recipes_table,
    "corpora": corpora_table,
    "published": published_table,
    "published summary": published_summary,
    "rooms": room_table,
    "commands": command_reference,
}


def main(paths: list[str]) -> int:
    """Rewrites the documents that are out of date, or of those named, and prints their names."""
    for path in [Path(name).resolve() for name in paths] or documents():
        text = path.read_text(encoding="utf-8")
        fresh = with_output(with_tables(text))
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
