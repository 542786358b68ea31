"""A clip that a tagger is fitted to.

Conventions: an example without labels is background.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Example:
    """A clip with its labels.

    Args:
        path: The recording.
        labels: Its labels; none: background.
        group: Name of the source that it is a take of.
        start_s: Start within the recording, in seconds.
        end_s: End within the recording; None: its end.
    """

    path: Path
    labels: tuple[str, ...]
    group: str = ""
    start_s: float = 0.0
    end_s: float | None = None

    @property
    def name(self) -> str:
        """The path, with the region where it is one."""
        end = "" if self.end_s is None else f"{self.end_s:g}"
        return f"{self.path}" if self.end_s is None else f"{self.path}, {self.start_s:g} to {end} s"
