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
        """The file of a recording; of several whose names differ in their suffixes only, it has that too.

        Raises:
            DataError: If one file was named, and holds another recording already.
        """
        if not self._is_folder:
            if self._sources:
                raise DataError(
                    f"{recording}: a second recording, and {self._output} holds one: give a folder as output"
                )
            self._sources[self._output] = recording
            return self._output
        stem, suffix = os.path.splitext(self._relative(recording))
        target = self._output / f"{stem}{self._suffix}"
        if self._sources.setdefault(target, recording) != recording:
            target = self._output / f"{stem}{suffix}{self._suffix}"
        return target

    def _relative(self, recording: str) -> str:
        """The path within the innermost folder that was given, or the name of a file."""
        if recording == "-":
            return "stdin"
        path = os.path.abspath(recording)
        inside = [folder for folder in self._folders if path.startswith(os.path.join(folder, ""))]
        return os.path.relpath(path, max(inside, key=len)) if inside else os.path.basename(path)
