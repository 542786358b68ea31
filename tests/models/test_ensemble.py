"""Parity of the golden ensemble, and an ensemble as one network and as one model file."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import toy
from golden_weights import build_tensors, own_arguments, read_index, read_manifest, settle
from parity import log_mel, relative
from test_cli import assert_one_line, run  # noqa: F401  a fixture

import earmark
from earmark import zoo
from earmark.audio import resample
from earmark.deploy import join as joining
from earmark.deploy.export import TOLERANCE, compare, export_model
from earmark.deploy.join import join
from earmark.ensemble import joined
from earmark.errors import MissingExtraError, ModelError
from earmark.evaluate.complexity import complexity
from earmark.frontend import EFFICIENTAT, FrontEnd
from earmark.learned_frontend import LEAF
from earmark.model_file import read_record
from earmark.models import Network, create_model
from earmark.models.checkpoint import save_checkpoint
from earmark.models.ensemble import Ensemble
from earmark.models.hearing import apart, with_front_end
from earmark.record import Record

HIGH = replace(toy.FRONT_END, sample_rate=16_000, n_mels=24, hop_length=128, f_max=6000.0)
LEARNED = replace(LEAF, sample_rate=8000, n_mels=32, win_length=129, hop_length=80, f_max=3500)
GOLDEN = "ensemble_mn04_dymn04_mn10"


@pytest.fixture(scope="module")
def golden(shared: Path) -> Path:
    return shared / "golden" / "efficientat"


@pytest.fixture(scope="module")
def published(golden: Path) -> Ensemble:
    """The golden ensemble."""
    members = []
    for name in GOLDEN.split("_")[1:]:
        entry = read_index(golden)[name]
        family = "dymn" if entry["family"] == "dymn" else "mobilenet"
        network = create_model(family, **own_arguments(entry["build_kwargs"]))
        network.load_state_dict(build_tensors(read_manifest(golden, entry["weights"])["tensors"]))
        members.append(network)
    return Ensemble(members).eval()


@torch.no_grad()
def test_answers_as_the_reference(golden, published) -> None:
    wanted = np.load(golden / "models" / f"{GOLDEN}.npz")["logits"]
    for row, clip in enumerate(("synth", "metro")):
        spectrogram, exact = log_mel(golden, clip, "m128_h320")
        assert relative(published(spectrogram).logits[0], wanted[row]) <= (2e-5 if exact else 1e-3)


@pytest.mark.slow
def test_the_golden_ensemble_as_one_file(golden, published, record, tmp_path) -> None:
    labels = tuple(f"output {number}" for number in range(527))
    own = record.changed(labels=labels, front_end=EFFICIENTAT, window_s=10.0)
    path = tmp_path / "ensemble.onnx"
    assert export_model(published, own.changed(embedding_size=384 + 384 + 960), path) <= TOLERANCE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    spectrogram, _ = log_mel(golden, "synth", "m128_h320")
    [logits] = session.run(["logits"], {"log_mel": spectrogram.numpy()})
    wanted = np.load(golden / "models" / f"{GOLDEN}.npz")["logits"][0]
    assert relative(torch.from_numpy(logits[0]), wanted) <= TOLERANCE


def member(record: Record, name: str) -> tuple[Network, Record]:
    """A network of its own kind, and its record."""
    changes = {
        "toy": {},
        "alike": {"architecture": "mn02"},
        "dynamic": {"architecture": "dymn", "arguments": {"width": 0.1, "min_context": 64}},
        "high": {"front_end": HIGH},
        "learned": {"front_end": LEARNED},
    }
    own = record.changed(name=name, **changes[name])
    torch.manual_seed(len(name))
    network = settle(create_model(own.architecture, num_classes=2, **own.arguments))
    network = with_front_end(network, own.front_end).eval()
    with torch.no_grad():
        last = list(network.modules())[-1]
        last.weight.mul_(30)
        size = network(*map(torch.from_numpy, given(own, 1, 0.5))).embedding.shape[1]
    return network, own.changed(embedding_size=size)


def given(record: Record, batch: int, seconds: float) -> list[np.ndarray]:
    """What the graph of a record takes."""
    generator, arrays = np.random.default_rng(1), []
    for front_end in record.front_ends:
        samples = round(seconds * front_end.sample_rate)
        is_learned = front_end.graph_input == "waveform"
        shape = (samples,) if is_learned else (front_end.n_mels, front_end.num_frames(samples))
        arrays.append(generator.standard_normal((batch, *shape)).astype(np.float32))
    return arrays


@torch.no_grad()
def test_the_network_is_the_mean_of_its_members(record) -> None:
    first, second, other = (member(record, name)[0] for name in ("toy", "alike", "high"))
    shared_input, own_input = torch.randn(3, 32, 26), torch.randn(3, 24, 40)
    answers = first(shared_input), other(own_input), second(shared_input)
    output = Ensemble([first, other, second], [0, 1, 0]).eval()(shared_input, own_input)
    torch.testing.assert_close(output.logits, sum(answer.logits for answer in answers) / 3)
    torch.testing.assert_close(output.embedding, torch.cat([answer.embedding for answer in answers], 1))
    assert output.logits.std() > 1e-2
    alone = Ensemble([first]).eval()(shared_input)
    torch.testing.assert_close(alone, answers[0], rtol=0, atol=0)


def test_members_keep_their_names_and_learn(record) -> None:
    ensemble = Ensemble([member(record, "toy")[0], member(record, "toy")[0]])
    assert {name.split(".")[1] for name in ensemble.state_dict()} == {"0", "1"}
    ensemble.train()(torch.randn(4, 32, 26)).logits.square().sum().backward()
    assert all(parameter.grad.any() for parameter in ensemble.parameters())


def test_what_is_no_ensemble_is_refused() -> None:
    one, other = create_model("mn01", num_classes=2), create_model("mn01", num_classes=3)
    with pytest.raises(ModelError, match="at least one"):
        Ensemble([])
    with pytest.raises(ModelError, match=r"the members have \[2, 3\] classes"):
        Ensemble([one, other])
    for inputs in ([0], [0, 2], [1, 1], [0, 0, 0]):
        with pytest.raises(ModelError, match="do not fit 2 members"):
            Ensemble([one, one], inputs)


@pytest.mark.parametrize(
    ("names", "inputs"),
    [
        (("toy", "alike"), ["log_mel"]),
        (("high", "learned", "alike", "high"), ["log_mel_0", "waveform_1", "log_mel_2"]),
        pytest.param(("toy", "dynamic"), ["log_mel"], marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_one_file_answers_as_all_members(record, tmp_path, names, inputs) -> None:
    members, path = [member(record, name) for name in names], tmp_path / "all.onnx"
    assert join(members, path, "all") <= TOLERANCE
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    joint = read_record(path)
    assert [one.name for one in session.get_inputs()] == inputs == list(joint.graph_inputs)
    for batch, seconds in [(1, 0.5), (2, 0.1), (5, 0.3), (1, 1.7)]:
        arrays = given(joint, batch, seconds)
        answers = session.run(["logits", "embedding"], dict(zip(inputs, arrays, strict=True)))
        assert_mean(answers, members, dict(zip(joint.front_ends, map(torch.from_numpy, arrays), strict=True)))

    rates = {front_end.sample_rate for front_end in joint.front_ends}
    waveform = (0.2 * np.random.default_rng(0).standard_normal(4000)).astype(np.float32)
    clip = {rate: torch.from_numpy(resample(waveform, 8000, rate)) for rate in rates}
    result = earmark.load(path, threads=1).tag(waveform, 8000)
    heard = {
        own.front_end: apart(network, own.front_end)[0](clip[own.front_end.sample_rate][None])
        if isinstance(own.front_end, FrontEnd)
        else clip[own.front_end.sample_rate][None]
        for network, own in members
    }
    logits = np.log(result.windows[0].scores / (1 - result.windows[0].scores))
    assert_mean([logits[None], result.embedding[None]], members, heard, 1e-3)
    assert result.embedding.shape == (joint.embedding_size,)


def assert_mean(answers, members, heard, tolerance=TOLERANCE) -> None:
    """Whether logits and embedding are those of the members for what each front-end has heard."""
    outputs = [network(heard[own.front_end]) for network, own in members]
    logits = torch.stack([output.logits for output in outputs]).mean(0)
    assert all(output.logits.std() > 1e-2 for output in outputs)
    wanted = logits, torch.cat([output.embedding for output in outputs], 1)
    for got, want in zip(answers, wanted, strict=True):
        assert got.shape == want.shape
        assert relative(torch.from_numpy(got), want.numpy()) <= tolerance


def test_a_file_that_differs_is_not_written(record, tmp_path, monkeypatch) -> None:
    members = [member(record, "toy"), member(record, "high")]
    path = tmp_path / "both.onnx"
    join(members, path)
    with torch.no_grad():
        next(members[1][0].parameters()).mul_(1.1)
    joint = joined([own for _, own in members])
    ensemble = Ensemble([network for network, _ in members], [0, 1]).eval()
    assert compare(ensemble, path.read_bytes(), joint) > TOLERANCE
    monkeypatch.setattr(joining, "export_model", lambda *_: pytest.fail("nothing is exported"))
    with pytest.raises(ModelError, match="task is multi_label"):
        join([members[0], (members[1][0], members[1][1].changed(task="single_label"))], path)
    with pytest.raises(ModelError, match="at least two members"):
        join(members[:1], path)


def test_from_the_command_line(run, record, tmp_path) -> None:  # noqa: F811
    paths = []
    for name in ("toy", "high"):
        paths.append(tmp_path / f"{name}.safetensors")
        save_checkpoint(paths[-1], *member(record, name))
    target = tmp_path / "out" / "both.onnx"
    assert run("join", *paths, "--out", target) == (0, f"{target}\n", "")
    found = earmark.load(target).record
    assert (found.name, found.further_front_ends) == ("toy+high", (HIGH,))

    code, out, _ = run("complexity", target, "--seconds", 0.5)
    assert code == 0
    assert "Its members:\nModel 'toy' has" in out
    whole, apart = complexity(str(target), 0.5), complexity("+".join(map(str, paths)), 0.5)
    assert whole.cost == apart.cost
    assert whole.cost.parameters == sum(one.cost.parameters for one in whole.members)
    assert [one.num_frames for one in whole.members] == [26, 63]
    assert apart.file_bytes == sum(path.stat().st_size for path in paths)
    assert json.loads(run("complexity", target, "--json")[1])["members"][1]["name"] == "high"

    code, out, err = run("join", paths[0], target, "--out", tmp_path / "wrong.onnx")
    assert (code, out) == (2, "")
    assert_one_line(err, "both.onnx holds a graph", "give a checkpoint")
    code, out, err = run("join", paths[0], "mn04_im", "--out", tmp_path / "wrong.onnx")
    assert_one_line(err, "mn04_im is a starting point")
    assert not (tmp_path / "wrong.onnx").exists()


def test_published_members_are_fetched_first(record, tmp_path, monkeypatch) -> None:
    pulled: list[str] = []
    monkeypatch.setattr(zoo, "pull", lambda name, report=None: pulled.append(name))
    monkeypatch.setattr(zoo, "pretrained", lambda name: member(record, "toy"))
    monkeypatch.setattr(joining, "export_model", lambda network, joint, path: len(joint.labels))
    assert zoo.join(["mn04_as", "mn10_as"], tmp_path / "both.onnx") == 2
    assert pulled == ["mn04_as", "mn10_as"]


def test_without_pytorch_one_line_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.delitem(sys.modules, "earmark.deploy.join")
    monkeypatch.delattr(earmark.deploy, "join")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"one file needs .*pip install 'earmark\[train\]'$"):
        zoo.join(["a.safetensors", "b.safetensors"], tmp_path / "both.onnx")


def test_the_cost_of_published_models_together() -> None:
    both = complexity("mn04_as+dymn04_as")
    assert both.cost.parameters == 983_599 + 1_961_239
    assert both.cost.macs == sum(complexity(name).cost.macs for name in ("mn04_as", "dymn04_as"))
    assert both.in_words().startswith("Model 'mn04_as+dymn04_as' has 2.94 million parameters")
