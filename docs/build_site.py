"""Builds the documentation as a site.

    python docs/build_site.py [FOLDER]

FOLDER (by default ``build/site``) gets ``pages/``, a copy of all Markdown pages and of the files that they
link to, each at its path in the repository, so that links need no rewriting; and ``html/``, the site.
Warnings of the builder, such as a link to nothing, are errors. Needs the extra "docs".

Conventions: pages are plain Markdown. Only ``mkdocs.yml`` beside this file knows the builder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]+)")


def pages(root: Path = ROOT) -> list[Path]:
    """The Markdown pages: those of the root, of docs/, and of folders that they link to."""
    found = [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]
    for page in found:  # which grows
        found += dict.fromkeys(path for path in linked(page) if path.suffix == ".md" and path not in found)
    return found


def linked(page: Path) -> list[Path]:
    """The files of the repository that a page links to."""
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    return [path for target in targets if (path := (page.parent / target).resolve()).is_file()]


def copy_pages(folder: Path, root: Path = ROOT) -> None:
    """Copies the pages, and what they link to, to a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    for page in pages(root):
        for path in (page, *linked(page)):
            copy = folder / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    shutil.copytree(root / "docs" / "assets", folder / "docs" / "assets")


def build(folder: Path) -> int:
    """Builds ``folder/html`` of ``folder/pages``; returns the builder's exit code."""
    for name in ("mkdocs.yml", "docstring_links.py"):
        shutil.copyfile(ROOT / "docs" / name, folder / name)
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    command += ["--config-file", str(folder / "mkdocs.yml")]
    return subprocess.run(command, check=False, cwd=ROOT).returncode


def main(arguments: list[str]) -> int:
    """Builds the site; returns the builder's exit code."""
    folder = Path(arguments[0] if arguments else ROOT / "build" / "site").resolve()
    copy_pages(folder / "pages")
    return build(folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
