import csv
from pathlib import Path

import pytest
import soundfile
from pack_clips import FORMATS, RATE, sound

from earmark.data.manifest import Clip, read_manifest
from earmark.data.shards.writer import PackOptions, pack


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips with every column of a manifest."""
    folder = tmp_path_factory.mktemp("table")
    with (folder / "clips.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "labels", "fold", "unknown", "labelled", "license", "título"))
        for number in range(10):
            name = f"a clip.{number}.wav"
            soundfile.write(folder / name, sound(number), RATE)
            labels = (("dog",), ("dog", "rain"), ())[number % 3]
            unknown = "wind" if number == 4 else ""
            about = ("CC0", f"größer, {number}")
            writer.writerow(
                (name, ";".join(labels), number % 3, unknown, "no" if number == 5 else "", *about)
            )
    return folder / "clips.csv"


@pytest.fixture(scope="session")
def clips(manifest: Path) -> list[Clip]:
    return read_manifest(manifest)


@pytest.fixture(scope="session")
def made(clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A pack of each format; do not change it."""
    folder = tmp_path_factory.mktemp("packs")
    for form in FORMATS:
        pack(clips, folder / form, PackOptions(form, sample_rate=RATE, shard_clips=4))
    return {form: folder / form for form in FORMATS}
