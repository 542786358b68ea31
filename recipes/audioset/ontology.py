"""Writes AudioSet's labels and ontology as the table that ships with the package.

    python recipes/audioset/ontology.py --source audioset.json [--output earmark/model_file/audioset.tsv]

The source is JSON: "labels" lists [number, id, name] of the 527 evaluated classes in their published order,
"ontology" is Google's list of nodes with "id", "name" and "children" (ids). The table has one line a node,
the labels first and in that order: id, the lines of the children, counted from 0, and name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earmark.errors import DataError, EarmarkError
from earmark.model_file.atomic import write_atomically

SHIPPED = Path(__file__).resolve().parents[2] / "earmark" / "model_file" / "audioset.tsv"
HEAD = """\
# AudioSet's {labels} labels, in the order of the models' classes, and the other nodes of its ontology.
# Columns: id, lines of the children (the first node is 0), name. Made by recipes/audioset/ontology.py.
# Source: Google, https://research.google.com/audioset; labels CC BY 4.0, the rest CC BY-SA 4.0.
"""


def table(source: Mapping[str, Any]) -> str:
    """The table's text.

    Args:
        source: What the JSON holds.

    Raises:
        DataError: If a label is no node of that name, two nodes share a name, or a node is its own ancestor.
    """
    nodes = {node["id"]: node for node in source["ontology"]}
    labels = [(id_, name) for _, id_, name in sorted(source["labels"])]
    for id_, name in labels:
        if nodes.get(id_, {}).get("name") != name:
            raise DataError(f"label {id_} {name!r} is no node of the ontology under that name")
    if len({node["name"] for node in nodes.values()}) != len(nodes):
        raise DataError("two nodes of the ontology share a name")
    order = [id_ for id_, _ in labels]
    order += [id_ for id_ in nodes if id_ not in set(order)]
    for id_ in order:
        _refuse_circle(nodes, (id_,))
    line_of = {id_: line for line, id_ in enumerate(order)}
    lines = [
        f"{id_}\t{' '.join(str(line_of[child]) for child in nodes[id_]['children'])}\t{nodes[id_]['name']}\n"
        for id_ in order
    ]
    return HEAD.format(labels=len(labels)) + "".join(lines)


def _refuse_circle(nodes: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for child in nodes[path[-1]]["children"]:
        if child in path:
            raise DataError(f"{nodes[child]['name']!r} is its own ancestor")
        _refuse_circle(nodes, (*path, child))


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=Path, required=True, help="the JSON described above")
    parser.add_argument("--output", type=Path, default=SHIPPED, help="the table to write")
    given = parser.parse_args()
    try:
        write_atomically(given.output, table(json.loads(given.source.read_text(encoding="utf-8"))))
    except EarmarkError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
