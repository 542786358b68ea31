"""Exports have the outputs of their models, or are not written."""

import contextlib
import copy
import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from toy import lively_network

import earmark
from earmark.errors import ModelError
from earmark.export import export as exporting
from earmark.export.ensemble import join_sources
from earmark.export.export import compare, export, export_model
from earmark.export.options import ExportOptions
from earmark.export.source import ExportSource, open_source
from earmark.export.verify import TOLERANCE, Case, Verification
from earmark.model_file.onnx_file import read_model_file
from earmark.models import create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.onnx_graph import OPSET

SMALL = {"architecture": "cnn6_60k", "arguments": {"n_mels": 32}}
"""Few layers, which is what an export takes its time for."""


def open_session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@torch.no_grad()
def largest_difference(network, session, shape) -> float:
    """Of logits and embedding, relative to the largest value where that is above 1."""
    log_mel = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    outputs = session.run(["logits", "embedding"], {"log_mel": log_mel})
    differences = []
    for want, got in zip(network.eval()(torch.from_numpy(log_mel)), outputs, strict=True):
        assert got.shape == want.shape
        assert got.dtype == np.float32
        differences.append(float(np.abs(want.numpy() - got).max() / max(1.0, want.abs().max())))
    return max(differences)


@pytest.fixture(scope="module")
def source(exported, info) -> ExportSource:
    return ExportSource(info, exported[0])


@pytest.fixture(scope="module")
def graph(exported, info) -> ExportSource:
    return ExportSource(info, content=exported[1].read_bytes())


@pytest.fixture(scope="module")
def fresh(info, tmp_path_factory):
    """The one export to ONNX of the quick tests: of a small network in training mode with one class."""
    single = info.changed(labels=("tone",), embedding_size=128, **SMALL)
    path = tmp_path_factory.mktemp("fresh") / "single.onnx"
    network, printed = lively_network(single).train(), io.StringIO()
    before = copy.deepcopy(network)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert export_model(network, single, path) <= TOLERANCE
    assert printed.getvalue() == ""
    assert read_model_file(path)[1] == single
    assert not network.training
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    return network, path


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("frames", [1, 9, 26, 27, 100])
def test_outputs_equal_the_networks(fresh, batch, frames):
    network, path = fresh
    session = open_session(path)
    assert largest_difference(network, session, (batch, 32, frames)) <= 1e-4


@torch.no_grad()
def test_outputs_depend_on_the_input(fresh):
    """Otherwise the comparisons above would prove nothing."""
    log_mel = torch.randn(8, 32, 26, generator=torch.Generator().manual_seed(1))
    for output in fresh[0](log_mel):
        assert output.std(0).mean() > 0.01  # a hundred times the tolerance


def test_inputs_and_outputs_have_names_and_dynamic_axes(fresh):
    session = open_session(fresh[1])
    (given,) = session.get_inputs()
    outputs = {entry.name: entry.shape for entry in session.get_outputs()}
    assert (given.name, given.type) == ("log_mel", "tensor(float)")
    batch, mels, frames = given.shape
    assert mels == 32
    assert isinstance(batch, str)
    assert isinstance(frames, str)
    assert outputs == {"logits": [batch, 1], "embedding": [batch, outputs["embedding"][1]]}


def test_no_trace_of_this_machine_is_left(fresh):
    content = fresh[1].read_bytes()
    for trace in (b".py", b"site-packages", b"/home", b"stack_trace", b"Traceback"):
        assert trace not in content
    model = onnx.load(fresh[1])
    assert model.producer_name == "earmark"
    assert {entry.domain: entry.version for entry in model.opset_import}[""] == OPSET


def test_compare_finds_a_difference(exported, info):
    network, path = exported
    other = copy.deepcopy(network)
    assert compare(other, path.read_bytes(), info) <= TOLERANCE
    with torch.no_grad():
        next(other.parameters()).mul_(1.01)
    assert compare(other, path.read_bytes(), info) > TOLERANCE


@pytest.mark.parametrize("difference", [2e-4, float("inf")])
def test_an_export_that_differs_is_not_written(graph, tmp_path, monkeypatch, difference):
    found = Verification((Case("bell", 1, 0.5, 1e-6, 1e-4), Case("silence", 1, 0.5, difference, 1e-4)))
    monkeypatch.setattr(exporting, "verify", lambda *given: found)
    with pytest.raises(ModelError, match="nothing was written") as caught:
        export(graph, tmp_path / "toy.onnx")
    assert "silence" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def scores(model):
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    return earmark.load(model).tag(noise, 8000).scores


