"""Networks with learned front-ends are saved, exported and used for tagging like any other."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from golden_weights import settle
from onnx_parity import TOLERANCE, largest_difference

import earmark
from earmark.errors import ModelError
from earmark.features.learned import LEAF, SINCNET
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.models import Network, create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint
from earmark.models.log_mel import TorchLogMel
from earmark.models.onnx_graph import network_to_onnx
from earmark.models.waveform_network import WaveformNetwork, attach_front_end, split_front_end

RATE = 8000
FRONT_ENDS = {
    name: replace(preset, sample_rate=RATE, n_mels=32, win_length=129, hop_length=80, f_max=3500)
    for name, preset in {"leaf": LEAF, "sincnet": SINCNET}.items()
}
SMALL = {"architecture": "cnn6_60k", "arguments": {"n_mels": 32}, "embedding_size": 128}
"""Few layers, which is what an export takes its time for."""


@pytest.fixture(scope="module", params=["sincnet", pytest.param("leaf", marks=pytest.mark.slow)])
def built(request, info) -> tuple[Network, ModelInfo]:
    """A network with a learned front-end, and its model info; LEAF takes twice as long to export."""
    info = info.changed(front_end=FRONT_ENDS[request.param], **SMALL)
    torch.manual_seed(0)
    network = settle(create_model(info.architecture, num_classes=2, **info.arguments))
    return attach_front_end(network, info.front_end).eval(), info


@pytest.fixture(scope="module")
def model(built, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("built") / "learned.onnx"
    path.write_bytes(attach_info(network_to_onnx(*built).SerializeToString(), built[1]))
    return path


@pytest.fixture(scope="module")
def session(model):
    return onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])


def waveforms(batch: int, samples: int) -> np.ndarray:
    return (0.2 * np.random.default_rng(samples).standard_normal((batch, samples))).astype(np.float32)


def test_the_graph_takes_waveforms_of_any_batch_and_length(built, session):
    (graph_input,) = session.get_inputs()
    assert graph_input.name == "waveform"
    assert all(isinstance(axis, str) for axis in graph_input.shape)
    for batch, samples in [(1, 1), (2, 79), (1, 80), (3, 4001), (1, 20_000)]:
        clips = waveforms(batch, samples)
        assert largest_difference(built[0], session, clips, "waveform") <= TOLERANCE


def test_the_front_end_is_part_of_the_graph(built, session):
    network, clips = copy.deepcopy(built[0]), waveforms(2, 4000)
    with torch.no_grad():
        next(network.features.parameters()).mul_(1.2)
    assert largest_difference(network, session, clips, "waveform") > TOLERANCE


@torch.no_grad()
def test_the_tagger_feeds_it_waveforms(built, model):
    network, _ = built
    clip = waveforms(1, 10_000)[0]
    result = earmark.load(model, threads=1).tag(clip, RATE)
    assert [(window.start_s, window.end_s) for window in result.windows] == [(0, 0.5), (0.5, 1), (0.75, 1.25)]
    for window, built_clip in zip(result.windows, (clip[:4000], clip[4000:8000], clip[6000:]), strict=True):
        output = network(torch.from_numpy(built_clip)[None])
        np.testing.assert_allclose(window.scores, output.logits.sigmoid()[0], atol=1e-4)
        np.testing.assert_allclose(window.embedding, output.embedding[0], rtol=1e-4, atol=1e-4)


def test_the_tagger_needs_no_torch(model):
    command = (
        "import sys; sys.modules['torch'] = None; import earmark, json, numpy as np;"
        f"result = earmark.load({str(model)!r}).tag(np.full(3000, 0.1, np.float32), {RATE});"
        "print(json.dumps([tag.score for tag in result.tags]))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 2


def test_checkpoint_round_trip(built, tmp_path):
    network, info = built
    save_checkpoint(tmp_path / "built.safetensors", network, info)
    loaded, loaded_info = load_checkpoint(tmp_path / "built.safetensors")
    assert isinstance(loaded, WaveformNetwork)
    assert loaded_info == info
    state = network.state_dict()
    assert list(loaded.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_model_info_of_another_front_end_raises(built, info, tmp_path):
    network, own = built
    wider = own.changed(front_end=replace(own.front_end, win_length=201))
    for message, built in [(info, network), (wider, network), (own, network.network)]:
        with pytest.raises(ModelError):
            save_checkpoint(tmp_path / "built.safetensors", built, message)
    assert list(tmp_path.iterdir()) == []


def test_gradients_reach_every_parameter(built):
    network, _ = built
    network.train()(torch.from_numpy(waveforms(4, 4000))).logits.square().sum().backward()
    network.eval()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_split_front_end(built, info):
    network, own = built
    front_end, behind = split_front_end(network, own.front_end)
    assert front_end is network.features
    assert behind is network.network
    plain = create_model("mn01")
    assert attach_front_end(plain, info.front_end) is plain
    front_end, behind = split_front_end(plain, info.front_end)
    assert isinstance(front_end, TorchLogMel)
    assert behind is plain
