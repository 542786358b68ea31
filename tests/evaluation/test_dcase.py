"""The files of the DCASE challenge."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_evaluation import SP4ASC, scenes

from earmark.data.manifest import Clip
from earmark.errors import DataError
from earmark.evaluation.complexity.model_cost import complexity
from earmark.evaluation.dcase import meta_yaml, output_table, write_submission
from earmark.evaluation.evaluation import evaluate_predictions
from earmark.evaluation.predictions import Predictions


@pytest.fixture
def scene_record(info):
    labels = tuple(scenes()[0])
    return info.changed(labels=labels, task="single_label", name="small", description='says "where"')


def meta(info, by="device", passes=None, authors=("Ada King Lovelace", "Ben")) -> str:
    labels, outputs = scenes()
    found = evaluate_predictions(outputs, labels, "single_label", group_by=by)
    found = replace(found, origin={"settings": {"passes": passes}})
    return meta_yaml("King_XY_task1a_1", info, complexity("cnn6_60k_mixup", 10.0), found, authors)


def test_output_table():
    labels, outputs = scenes()
    head, *rows = csv.reader(io.StringIO(output_table(outputs, labels)), delimiter="\t")
    assert head == ["filename", "scene_label", *labels]
    assert len(rows) == 173
    assert [row[0] for row in rows[:2]] == ["0.wav", "1.wav"]
    assert [row[1] for row in rows] == [labels[own] for own in SP4ASC["probs"].argmax(1)]
    shares = np.array([[float(cell) for cell in row[2:]] for row in rows])
    np.testing.assert_allclose(shares, SP4ASC["probs"], rtol=1e-6)


def test_meta_yaml(scene_record):
    lines = [line.strip(" -") for line in meta(scene_record, passes=30).splitlines()]
    for line in (
        'label: "King_XY_task1a_1"',
        'lastname: "Lovelace"',
        'firstname: "Ada King"',
        'input_sampling_rate: "8kHz"',
        "total_parameters: 62922",
        "model_size: 245.790000",
        "bits_per_parameter: 32",
        "macs: 442574218",
        'test_time_augmentation: "SpecAugment"',
        "test_time_passes: 30",
        "data_augmentation: null",
        "external_data_usage: null",
        "complexity_management: null",
        "logloss: 1.667954",
        "accuracy: 34.411200",
    ):
        assert line in lines, line


def test_meta_yaml_is_valid(scene_record):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    reported = yaml.safe_load(meta(scene_record))
    authors = reported["submission"]["authors"]
    assert [(one["firstname"], one["lastname"], one["corresponding"]) for one in authors] == [
        ("Ada King", "Lovelace", True),
        (None, "Ben", False),
    ]
    assert authors[0]["affiliation"]["institute"] is None
    assert reported["system"]["complexity"]["total_parameters"] == 62_922
    assert reported["system"]["complexity"]["model_size"] == pytest.approx(62_922 * 4 / 1024, abs=0.01)
    assert reported["system"]["description"]["description"] == 'says "where"'
    results = reported["results"]["development_dataset"]
    assert results["overall"]["logloss"] == pytest.approx(SP4ASC["overall"][0], abs=1e-5)
    assert results["overall"]["accuracy"] == pytest.approx(SP4ASC["overall"][1], abs=1e-3)
    losses = [results["class_wise"][label]["logloss"] for label in scenes()[0]]
    np.testing.assert_allclose(losses, SP4ASC["class_logloss"], atol=1e-5)
    assert list(results["device_wise"]) == SP4ASC["device_names"].tolist()
    shares = [own["accuracy"] for own in results["device_wise"].values()]
    np.testing.assert_allclose(shares, SP4ASC["device_acc"], atol=1e-3)


def test_names_are_quoted_in_yaml(scene_record):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    names = ["no", "Y", "a: b", "1e3", "- x"]
    labels, outputs = scenes()
    clips = [
        Clip(clip.path, clip.labels, 0, {"device": names[number % 5]})
        for number, clip in enumerate(outputs.clips)
    ]
    found = evaluate_predictions(
        Predictions(tuple(clips), outputs.scores), labels, "single_label", group_by="device"
    )
    reported = yaml.safe_load(meta_yaml("1", scene_record, complexity("cnn6_60k_mixup"), found, []))
    assert sorted(reported["results"]["development_dataset"]["device_wise"]) == sorted(names)
    assert reported["submission"]["label"] == "1"


def test_what_a_training_used_is_stated(scene_record):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    info = scene_record.changed(
        precision="fp16",
        arguments={"spec_augment": [128, 2, 32, 2]},
        provenance={
            "augment": {"mixup_alpha": 0.2, "mixup_larger": False, "roll_s": 0.1},
            "init_from": "mn10_as",
            "teachers": [{"name": "yamnet", "sha256": "0"}],
        },
    )
    system = yaml.safe_load(meta(info))["system"]
    description = system["description"]
    assert description["data_augmentation"] == "mixup, time rolling, SpecAugment"
    assert description["external_data_usage"] == "pre-trained model, knowledge distillation"
    assert description["complexity_management"] == "16-bit weights"
    assert (description["test_time_augmentation"], description["test_time_passes"]) == (None, 1)
    assert [source["name"] for source in system["external_datasets"]] == ["mn10_as", "yamnet"]
    assert system["complexity"]["model_size"] == pytest.approx(62_922 * 2 / 1024, abs=0.01)
    members = scene_record.changed(provenance={"members": {"a": dict(info.provenance), "b": {}}})
    assert "mixup" in yaml.safe_load(meta(members))["system"]["description"]["data_augmentation"]


def test_clips_of_a_pack_have_the_names_of_the_challenge():
    labels, outputs = scenes()
    ids = ["airport-lisbon-1000-40000-a", "b.wav"]
    clips = [Clip(Path("000000.tar"), (), extra={"id": name}, member=n) for n, name in enumerate(ids)]
    table = output_table(Predictions(tuple(clips), outputs.scores[:2]), labels)
    names = [line.split("\t")[0] for line in table.splitlines()]
    assert names == ["filename", "airport-lisbon-1000-40000-a.wav", "b.wav"]


def test_clips_with_and_without_labels_have_files_of_their_own(scene_record, tmp_path):
    labels, outputs = scenes()
    cost = complexity("cnn6_60k_mixup")
    unlabelled = Predictions(tuple(Clip(clip.path, ()) for clip in outputs.clips), outputs.scores)
    validated, tested = (
        replace(evaluate_predictions(found, labels, "single_label"), info=scene_record)
        for found in (outputs, unlabelled)
    )
    written = [
        [path.name for path in write_submission(found, cost, "x", tmp_path)]
        for found in (tested, validated, tested)
    ]
    assert written == [
        ["x.output.csv", "x.meta.yaml"],
        ["x.development.output.csv", "x.meta.yaml"],
        ["x.output.csv"],
    ]
    assert "results:" in (tmp_path / "x.meta.yaml").read_text()


def test_without_labels_there_are_no_results(scene_record):
    labels, outputs = scenes()
    clips = tuple(Clip(clip.path, ()) for clip in outputs.clips)
    found = evaluate_predictions(Predictions(clips, outputs.scores), labels, "single_label")
    text = meta_yaml("x", scene_record, complexity("cnn6_60k_mixup"), found, [])
    assert "results" not in text
    assert "total_parameters" in text


def test_labels_that_may_co_occur_are_refused(info, scene_record, tmp_path):
    labels, outputs = scenes()
    found = replace(evaluate_predictions(outputs, labels, "single_label"), info=scene_record)
    cost = complexity("cnn6_60k_mixup")
    names = [path.name for path in write_submission(found, cost, "x", tmp_path)]
    assert names == ["x.development.output.csv", "x.meta.yaml"]
    with pytest.raises(DataError):
        write_submission(replace(found, info=info), cost, "x", tmp_path)
