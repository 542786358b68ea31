"""Names and paths of models; the table of published weights agrees with its sources."""

import json
import sys
from pathlib import Path

import pytest
import torch

from earmark.errors import ModelError
from earmark.evaluation.complexity.model_cost import complexity
from earmark.evaluation.complexity.network_cost import measure
from earmark.features.learned import LearnedFrontEnd
from earmark.features.presets import EFFICIENTAT, SP4ASC
from earmark.hub import registry
from earmark.hub.predictions import published_predictions
from earmark.model_file.labels import label_set
from earmark.models import create_model
from earmark.models.waveform_network import attach_front_end

REFERENCE_ARGUMENTS = {"head_type": "head", "use_dy_blocks": "dynamic_blocks", "strides": "strides"}


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A table of two models, apart from what the package ships."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in (f"{registry.DEFAULT}.onnx", "mn10_street.onnx", "README.md"):
        (folder / name).touch()
    monkeypatch.setattr(registry, "_SHIPPED", folder)
    return folder


def test_list_models(shipped):
    names = registry.list_models()
    assert names[:2] == registry.shipped() == sorted([registry.DEFAULT, "mn10_street"])
    assert {"mn10_as", "mn40_as_ext(2)", "dymn20_as", "cnn6_60k_mixup"} <= set(names)
    assert "mn10_im" not in names
    some = registry.list_models("mn10_*")
    assert some == [name for name in names if name.startswith("mn10_")]
    assert some[0] == "mn10_street"
    assert registry.list_models("nothing*") == []


def test_a_name_leads_to_its_file(shipped):
    assert registry.find("mn10_street") == shipped / "mn10_street.onnx"
    assert registry.find() == registry.find(registry.DEFAULT) == shipped / f"{registry.DEFAULT}.onnx"


def test_a_path_leads_to_itself(shipped, tmp_path):
    path = tmp_path / "own.onnx"
    path.touch()
    assert registry.find(path) == path
    assert registry.find(str(path)) == path


def test_a_published_name_leads_to_its_file_in_the_cache(own_cache):
    assert registry.lookup("mn10_as") is None
    with pytest.raises(ModelError, match="earmark pull mn10_as"):
        registry.find("mn10_as")
    (own_cache / "mn10_as.onnx").touch()
    assert registry.find("mn10_as") == own_cache / "mn10_as.onnx"
    assert registry.published_model("mn10_as").is_cached


def test_initial_weights_cannot_tag(own_cache):
    (own_cache / "mn10_im.safetensors").touch()
    assert registry.published_model("mn10_im").is_cached
    with pytest.raises(ModelError, match="initial weights for training"):
        registry.find("mn10_im")


@pytest.mark.parametrize(
    ("call", "name", "guess"),
    [
        (registry.find, "mn10_stret", "mn10_street"),
        (registry.find, "dymn10", "dymn10_"),
        (registry.published_model, "mn10_ass", "mn10_as"),
    ],
)
def test_an_unknown_name_suggests_similar_ones(shipped, call, name, guess):
    with pytest.raises(ModelError, match=rf"{name}': did you mean .*{guess}.*earmark models lists all"):
        call(name)


@pytest.mark.parametrize("name", ["none.onnx", "folder/none", "???"])
def test_what_does_not_exist_is_named(shipped, name):
    with pytest.raises(ModelError) as caught:
        registry.find(name)
    assert name in str(caught.value)


def test_a_folder_is_no_model_file(shipped):
    with pytest.raises(ModelError):
        registry.find(shipped)


