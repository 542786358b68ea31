"""Turns the ESC-50 subset's ``meta.csv`` into a manifest: path, labels, fold, licence, author, source, title.

    python recipes/esc18/manifest.py --esc18 DIR --output FILE

All clips are listed; which licences to train on is the recipe's choice. Paths are relative to the manifest's
folder where the clips lie below it, else absolute.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from pathlib import Path

from earmark.errors import DataError, EarmarkError
from earmark.model_file.atomic import write_atomically

COLUMNS = ("path", "labels", "fold", "license", "author", "source", "title")


def rows(esc18: Path, base: Path) -> list[dict[str, str]]:
    """The manifest's rows, in the order of ``meta.csv``.

    Args:
        esc18: Folder with ``meta.csv`` and ``audio/``.
        base: Folder that will hold the manifest.

    Raises:
        DataError: If ``meta.csv`` or a clip that it names is missing.
    """
    meta, audio, base = esc18 / "meta.csv", (esc18 / "audio").resolve(), base.resolve()
    if not meta.is_file():
        raise DataError(f"{meta} is missing: give the folder of the ESC-50 subset as --esc18")
    found = []
    with meta.open(encoding="utf-8", newline="") as lines:
        for clip in csv.DictReader(lines):
            path = audio / clip["filename"]
            if not path.is_file():
                raise DataError(f"{path} is missing, though {meta} names it")
            shown = path.relative_to(base) if path.is_relative_to(base) else path
            values = (clip[name] for name in ("category", "fold", "license", "author", "source_url", "title"))
            found.append(dict(zip(COLUMNS, (shown.as_posix(), *values), strict=True)))
    return found


def main() -> int:
    """Reads the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--esc18", type=Path, required=True, help="folder with meta.csv and audio/")
    parser.add_argument("--output", type=Path, required=True, help="the manifest to write")
    given = parser.parse_args()
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    try:
        writer.writerows(rows(given.esc18, given.output.parent))
    except EarmarkError as error:
        print(error, file=sys.stderr)
        return 2
    write_atomically(given.output, text.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())
