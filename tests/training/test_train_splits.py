"""A recipe's sources are manifests or corpora, checked before anything is read."""

import tomllib
from dataclasses import replace
from pathlib import Path

import corpora_toys
import pytest
import refresh
import toy
from pydantic import ValidationError

from earmark.data.corpora import load_corpus
from earmark.data.manifest import read_manifest
from earmark.errors import DataError
from earmark.model_file.labels import label_set
from earmark.training.config.data import ClipSource, Data
from earmark.training.config.recipe import Recipe
from earmark.training.splits import source_clips, split_clips, training_dataset
from earmark.training.trainer import train_network as train


@pytest.fixture(scope="module")
def tau(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tau")
    corpora_toys.make_tau2020(folder)
    return folder


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kaggle")
    corpora_toys.make_fsdkaggle2018(folder)
    return folder


def source(**values) -> ClipSource:
    return ClipSource.model_validate(values)


def test_manifests_are_read_one_after_the_other(tmp_path):
    table = toy.write_clips(tmp_path)
    assert source_clips(source(manifests=[str(table), str(table)])) == 2 * read_manifest(table)


def test_the_training_set_pads_as_the_recipe_says(clips):
    for wanted in (False, True):
        recipe = toy.toy_recipe(clips, augment={"random_padding": wanted})
        assert training_dataset(recipe, split_clips(recipe, 1)).random_padding == wanted


def test_columns_of_a_table_may_be_called_otherwise(tmp_path):
    table = tmp_path / "table.tsv"
    table.write_text("file,class,part,license\na.wav,dog,2,CC0\n", encoding="utf-8")
    columns = {"path": "file", "labels": "class", "fold": "part"}
    [clip] = source_clips(source(manifests=[str(table)], columns=columns, audio=tmp_path / "x"))
    assert (clip.path, clip.labels, clip.fold) == (tmp_path / "x" / "a.wav", ("dog",), 2)
    assert clip.extra == {"license": "CC0"}
    with pytest.raises(DataError):
        read_manifest(table, columns=columns | {"fold": "part2"})


def test_splits_become_folds(tau):
    taught = source(corpus="tau2020", folder=tau, split="train")
    evaluation_clips = source(corpus="tau2020", folder=tau, split=["evaluate"], fold=1)
    assert source_clips(taught) == load_corpus("tau2020", tau, "train")
    assert {clip.fold for clip in source_clips(evaluation_clips)} == {1}
    both = source(corpus="tau2020", folder=tau, split=["train", "evaluate"], fold=3)
    assert [replace(clip, fold=0) for clip in source_clips(both)] == [
        clip for split in ("train", "evaluate") for clip in load_corpus("tau2020", tau, split)
    ]


def test_a_corpus_may_serve_without_its_labels(tau):
    clips = source_clips(source(corpus="tau2020", folder=tau, split="train", labelled=False))
    assert not any(clip.labelled or clip.labels for clip in clips)


def test_clips_are_assigned_to_folds(kaggle):
    clips = source_clips(source(corpus="fsdkaggle2018", folder=kaggle, split="train", num_folds=5))
    assert sorted((clip.fold, *clip.labels) for clip in clips) == sorted(
        (fold, name) for fold in range(1, 6) for name in ("Acoustic_guitar", "Bark", "Hi-hat")
    )


def test_a_network_trains_on_one_split_and_is_evaluated_on_another(tau, tmp_path):
    sources = [
        {"corpus": "tau2020", "folder": str(tau), "split": "train"},
        {"corpus": "tau2020", "folder": str(tau), "split": "evaluate", "fold": 1},
    ]
    changes = {"augment": {}, "optimizer": {"epochs": 1}, "evaluation": {"every_epochs": 1}}
    recipe = toy.toy_recipe(
        tmp_path / "unused.csv", data={"sources": sources, "folds": [1], "labels": "tau_scenes"}, **changes
    )
    split = split_clips(recipe, 1)
    assert split.labels == label_set("tau_scenes")
    assert [len(group) for group in split.groups] == [10, 0]
    assert len(split.evaluated) == 10
    info = train(recipe, tmp_path / "run", 1)
    assert info.labels == label_set("tau_scenes")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_a_network_trains_on_rows_of_hdf5_files(tmp_path):
    corpora_toys.make_fsd50k_hdf5(tmp_path / "corpus")
    sources = [{"corpus": "fsd50k_hdf5", "folder": str(tmp_path / "corpus"), "split": ["train", "val"]}]
    recipe = toy.toy_recipe(
        tmp_path / "unused.csv",
        data={"sources": sources, "folds": [], "labels": "fsd50k", "workers": 2},
        augment={},
        optimizer={"epochs": 1},
    )
    assert len(train(recipe, tmp_path / "run").labels) == 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "exactly one of manifests, shards and corpus"),
        ({"manifests": ["a.csv"], "corpus": "esc50", "folder": "x"}, "exactly one of manifests"),
        ({"manifests": ["a.csv"], "folder": "x"}, "folder cannot be combined with manifests"),
        ({"manifests": ["a.csv"], "split": "train"}, "split cannot be combined with manifests"),
        ({"corpus": "esc50", "folder": "x", "audio": "y"}, "audio cannot be combined with corpus"),
        (
            {"corpus": "esc50", "folder": "x", "columns": {"path": "y"}},
            "columns cannot be combined with corpus",
        ),
        ({"corpus": "esc50"}, "corpus needs a folder"),
        ({"shards": "x", "manifests": ["a.csv"]}, "exactly one of manifests"),
        ({"shards": "x", "audio": "y"}, "audio cannot be combined with shards"),
        ({"corpus": "esc51", "folder": "x"}, "unknown corpus 'esc51': choose from"),
        ({"corpus": "fsd50k", "folder": "x"}, "has several splits: choose one of train, val, eval"),
        ({"corpus": "fsd50k", "folder": "x", "split": ["train", "dev"]}, "has no split 'dev'"),
        ({"corpus": "esc50", "folder": "x", "fold": 1, "num_folds": 5}, "exclude each other"),
        ({"corpus": "esc50", "folder": "x", "num_folds": 1}, "greater than or equal to 2"),
        ({"manifests": ["a.csv"], "columns": {"paths": "y"}}, "'path'"),
    ],
)
def test_a_source_that_cannot_be_meant_is_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        source(**values)


