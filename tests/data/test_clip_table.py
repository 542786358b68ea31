"""Clips of a manifest, a pack or a corpus, as commands read them."""

import shutil
from pathlib import Path

import corpora_toys
import pytest
import toy

from earmark.data.clip_table import read_clips
from earmark.data.corpora import load_corpus
from earmark.data.manifest import file_hash, read_manifest
from earmark.data.shards.writer import PackOptions, pack
from earmark.errors import DataError


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("table"), clips_per_fold=2, quiet=0)


@pytest.fixture(scope="module")
def packed(manifest, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pack") / "p"
    pack(read_manifest(manifest), folder, PackOptions(sample_rate=8000))
    return folder


def test_a_manifest(manifest, tmp_path):
    table = read_clips(manifest)
    assert list(table.clips) == read_manifest(manifest)
    assert table.origin == {"path": str(manifest), "sha256": file_hash(manifest)}
    assert table.name == "clips.csv"
    assert table.rate_warnings(32_000) == ()
    shutil.copy(manifest, tmp_path / "moved.csv")
    assert read_clips(tmp_path / "moved.csv", audio=manifest.parent).clips == table.clips


def test_a_corpus_has_the_clips_of_recipes(tmp_path):
    corpora_toys.make_fsdkaggle2018(tmp_path)
    table = read_clips(tmp_path, corpus="fsdkaggle2018", splits=("train", "test"))
    train, test = (load_corpus("fsdkaggle2018", tmp_path, split) for split in ("train", "test"))
    assert list(table.clips) == train + test
    assert table.name == "fsdkaggle2018 train+test"
    assert table.origin["corpus"] == table.name
    assert table.sha256 != read_clips(tmp_path, corpus="fsdkaggle2018", splits=("train",)).sha256


@pytest.mark.parametrize(
    "options",
    [
        {"splits": ("train",)},
        {"corpus": "esc50", "audio": "x"},
        {"corpus": "esc50", "splits": ("train",)},
        {"corpus": "fsd50k"},
        {"corpus": "none"},
        {"corpus": "images", "splits": ("val",)},
    ],
)
def test_what_does_not_apply_is_refused(options, tmp_path):
    with pytest.raises(DataError):
        read_clips(tmp_path, **options)


def test_the_rate_of_a_pack_is_compared(packed):
    for path in (packed, packed / "clips.csv"):
        table = read_clips(path)
        assert table.rate_warnings(8000) == ()
        [lower] = table.rate_warnings(16_000)
        [higher] = table.rate_warnings(4000)
        assert lower.startswith(f"{packed}: resampled from 8000 Hz to the model's 16000 Hz")
        assert "4000 Hz" in lower
        assert "pack" not in higher.removeprefix(str(packed))
