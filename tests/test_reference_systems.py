"""The page that compares earmark with the reference systems names what exists."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from earmark.features.front_end import FrontEnd
from earmark.features.learned import LearnedFrontEnd
from earmark.models.registry import architectures, create_config

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "reference-systems.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if re.match(r"\| \d", line)
]
CODE = [code for _, _, here, _ in ROWS for code in re.findall(r"`([^`]+)`", here)]
FIELDS = {field.name for kind in (FrontEnd, LearnedFrontEnd) for field in fields(kind)}
KINDS = r"(golden|test|toy run|run on real clips|not run|$|no numbers|its settings)"


def keys() -> set[str]:
    """The keys of recipes, by the page about them."""
    page = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))


def states(word: str) -> list[int]:
    """Numbers of the rows that say so."""
    return [int(number) for number, _, here, _ in ROWS if re.match(rf"{word}(:|;|,|$)", here)]


def test_rows_are_numbered_and_whole():
    assert [int(row[0]) for row in ROWS] == list(range(1, len(ROWS) + 1))
    assert len(ROWS) >= 125
    for number, capability, here, held in ROWS:
        assert capability, number
        assert here, number
        assert re.match(KINDS, held), held
        assert held or int(number) in states("missing"), number


def test_what_is_not_there_is_listed():
    [line] = re.findall(r"^Missing: .*", PAGE, re.MULTILINE)
    missing, partly = (
        [int(number) for number in re.findall(r"\d+", part)] for part in line.split("In part:")
    )
    assert (missing, partly) == (states("missing"), states("in part"))


def test_files_and_tests_exist():
    named = set(re.findall(r"`((?:tests|recipes|notebooks)/[^` ]+)`", PAGE))
    named |= set(re.findall(r"(recipes/\S+\.toml)", PAGE))
    assert len(named) > 50
    for name in named:
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), path
        assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


def test_keys_of_recipes_exist():
    known = keys() | {f"front_end.{name}" for name in FIELDS | {"kind"}}
    sections = {key.partition(".")[0] for key in known} - {"model"}
    found = [code.split(" = ")[0] for code in CODE if code.partition(".")[0] in sections and "." in code]
    assert len(found) > 40
    assert set(found) <= known


@pytest.mark.parametrize(
    "row", [row for row in ROWS if "`model.arguments`" in row[2]], ids=lambda row: row[0]
)
def test_arguments_exist(row):
    named = re.findall(r"`([a-z_]+)`", row[2].partition("`model.arguments`")[2])
    known = {field.name for name in architectures() for field in fields(create_config(name))}
    assert named
    assert set(named) <= known
