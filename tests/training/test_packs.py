"""A run learns from packs as from the manifests that they were made of, whatever happens to single clips."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from earmark.data.manifest import clips_hash, read_manifest
from earmark.data.shards.index import find_index
from earmark.data.shards.writer import PackOptions, pack
from earmark.errors import AudioError, DataError
from earmark.training.config.data import ClipSource
from earmark.training.runtime.skipped_clips import SkippedClips
from earmark.training.splits import epoch_draws, source_clips, split_clips
from earmark.training.trainer import train_network as train


@pytest.fixture(scope="module")
def packed(clips, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packed")
    for form in ("shards", "memmap", "hdf5"):
        packing = PackOptions(form, sample_rate=toy.SAMPLE_RATE, shard_clips=5)
        pack(read_manifest(clips), folder / form, packing)
    return {path.name: path for path in folder.iterdir()}


def recipe_of(folder: Path, source=(), data=(), **tables):
    sources = [{"shards": str(folder), **dict(source)}]
    return toy.toy_recipe(
        Path("unused.csv"), data={"sources": sources, "cache": False, **dict(data)}, **tables
    )


def test_clips_of_a_pack_are_taken_as_those_of_its_manifest(packed, clips):
    manifest = toy.toy_recipe(
        clips, data={"sources": [{"manifests": [str(clips)], "train_filter": {"license": ["CC0"]}}]}
    )
    for form in packed:
        split = split_clips(recipe_of(packed[form], {"train_filter": {"license": ["CC0"]}}), 1)
        wanted = split_clips(manifest, 1)
        assert split.labels == wanted.labels
        assert clips_hash(split.groups[0]) == clips_hash(wanted.groups[0])
        assert clips_hash(split.evaluated) == clips_hash(wanted.evaluated)
    source = ClipSource(shards=packed["shards"], labelled=False, fold=3)
    assert {(clip.labelled, clip.labels, clip.fold) for clip in source_clips(source)} == {(False, (), 3)}


def test_a_pack_of_another_rate_is_not_silent(clips, tmp_path):
    pack(read_manifest(clips), tmp_path / "pack", PackOptions(sample_rate=toy.SAMPLE_RATE // 2))

    def report(facts):
        raise InterruptedError(facts.get("warning", ""))

    with pytest.raises(InterruptedError, match="resampled from 4000 Hz to the model's 8000 Hz"):
        train(recipe_of(tmp_path / "pack"), tmp_path / "run", 1, report)


@pytest.mark.parametrize("form", ["shards", "memmap"])
def test_a_network_learns_the_same_from_a_lossless_pack(packed, clips, tmp_path, form):
    changes = {"optimizer": {"epochs": 1}, "evaluation": {"every_epochs": 1}}
    train(toy.toy_recipe(clips, data={"cache": False}, **changes), tmp_path / "manifest", 1)
    train(recipe_of(packed[form], **changes), tmp_path / "pack", 1)
    lines = [json.loads((tmp_path / name / "log.jsonl").read_text()) for name in ("manifest", "pack")]
    assert lines[0] | {"seconds": 0} == lines[1] | {"seconds": 0}
    noted = json.loads((tmp_path / "pack" / "run.json").read_text())["files"]
    assert all(len(noted[str(packed[form] / name)]) == 64 for name in ("pack.json", "clips.csv"))


def test_shards_come_one_after_the_other_where_that_is_asked_for(packed, tmp_path):
    recipe = recipe_of(packed["shards"], data={"shuffle_shards": 2})
    split = split_clips(recipe, None)
    [draw] = epoch_draws(recipe, split)
    assert (draw.shuffle_distance, len(set(draw.shards.tolist()))) == (2, 4)
    train(
        recipe.model_copy(update={"optimizer": recipe.optimizer.model_copy(update={"epochs": 1})}), tmp_path
    )


def test_packs_of_other_labels_are_not_mixed(packed, clips, tmp_path):
    others = [replace(clip, labels=("knock",)) for clip in read_manifest(clips)[:4]]
    pack(others, tmp_path, PackOptions(sample_rate=toy.SAMPLE_RATE))
    quiet = [clip for clip in read_manifest(clips) if not clip.labels]
    pack(quiet, tmp_path / "quiet", PackOptions(sample_rate=toy.SAMPLE_RATE))

    def both(folder, **more):
        sources = [{"shards": str(packed["shards"])}, {"shards": str(folder), **more}]
        return split_clips(toy.toy_recipe(Path("unused.csv"), data={"sources": sources}), None)

    with pytest.raises(DataError):
        both(tmp_path)
    assert len(both(tmp_path / "quiet").groups[1]) == len(quiet)


@pytest.fixture
def damaged(packed, tmp_path) -> Path:
    """A pack of shards in which two clips are damaged, of which one is trained on without fold 1."""
    folder = Path(shutil.copytree(packed["shards"], tmp_path / "damaged"))
    clips = read_manifest(folder / "clips.csv")
    chosen = [next(clip for clip in clips if clip.fold == fold) for fold in (0, 2)]
    for clip in chosen:
        with clip.path.open("r+b") as stream:
            stream.seek(int(find_index(clip.path).offsets[clip.member]) + 100)
            stream.write(b"damage")
    return folder


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_damaged_clips_are_named_once_and_left_out(damaged, tmp_path):
    reported: list = []
    data = {"max_bad_fraction": 0.25, "workers": 1}
    train(recipe_of(damaged, data=data, optimizer={"epochs": 2}), tmp_path / "run", 1, reported.append)
    named = [facts for facts in reported if "skipped" in facts]
    assert [facts["clips"] for facts in named] == [1, 2]
    assert all("damaged" in facts["skipped"] for facts in named)
    assert len({facts["skipped"] for facts in named}) == 2
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2


def test_too_many_of_them_end_the_run_with_one_line(damaged, tmp_path):
    message = r"2 of the run's 12 clips cannot be read, more than data\.max_bad_fraction \(0\.1\) allows"
    with pytest.raises(AudioError, match=message) as raised:
        train(recipe_of(damaged, data={"max_bad_fraction": 0.1}), tmp_path / "run", 1)
    assert "\n" not in str(raised.value)


class Clips:
    def __len__(self):
        return 100

    def reason(self, index):
        return f"clip {index} is gone"


def test_another_clip_of_the_batch_stands_in_with_all_that_is_its_own():
    reported: list = []
    left_out = SkippedClips(Clips(), 0.05, reported.append)
    waveforms = torch.arange(12.0).reshape(4, 3)
    wanted, keys = torch.arange(4.0)[:, None], [(10, 0), (11, 1), (12, 2), (13, 3)]
    assert left_out(keys, (waveforms, wanted))[1][0] is waveforms
    waveforms[[0, 2]] = torch.nan
    for _ in range(2):
        own, (received, targets) = left_out(keys, (waveforms, wanted))
        assert [index for index, _ in own] == [11, 11, 11, 13]
        assert targets.flatten().tolist() == [1, 1, 1, 3]
        np.testing.assert_array_equal(received[:, 0], [3, 3, 3, 9])
    assert [facts["skipped"] for facts in reported] == ["clip 10 is gone", "clip 12 is gone"]
    with pytest.raises(AudioError):
        left_out([keys[0], keys[0]], (waveforms[[0, 0]], wanted[:2]))
