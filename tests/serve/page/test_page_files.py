"""The files of the page: complete, from nowhere else, and the vendored ones as npm delivers them."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[3] / "earmark" / "serve" / "page"
STATIC = PAGE / "static"
OWN = [*sorted(STATIC.glob("*.js")), *sorted(STATIC.glob("*.css")), PAGE / "index.html"]
IMPORT = re.compile(r"""(?:\bfrom\s+|\bimport\(|new URL\()\s*"(\.[^"]+)\"""")
NAMESPACES = ("http://www.w3.org/2000/svg",)


class Page(HTMLParser):
    """What a page refers to, its identifiers, and what runs or styles inline."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.used_ids: list[str] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.references += [values[name] for name in ("src", "href") if name in values]
        self.ids += [values["id"]] if "id" in values else []
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            self.used_ids += values.get(name, "").split()
        self.inline += [name for name in values if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)


INDEX = Page((PAGE / "index.html").read_text(encoding="utf-8"))


def test_page_refers_to_its_own_files_only() -> None:
    for reference in INDEX.references:
        if not reference.startswith("#"):
            assert (PAGE / reference).is_file(), reference


def test_identifiers_are_unique_and_exist() -> None:
    assert len(INDEX.ids) == len(set(INDEX.ids))
    assert set(INDEX.used_ids) <= set(INDEX.ids)
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in ("main.js", "recording.js"))
    assert set(re.findall(r'find\("([^"]+)"\)', script)) <= set(INDEX.ids)


def test_nothing_is_inline() -> None:
    """Scripts and styles of the page are files, so that a policy may forbid all others."""
    assert not INDEX.inline


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_modules_import_what_exists_and_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for reference in IMPORT.findall(text):
        assert (path.parent / reference).is_file(), reference
    addresses = [one for one in re.findall(r"https?://[^\s\"'`)]+", text) if one not in NAMESPACES]
    assert not addresses


def test_vendored_files_are_those_of_npm() -> None:
    vendor = STATIC / "vendor"
    sums = dict(
        reversed(line.split()) for line in (vendor / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    assert set(sums) == {path.name for path in vendor.iterdir()} - {"SHA256SUMS", "README.md"}
    for name, expected in sums.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == expected, name
