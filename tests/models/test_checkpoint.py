"""Checkpoints are loaded as they were saved, or raise."""

import json

import pytest
import torch
from safetensors.torch import load, save

from earmark.errors import ModelError
from earmark.features.front_end import FrontEnd
from earmark.model_file.checkpoint_file import HASH_KEY, INFO_KEY, checkpoint_hash
from earmark.model_file.info import ModelInfo
from earmark.models import Network, create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint, tensor_bytes


@pytest.fixture
def info() -> ModelInfo:
    return ModelInfo(
        name="two",
        labels=("rain", "Türklingel"),
        front_end=FrontEnd(n_mels=64),
        task="multi_label",
        architecture="mn01",
        arguments={"strides": [2, 2, 2, 1], "norm_momentum": 0.1},
        window_s=5.0,
        padding="repeat",
        embedding_size=96,
    )


@pytest.fixture
def network(info) -> Network:
    torch.manual_seed(0)
    return create_model("mn01", num_classes=2, **info.arguments)


@pytest.fixture
def path(tmp_path, network, info):
    save_checkpoint(tmp_path / "two.safetensors", network, info)
    return tmp_path / "two.safetensors"


def rewrite(path, tensors, metadata):
    """Replaces a checkpoint by one with a matching hash."""
    contents = {name: tensor_bytes(tensor) for name, tensor in tensors.items()}
    metadata = metadata | {HASH_KEY: checkpoint_hash(metadata[INFO_KEY], contents)}
    path.write_bytes(save(tensors, metadata))


def test_round_trip(path, network, info):
    loaded, loaded_info = load_checkpoint(path)
    assert loaded_info == info
    assert not loaded.training
    assert loaded.config == network.config
    state = network.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["two.safetensors"]


def test_memory_format_and_training_mode_do_not_matter(path, network, info, tmp_path):
    network.to(memory_format=torch.channels_last).train()
    save_checkpoint(tmp_path / "other.safetensors", network, info)
    assert (tmp_path / "other.safetensors").read_bytes() == path.read_bytes()
    assert network.training


def test_loading_leaves_the_random_state(path):
    torch.manual_seed(3)
    wanted = torch.randn(4)
    torch.manual_seed(3)
    load_checkpoint(path)
    assert torch.equal(torch.randn(4), wanted)


@pytest.mark.parametrize(
    "changes",
    [{"labels": ("a", "b", "c")}, {"arguments": {}}, {"architecture": "mn02"}, {"architecture": "mn"}],
)
def test_model_info_of_another_network_raises(path, network, info, changes):
    before = path.read_bytes()
    with pytest.raises(ModelError):
        save_checkpoint(path, network, info.changed(**changes))
    assert path.read_bytes() == before


def test_missing_file_and_folder_raise(tmp_path):
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelError) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_file_raises(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError):
        load_checkpoint(path)


@pytest.mark.parametrize("where", [-1, -50_000])
def test_flipped_bit_raises(path, where):
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        load_checkpoint(path)


def test_other_files_raise(path, tmp_path):
    pickled = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, pickled)
    with pytest.raises(ModelError):
        load_checkpoint(pickled)
    path.write_bytes(save({"a": torch.zeros(2)}))
    with pytest.raises(ModelError, match="not a checkpoint of earmark"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"version": 999}, "upgrade earmark"),
        ({"architecture": "mn011"}, "mn01"),
        ({"arguments": {"wings": 2}}, "wings"),
        ({"architecture": "mn02", "arguments": {}}, "do not fit mn02"),
    ],
)
def test_model_info_that_does_not_fit_raises(path, info, changes, problem):
    text = json.dumps(json.loads(info.to_json()) | changes)
    rewrite(path, load(path.read_bytes()), {INFO_KEY: text})
    with pytest.raises(ModelError, match=problem) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "besides"])
def test_missing_and_extra_tensors_raise(path, info, change):
    tensors = load(path.read_bytes())
    if change == "missing":
        del tensors["classifier.5.bias"]
    else:
        tensors["classifier.6.bias"] = torch.zeros(2)
    rewrite(path, tensors, {INFO_KEY: info.to_json()})
    with pytest.raises(ModelError, match=r"classifier\.[56]\.bias"):
        load_checkpoint(path)


def test_types_that_would_lose_a_part_raise(path, info):
    tensors = load(path.read_bytes())
    for kind in (torch.complex64, torch.float64, torch.float16):
        changed = tensors | {"classifier.5.bias": tensors["classifier.5.bias"].to(kind)}
        rewrite(path, changed, {INFO_KEY: info.to_json()})
        with pytest.raises(ModelError, match=r"classifier\.5\.bias has type \w+ instead of float32"):
            load_checkpoint(path)


def test_precision_of_graphs_alone_raises(path, info):
    rewrite(path, load(path.read_bytes()), {INFO_KEY: info.changed(precision="int8").to_json()})
    with pytest.raises(ModelError, match="precision int8"):
        load_checkpoint(path)
