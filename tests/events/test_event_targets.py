"""The names of files of one recording each."""

from pathlib import Path

import pytest
from made_events import Known

from earmark.errors import DataError
from earmark.events.targets import Targets


def test_files_in_a_folder_lie_as_their_recordings_do(tmp_path: Path) -> None:
    (tmp_path / "archive" / "north").mkdir(parents=True)
    targets = Targets(tmp_path / "out", ".txt", [str(tmp_path / "archive"), "b.wav"])
    found = [
        targets.of(str(tmp_path / "archive" / name)) for name in ("a.wav", "north/a.wav", "a.flac", "a.wav")
    ]
    found.append(targets.of(f"elsewhere/{Known.path}"))
    assert [str(path.relative_to(tmp_path / "out")) for path in found] == [
        "a.txt",
        "north/a.txt",
        "a.flac.txt",
        "a.txt",
        "street (1).txt",
    ]


def test_a_file_holds_one_recording(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "a.vtt", ".vtt", ["a.wav", "b.wav"])
    assert targets.of("a.wav") == tmp_path / "a.vtt"
    with pytest.raises(DataError, match=r"b\.wav"):
        targets.of("b.wav")