def test_labels_may_be_a_published_set():
    values = {"sources": [{"manifests": ["a.csv"]}]}
    assert Data.model_validate(values | {"labels": "audioset"}).labels == "audioset"
    with pytest.raises(ValidationError):
        Data.model_validate(values | {"labels": "audio"})


def test_the_documented_sources_are_valid():
    page = Path(refresh.ROOT, "docs", "corpora.md").read_text(encoding="utf-8")
    examples = [tomllib.loads(text)["data"] for text in refresh.fences(page, "toml")]
    corpora, table = (Data.model_validate(example).sources for example in examples)
    assert [(one.corpus, one.split, one.fold) for one in corpora] == [
        ("fsd50k", ("train", "val"), None),
        ("fsd50k", ("eval",), 1),
    ]
    assert table[0].columns == {"path": "file", "labels": "category"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": {"roll_s": 0.1}}, "augment.roll_s is for sound, and the clips are images"),
        ({"augment": {"gain_db": [-6, 3]}}, "augment.gain_db is for sound"),
        ({"augment": {"f_max_range": 100}}, "augment.f_max_range is for sound"),
        ({"front_end": {"floor": 0.0}}, "front_end must be a log-mel"),
        ({"front_end": {"kind": "leaf"}}, "front_end must be a log-mel"),
        (
            {"teacher": {"path": "a.tflite", "sample_rate": 16000, "imitation_weight": 1}},
            "teachers process sound",
        ),
    ],
)
def test_what_is_for_sound_is_refused_for_images(changes, message):
    values = toy.toy_values("unused.csv") | {"augment": {"mixup_alpha": 0.3, "mask_mels": 4}}
    values["data"] = {"sources": [{"corpus": "images", "folder": "x", "split": "train"}]}
    assert Recipe.model_validate(values).data.is_images
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values | changes)


def test_images_and_sounds_are_not_mixed():
    images, sounds = {"corpus": "images", "folder": "x", "split": "train"}, {"manifests": ["a.csv"]}
    assert Data.model_validate({"sources": [images]}).is_images
    assert not Data.model_validate({"sources": [sounds]}).is_images
    with pytest.raises(ValidationError):
        Data.model_validate({"sources": [images, sounds]})
