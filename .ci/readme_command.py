"""Prints a command of README.md, so that CI runs the documented commands.

    python3 .ci/readme_command.py NUMBER

A command is a fence marked ``sh``; they are counted from 1.
"""

import re
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def commands(text: str) -> list[str]:
    """The content of every fence marked ``sh``, in order."""
    return [found.strip() for found in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]


if __name__ == "__main__":
    print(commands(README.read_text(encoding="utf-8"))[int(sys.argv[1]) - 1])