def test_a_default_model_that_is_missing(shipped, monkeypatch):
    monkeypatch.setattr(registry, "_SHIPPED", shipped / "nothing")
    with pytest.raises(ModelError, match=f"{registry.DEFAULT} is not installed"):
        registry.find()


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"EARMARK_CACHE": "~/own"}, "/home/me/own"),
        ("linux", {}, "/home/me/.cache/earmark"),
        ("linux", {"XDG_CACHE_HOME": "/fast"}, "/fast/earmark"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/me/.cache/earmark"),
        ("darwin", {}, "/home/me/Library/Caches/earmark"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/earmark/Cache"),
        ("win32", {}, "/home/me/AppData/Local/earmark/Cache"),
    ],
)
def test_cache_folder(monkeypatch, platform, environment, expected):
    for name in ("EARMARK_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert registry.cache_folder() == Path(expected)


def test_every_entry_is_complete():
    for name, known in registry.published().items():
        assert known.name == name
        assert name == name.strip()
        assert known.url.startswith("https://")
        assert known.url.isprintable()
        assert " " not in known.url
        assert known.architecture
        assert known.source
        assert known.layout in ("", "torchvision")
        assert known.padding == "zero", "as all authors, or models would differ in ensembles"
        assert set(known.sha256) <= set("0123456789abcdef")
        assert all(0 < score < 1 for score in known.scores.values())
        assert bool(known.scores) <= bool(known.scored_on)
        if known.labels:
            assert len(label_set(known.labels)) == known.num_classes


def test_every_entry_of_predictions_is_complete():
    assert list(published_predictions()) == ["passt_ensemble"]
    for known in published_predictions().values():
        assert known.folder.name == known.name
        assert len(label_set(known.labels)) > 1
        assert known.kind in ("logits", "scores")
        assert known.table.name.endswith(".npy")
        assert known.index.name.endswith(".pkl")
        for file in (known.table, known.index):
            assert file.url.startswith("https://")
            assert set(file.sha256) <= set("0123456789abcdef")


def test_the_kernels_of_dymn_have_their_temperature():
    dynamic = {n: known for n, known in registry.published().items() if known.architecture.startswith("dymn")}
    assert {name: known.arguments["temperature"] for name, known in dynamic.items()} == {
        name: 30.0 if name.endswith("_im") else 1.0 for name in dynamic
    }


@pytest.mark.parametrize(
    ("name", "size", "sha256"),
    [
        ("cnn6_60k_ce", 791759, "714103cd210b1c01b5683758478f43add01e043fddc7b6cead3cf5ff75e65bcf"),
        ("cnn6_60k_mixup", 791753, "1c1dea32af53386078e228f7021b621a9084fef009a4019cfa347223d6f8e855"),
        ("cnn6_60k_focal", 791938, "f48ba7b41e901ae9cc5725716017a953ab496cb6361056bdbe7b5e310cb12603"),
    ],
)
def test_hashes_of_the_scene_models(name, size, sha256):
    known = registry.published_model(name)
    assert (known.size, known.sha256) == (size, sha256)
    assert (known.labels, known.task, known.front_end) == ("tau_scenes", "single_label", SP4ASC)


def test_all_models_of_efficientat(shared):
    golden = shared / "golden" / "efficientat" / "pipeline"
    release = json.loads((golden / "pretrained_names.json").read_text())
    folder = release["release"].removesuffix("<file>")
    table = {name: known for name, known in registry.published().items() if known.url.startswith(folder)}
    assert set(table) == {name.strip() for name in release["names"]}
    for name, wanted in release["names"].items():
        known = table[name.strip()]
        arguments = dict(known.arguments)
        arguments.pop("temperature", None)
        kwargs = dict(wanted["kwargs"])
        width = kwargs.pop("width_mult")
        assert known.url == folder + wanted["file"].strip()
        assert known.architecture == f"{wanted['family']}{round(10 * width):02d}"
        assert arguments == {REFERENCE_ARGUMENTS[key]: value for key, value in kwargs.items()}
        changes = {"hop_length": wanted["hop"], "n_mels": wanted["n_mels"]}
        assert known.front_end.to_dict() == EFFICIENTAT.to_dict() | changes
        assert known.labels == (None if name.endswith(("_im", "_im_pytorch")) else "audioset")
        stated = wanted["file"].partition("mAP_")[2][:3]
        assert not stated or known.scores == {"mAP": int(stated) / 1000}


def test_parameters_and_operations_are_those_of_the_reference(shared):
    golden = json.loads((shared / "golden/efficientat/pipeline/complexity.json").read_text())
    for name, known in registry.published().items():
        if name in golden:
            wanted = golden[name]
            macs = (
                wanted["macs_extended"]["total"]
                if "macs_extended" in wanted
                else wanted["macs_reference_rule"]
            )
            assert (known.params, known.macs) == (wanted["params"], macs), name
            if known.architecture.startswith("mn"):  # the reference leaves dynamic convolutions out
                assert known.peak_memory_kb == wanted["peak_kB_plain_16bit"], name


@pytest.mark.parametrize(
    "name", ["mn01_as", "mn10_as_hop_25", "mn10_as_fc_s2211", "dymn04_as", "cnn6_60k_ce"]
)
def test_costs_are_those_of_the_network(name):
    known, cost = registry.published_model(name), complexity(name).cost
    assert (known.params, known.macs, known.peak_memory_kb) == (
        cost.parameters,
        cost.macs,
        cost.peak_memory_kb,
    )


def test_costs_of_other_networks_are_computed_too():
    for known in registry.compared().values():
        size = 9 if known.name == "mn40_ensemble_of_9" else 1
        cost = cost_of(known)
        expected = (known.params, known.macs, known.peak_memory_kb)
        if kind := next((kind for kind in ("leaf", "sincnet") if known.name.endswith(kind)), None):
            assert expected == (cost.parameters + filters(kind), None, None)
        else:
            assert expected == (size * cost.parameters, size * cost.macs, cost.peak_memory_kb), known.name


def cost_of(known):
    with torch.device("meta"):
        network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments)
    front_end = known.front_end
    return measure(network, front_end.n_mels, front_end.num_frames(10 * front_end.sample_rate))


def filters(kind):
    """Parameters of a front-end that learns."""
    network = create_model("cnn6_60k", num_classes=2, n_mels=64)
    both = attach_front_end(network, LearnedFrontEnd(kind=kind))
    return sum(one.numel() for one in both.parameters()) - sum(one.numel() for one in network.parameters())
