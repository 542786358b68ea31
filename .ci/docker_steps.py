"""Checks that the steps of the Dockerfiles are commands of README.md or docs/install.md, which are tested.

    python3 .ci/docker_steps.py [DOCKERFILE...]

Prints the steps. A step is a command of a RUN line; lines are joined at a backslash and split at "&&". Steps
that make the image's user and folders mean nothing outside an image, so they are in no page.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/install.md")
IMAGE_ONLY = re.compile(r"(useradd|install --directory) .*")


def steps(text: str) -> list[str]:
    """The commands of all RUN lines, in order."""
    runs = re.findall(r"^RUN (.*)$", text.replace("\\\n", " "), re.MULTILINE)
    return [" ".join(part.split()) for run in runs for part in run.split("&&")]


def documented() -> Iterator[str]:
    """The commands of every fence marked ``sh``, without comments."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for fence in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            for line in fence.splitlines():
                yield from (" ".join(part.split()) for part in line.partition("  #")[0].split("&&"))


def main(paths: list[Path]) -> None:
    """Checks Dockerfiles; ends with an error if a step is none of the documented commands."""
    known = set(documented())
    for path in paths:
        found = steps(path.read_text(encoding="utf-8"))
        print(f"{path.name}: {' && '.join(found)}")
        if unknown := [step for step in found if step not in known and not IMAGE_ONLY.fullmatch(step)]:
            sys.exit(f"{path}: {unknown[0]!r} is in none of {', '.join(PAGES)}")
        if not found:
            sys.exit(f"{path}: has no step")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or sorted(ROOT.glob("Dockerfile*")))
