"""A run's state comes back as it was, so that what follows is the same to the last bit."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from earmark.errors import DataError
from earmark.training.runtime.run_state import RunState, TrainProgress

FACTS = {"epoch": 3, "best": -float("inf"), "note": "hört"}


def build(channels_last: bool, average: bool = True, seed: int = 0) -> RunState:
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(144, 2)
    )
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    heavy = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    light = [parameter for parameter in network.parameters() if parameter.ndim == 1]
    groups = [{"params": heavy, "weight_decay": 0.1}, {"params": light, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, fused=True)
    return RunState(network, AveragedModel(network, use_buffers=True) if average else None, optimizer)


def step(state: RunState, seed: int) -> None:
    inputs = torch.randn(6, 2, 10, 10, generator=torch.Generator().manual_seed(seed))
    state.optimizer.zero_grad()
    state.trained(inputs).square().mean().backward()
    state.optimizer.step()
    if state.average is not None:
        state.average.update_parameters(state.trained)


def tensors(state: RunState) -> dict[str, torch.Tensor]:
    parts = {f"trained.{key}": value for key, value in state.trained.state_dict().items()}
    if state.average is not None:
        parts |= {f"average.{key}": value for key, value in state.average.state_dict().items()}
    for index, entry in state.optimizer.state_dict()["state"].items():
        parts |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
    return parts


def assert_equal(one: RunState, other: RunState) -> None:
    ours, theirs = tensors(one), tensors(other)
    assert ours.keys() == theirs.keys()
    assert [name for name, value in ours.items() if not torch.equal(value, theirs[name])] == []


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("average", [False, True])
def test_a_resumed_training_has_the_same_result(tmp_path, channels_last, average):
    undisturbed = build(channels_last, average)
    for seed in range(3):
        step(undisturbed, seed)
    undisturbed.save(tmp_path / "state", FACTS)
    resumed = build(channels_last, average, seed=1)
    assert resumed.load(tmp_path / "state") == FACTS
    assert_equal(resumed, undisturbed)
    for state in (undisturbed, resumed):
        step(state, 3)
        step(state, 4)
    assert_equal(resumed, undisturbed)


def test_optimizer_settings_are_restored(tmp_path):
    state = build(False)
    step(state, 0)
    for group in state.optimizer.param_groups:
        group["lr"] = 0.123
    state.save(tmp_path / "state", FACTS)
    other = build(False)
    other.load(tmp_path / "state")
    assert [group["lr"] for group in other.optimizer.param_groups] == [0.123, 0.123]
    assert [group["weight_decay"] for group in other.optimizer.param_groups] == [0.1, 0.0]


def test_saving_changes_nothing(tmp_path):
    state = build(True)
    step(state, 0)
    before = copy.deepcopy(tensors(state))
    state.save(tmp_path / "state", FACTS)
    after = tensors(state)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert all(before[name].stride() == value.stride() for name, value in after.items())


def test_a_state_before_the_first_step_comes_back(tmp_path):
    state, other = build(False), build(False, seed=1)
    state.save(tmp_path / "state", FACTS)
    other.load(tmp_path / "state")
    assert_equal(other, state)


def test_the_one_before_is_kept(tmp_path):
    path, state = tmp_path / "state.safetensors", build(False)
    assert state.load_last(path) == (None, "")
    for epoch in range(3):
        step(state, epoch)
        state.save(path, {"epoch": epoch})
    assert {one.name for one in tmp_path.iterdir()} == {"state.safetensors", "state.previous.safetensors"}
    assert build(False).load_last(path) == ({"epoch": 2}, "")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    facts, damage = build(False).load_last(path)
    assert facts == {"epoch": 1}
    assert damage.startswith(f"{path}: the run's state cannot be read (its SHA-256 does not match)")
    path.unlink()  # killed between the two renames
    assert build(False).load_last(path) == ({"epoch": 1}, "")


def test_two_damaged_states_are_an_error(tmp_path):
    path, state = tmp_path / "state.safetensors", build(False)
    for epoch in range(2):
        state.save(path, {"epoch": epoch})
    for one in tmp_path.iterdir():
        one.write_bytes(one.read_bytes()[:100])
    with pytest.raises(DataError):
        state.load_last(path)


def test_a_state_of_an_earlier_version_is_read():
    assert TrainProgress.from_facts({"epoch": 3, "best": 0.5, "scaler": {}}) == TrainProgress(
        epoch=3, best=0.5
    )
    place = TrainProgress(2, 5, [0.25, 0.1], 3.5, -float("inf"), [["00ff"]])
    assert TrainProgress.from_facts(json.loads(json.dumps(place.facts()))) == place


def refused(state: RunState, path) -> str:
    with pytest.raises(DataError) as caught:
        state.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_state_is_refused(tmp_path, share):
    path = tmp_path / "state"
    build(False).save(path, FACTS)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(build(False), path)


def test_a_state_of_another_network_is_refused(tmp_path):
    path = tmp_path / "state"
    build(False, average=False).save(path, FACTS)
    refused(build(False, average=True), path)
    network = nn.Linear(2, 2)
    refused(RunState(network, None, torch.optim.AdamW(network.parameters())), path)


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file(build(False, average=False).trained.state_dict(), tmp_path / "other")
    refused(build(False), tmp_path / "other")
    refused(build(False), tmp_path / "none")
