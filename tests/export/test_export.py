"""An exported graph answers as its network does, for any batch and length."""

import copy

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from toy import lively_network

from earmark.errors import ModelError
from earmark.export import export as exporting
from earmark.export.export import compare, export_model
from earmark.export.verify import TOLERANCE, Case, Check
from earmark.model_file.onnx_file import read_model_file
from earmark.models.onnx_graph import OPSET


def open_session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@torch.no_grad()
def largest_difference(network, session, shape) -> float:
    """Of logits and embedding, relative to the largest value where that is above 1."""
    log_mel = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    answers = session.run(["logits", "embedding"], {"log_mel": log_mel})
    differences = []
    for want, got in zip(network.eval()(torch.from_numpy(log_mel)), answers, strict=True):
        assert got.shape == want.shape
        assert got.dtype == np.float32
        differences.append(float(np.abs(want.numpy() - got).max() / max(1.0, want.abs().max())))
    return max(differences)


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("frames", [1, 9, 26, 27, 100])
def test_it_answers_as_the_network_does(exported, batch, frames):
    network, path = exported
    session = open_session(path)
    assert largest_difference(network, session, (batch, 32, frames)) <= 1e-4


@torch.no_grad()
def test_what_it_hears_matters(exported):
    """Or else the comparisons above would prove nothing."""
    log_mel = torch.randn(8, 32, 26, generator=torch.Generator().manual_seed(1))
    for answer in exported[0].eval()(log_mel):
        assert answer.std(0).mean() > 0.05


def test_its_input_and_outputs_have_names_and_free_axes(exported):
    session = open_session(exported[1])
    (given,) = session.get_inputs()
    answers = {entry.name: entry.shape for entry in session.get_outputs()}
    assert (given.name, given.type) == ("log_mel", "tensor(float)")
    batch, mels, frames = given.shape
    assert mels == 32
    assert isinstance(batch, str)
    assert isinstance(frames, str)
    assert answers == {"logits": [batch, 2], "embedding": [batch, answers["embedding"][1]]}


def test_it_says_nothing_of_the_machine_it_was_made_on(exported):
    content = exported[1].read_bytes()
    for trace in (b".py", b"site-packages", b"/home", b"stack_trace", b"Traceback"):
        assert trace not in content
    model = onnx.load(exported[1])
    assert model.producer_name == "earmark"
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET


def test_one_class_is_a_class(info, tmp_path, capfd):
    single = info.changed(labels=("tone",))
    network = lively_network(single)
    path = tmp_path / "single.onnx"
    assert export_model(network, single, path) <= TOLERANCE
    assert capfd.readouterr() == ("", "")
    session = open_session(path)
    assert largest_difference(network, session, (1, 32, 26)) <= 1e-4
    assert largest_difference(network, session, (3, 32, 50)) <= 1e-4
    assert read_model_file(path)[1] == single


def test_a_difference_is_found(exported, info):
    network, path = exported
    other = copy.deepcopy(network)
    assert compare(other, path.read_bytes(), info) <= TOLERANCE
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    assert compare(other, path.read_bytes(), info) > TOLERANCE


@pytest.mark.parametrize("difference", [2e-4, float("inf")])
def test_a_graph_that_differs_is_not_written(exported, info, tmp_path, monkeypatch, difference):
    found = Check((Case("bell", 1, 0.5, 1e-6, 1e-4), Case("silence", 1, 0.5, difference, 1e-4)))
    monkeypatch.setattr(exporting, "verify", lambda *given: found)
    with pytest.raises(ModelError, match="differs from the model") as caught:
        export_model(exported[0], info, tmp_path / "toy.onnx")
    assert "silence" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_left_in_evaluation_mode_with_its_weights(info, tmp_path):
    network = lively_network(info).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    assert export_model(network, info, tmp_path / "toy.onnx") <= TOLERANCE
    assert not network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