def test_a_fused_checkpoint_in_fp16(source, tmp_path):
    out = tmp_path / "small.safetensors"
    made = export(source, out, ExportOptions(fuse=True, precision="fp16"))
    network, info = load_checkpoint(out)
    assert (info.arguments["fused"], info.precision) == (True, "fp16")
    assert (made.norms, made.parameters[1]) == (43, sum(one.numel() for one in network.parameters()))
    assert made.parameters[1] < made.parameters[0]
    assert out.stat().st_size < 2.5 * made.parameters[1]
    save_checkpoint(tmp_path / "toy.safetensors", source.network, source.info)
    np.testing.assert_allclose(scores(out), scores(tmp_path / "toy.safetensors"), atol=1e-2)


def test_fusing_without_epsilon_is_not_exact(source, tmp_path):
    made = export(source, tmp_path / "small.safetensors", ExportOptions(fuse=True, fuse_eps=0.0))
    assert made.verification.difference > TOLERANCE
    assert load_checkpoint(tmp_path / "small.safetensors")[1].provenance["fused"].endswith("an epsilon of 0")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_model_file_in_16_bits(graph, toy_model, tmp_path, precision):
    made = export(graph, tmp_path / "small.onnx", ExportOptions(fuse=True, precision=precision))
    assert read_model_file(tmp_path / "small.onnx")[1].precision == precision
    assert made.norms == 0, "exporting has folded them already"
    assert made.files[0].stat().st_size < 0.8 * toy_model.stat().st_size
    np.testing.assert_allclose(scores(made.files[0]), scores(toy_model), atol=5e-2)


def test_a_model_in_16_bits_is_not_rounded_again(graph, tmp_path):
    half = export(graph, tmp_path / "half.onnx", ExportOptions(precision="fp16"))
    again = ExportSource(half.info, content=half.files[0].read_bytes())
    with pytest.raises(ModelError, match="fp16 already"):
        export(again, tmp_path / "again.onnx", ExportOptions(precision="bf16"))


@pytest.mark.slow
def test_a_checkpoint_becomes_a_fused_model_file_in_fp16(source, tmp_path):
    export(source, tmp_path / "small.onnx", ExportOptions(fuse=True, precision="fp16"))
    info = read_model_file(tmp_path / "small.onnx")[1]
    assert (info.precision, info.arguments["fused"]) == ("fp16", True)


@torch.no_grad()
def test_several_models_become_an_ensemble(info):
    members, log_mel = two_members(info), torch.randn(2, 32, 30)
    joint = join_sources(members, None)
    assert (joint.info.name, joint.info.architecture) == ("a+b", "ensemble")
    assert joint.info.embedding_size == 2 * info.embedding_size
    each = [member.network(log_mel).logits for member in members]
    torch.testing.assert_close(joint.network(log_mel).logits, torch.stack(each).mean(0))


@pytest.mark.slow
@torch.no_grad()
def test_several_models_become_one_file(info, tmp_path):
    members = two_members(info)
    made = export(members, tmp_path / "both.onnx")
    assert made.info == join_sources(members, None).info
    assert made.verification.difference <= TOLERANCE
    log_mel = np.random.default_rng(0).standard_normal((2, 32, 30)).astype(np.float32)
    found = open_session(tmp_path / "both.onnx").run(["logits"], {"log_mel": log_mel})[0]
    each = [member.network(torch.from_numpy(log_mel)).logits.numpy() for member in members]
    np.testing.assert_allclose(found, np.mean(each, 0), atol=1e-5)


def two_members(info):
    torch.manual_seed(0)
    networks = [create_model(info.architecture, num_classes=2, **info.arguments).eval() for _ in "ab"]
    return [
        ExportSource(info.changed(name=name), network) for name, network in zip("ab", networks, strict=True)
    ]


def test_members_of_an_ensemble_need_weights_and_the_same_labels(source, graph, tmp_path):
    other = ExportSource(source.info.changed(labels=("tone", "hum")), source.network)
    for members in ([source, graph], [source, other], []):
        with pytest.raises(ModelError):
            export(members, tmp_path / "both.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.safetensors", ExportOptions(precision="int8")),
        ("a.safetensors", ExportOptions(waveform=True)),
        ("a.safetensors", ExportOptions(seconds=0.5)),
        ("a.pt2", ExportOptions(precision="fp16")),
        ("a.onnx", ExportOptions(precision="int8")),
        ("a.onnx", ExportOptions(fuse_eps=0.0)),
        ("a.onnx", ExportOptions(target="openvino")),
        ("a.txt", ExportOptions()),
    ],
)
def test_options_that_do_not_apply_are_refused(source, tmp_path, name, options):
    with pytest.raises(ModelError):
        export(source, tmp_path / name, options)
    assert list(tmp_path.iterdir()) == []


def test_models_are_opened_by_name_and_checkpoints_by_suffix(source, toy_model, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", source.network, source.info)
    assert open_source(str(tmp_path / "a.safetensors")).network is not None
    assert open_source(str(toy_model)).network is None
    with pytest.raises(ModelError):
        open_source("mn99")
