"""Names of files that are written one per recording.

Conventions: the files of a folder of recordings lie in subfolders as their recordings do, so that recordings
of the same name in several folders have a file each.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from earmark.errors import DataError


class Targets:
    """Chooses the file of each recording: one that was named, or one in a folder.

    Args:
        output: A file, for one recording; or a folder: one that exists, or a name without a suffix.
        suffix: Of the files in a folder.
        inputs: Files and folders of the recordings.
    """

    def __init__(self, output: Path, suffix: str, inputs: Sequence[str]) -> None:
        self._output, self._suffix = output, suffix
        self._folders = [os.path.abspath(one) for one in inputs if os.path.isdir(one)]
        self._is_folder = output.is_dir() or not (output.suffix or output.exists())
        self._sources: dict[Path, str] = {}

    def of(self, recording: str) -> Path:
        """The file of a recording.

        Raises:
            DataError: If it is that of another recording already.
        """
        target = self._in_folder(recording) if self._is_folder else self._output
        other = self._sources.setdefault(target, recording)
        if other != recording:
            advice = "rename one of them" if self._is_folder else "give a folder as output"
            raise DataError(f"{target}: is written for {other}, and cannot hold {recording} too: {advice}")
        return target

    def _in_folder(self, recording: str) -> Path:
        path = os.path.abspath(recording)
        inside = [folder for folder in self._folders if path.startswith(os.path.join(folder, ""))]
        relative = os.path.relpath(path, max(inside, key=len)) if inside else os.path.basename(path)
        name = "samples" if recording == "-" else os.path.splitext(relative)[0]
        return self._output / f"{name}{self._suffix}"
