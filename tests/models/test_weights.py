"""Published weights are read without running code, and loaded strictly."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from earmark.errors import ModelError
from earmark.hub.registry import published
from earmark.models import architectures, create_model
from earmark.models.weights import build_with_weights, read_state_dict, replace_head


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return create_model("mn01", num_classes=3).state_dict()


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 7, "loss": 0.5},
        lambda state: {
            "epoch": 200,
            "net": state,
            "optim": {"state": {}},
            "config": {"net": "x", "lr": 1e-3},
        },
        lambda state: {"model": state},
    ],
    ids=["alone", "state_dict", "net", "model"],
)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_checkpoints_are_read(tensors, tmp_path, wrap, zipped):
    torch.save(wrap(tensors), tmp_path / "a.pt", _use_new_zipfile_serialization=zipped)
    assert same(read_state_dict(tmp_path / "a.pt"), tensors)


def test_safetensors_are_read(tensors, tmp_path):
    save_file(tensors, tmp_path / "a.bin")
    read = read_state_dict(tmp_path / "a.bin")
    assert same(dict(sorted(read.items())), dict(sorted(tensors.items())))


@pytest.mark.parametrize("how", ["pickle", "legacy", "zip", "beside"])
def test_malicious_pickle_raises_and_runs_nothing(tensors, tmp_path, how):
    path, mark = tmp_path / "a.pt", tmp_path / "it_ran"
    malice = Malice(f"touch {mark}")
    if how == "pickle":
        path.write_bytes(pickle.dumps(malice))
    elif how == "beside":
        torch.save({"state_dict": tensors, "hyper_parameters": malice}, path)
    else:
        torch.save({"a": malice}, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not mark.exists()
    if how != "pickle":
        assert "system" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html></html>", b"PK\x03\x04 and no more", b"\x80\x02}q\x00."]
)
def test_other_files_raise(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_truncated_checkpoint_raises(tensors, tmp_path, share):
    torch.save(tensors, tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ModelError):
        read_state_dict(tmp_path / "a.pt")


def test_other_archive_and_missing_file_raise(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(ModelError):
        read_state_dict(tmp_path / "a.zip")
    with pytest.raises(ModelError, match=r"none\.pt: cannot be read: No such file"):
        read_state_dict(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {"net": {"a": "b"}}, {}, torch.zeros(2)])
def test_file_without_state_dict_raises(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ModelError, match="no state dict"):
        read_state_dict(tmp_path / "a.pt")


def test_weights_are_loaded(tensors):
    before = torch.get_rng_state()
    network = build_with_weights("mn01", {}, 3, tensors)
    assert torch.equal(torch.get_rng_state(), before)
    assert not network.training
    assert same(network.state_dict(), tensors)


def test_half_precision_becomes_single(tensors):
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    network = build_with_weights("mn01", {}, 3, half)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"classifier.5.bias": None}, r"classifier\.5\.bias is missing"),
        ({"more": torch.zeros(1)}, "more is unexpected"),
        ({"classifier.5.bias": torch.zeros(4)}, r"bias has shape \(4,\) instead of \(3,\)"),
        ({"classifier.5.bias": torch.full((3,), torch.nan)}, "bias is not finite"),
        ({"classifier.5.bias": torch.tensor([0, torch.inf, 0])}, "bias is not finite"),
        ({"classifier.5.bias": torch.full((3,), 1e300, dtype=torch.float64)}, "bias is not finite"),
        (
            {"classifier.5.bias": torch.zeros(3, dtype=torch.complex64)},
            "has type complex64 instead of float32",
        ),
        ({"classifier.5.bias": torch.zeros(3, dtype=torch.float8_e4m3fn)}, "has type float8_e4m3fn"),
        ({"classifier.5.bias": torch.zeros(3, dtype=torch.int64)}, "has type int64"),
        ({"classifier.5.bias": torch.zeros(3, device="meta")}, "has a shape, but no values"),
        ({"classifier.5.bias": torch.zeros(3).to_sparse()}, "is sparse or quantised"),
        ({"features.0.1.num_batches_tracked": torch.tensor(1.5)}, "has type float32 instead of int64"),
    ],
)
def test_weights_that_do_not_fit_raise(tensors, change, problem):
    changed = {name: tensor for name, tensor in {**tensors, **change}.items() if tensor is not None}
    with pytest.raises(ModelError, match=problem):
        build_with_weights("mn01", {}, 3, changed)


def test_weights_of_another_network_raise(tensors):
    with pytest.raises(ModelError, match=r"mn02 .* and \d+ more"):
        build_with_weights("mn02", {}, 3, tensors)
    with pytest.raises(ModelError, match="has shape"):
        build_with_weights("mn01", {}, 527, tensors)
    with pytest.raises(ModelError, match="is missing"):
        build_with_weights("mn01", {"head": "fully_convolutional"}, 3, tensors)


@pytest.mark.parametrize(
    ("arguments", "head"),
    [
        ({}, {"classifier.5.weight", "classifier.5.bias"}),
        (
            {"head": "fully_convolutional"},
            {"classifier.0.weight"}
            | {f"classifier.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")},
        ),
    ],
)
def test_only_the_head_differs_for_another_number_of_classes(arguments, head):
    network = create_model("mn01", num_classes=7, **arguments)
    other = replace_head(network, 4)
    assert other.config == create_model("mn01", num_classes=4, **arguments).config
    given, got = network.state_dict(), other.state_dict()
    assert {name for name in given if given[name].shape != got[name].shape} == head
    assert all(torch.equal(given[name], got[name]) for name in given if name not in head)
    assert same(replace_head(network, 7).state_dict(), given)


def test_registry_has_the_right_numbers_of_parameters():
    """Of one model of each architecture; the slow tests of complexity count all."""
    table = published().values()
    assert {known.architecture for known in table} <= set(architectures())
    for known in {known.architecture: known for known in table}.values():
        with torch.device("meta"):
            network = create_model(known.architecture, num_classes=known.num_classes, **known.arguments)
        assert sum(parameter.numel() for parameter in network.parameters()) == known.params, known.name
