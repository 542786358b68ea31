"""Weights in 16 bits, in checkpoints and model files."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file

from earmark.errors import ModelError
from earmark.export.compress import CHECKPOINT
from earmark.export.fuse import fuse
from earmark.export.source import open_source
from earmark.export.weight_precision import narrowed, rounded
from earmark.features.learned import LEAF
from earmark.model_file.onnx_file import read_model_file, read_weights
from earmark.models import create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint

BITS = {"fp16": torch.float16, "bf16": torch.bfloat16}
both = pytest.mark.parametrize("precision", list(BITS))


@torch.no_grad()
def test_answers_as_sp4asc_rounded(shared: Path) -> None:
    golden = shared / "golden" / "sp4asc"
    numbers = np.load(golden / "sp4asc.npz")
    for weights in ("mixup", "focal"):
        network = create_model("cnn6_60k", num_classes=10)
        network.load_state_dict(load_file(golden / f"cnn6_60k_{weights}.safetensors"))
        half = rounded(fuse(network, eps=0.0), "fp16")
        for clip in ("metro", "r9", "synth"):
            given = torch.from_numpy(numbers[f"logmel/{clip}"].T.copy())[None]
            difference = np.abs(half(given).logits[0].numpy() - numbers[f"{weights}/fp16/{clip}/logits"])
            assert difference.max() <= 1e-3


@both
def test_a_checkpoint_of_16_bits_is_half_as_large_and_loads_as_rounded(exported, info, tmp_path, precision):
    network, _ = exported
    paths = [tmp_path / f"{name}.safetensors" for name in ("fp32", precision)]
    for path, name in zip(paths, ("fp32", precision), strict=True):
        save_checkpoint(path, network, info.changed(precision=name))
    assert {tensor.dtype for tensor in load_tensors(paths[1].read_bytes()).values()} == {
        BITS[precision],
        torch.int64,
    }
    payloads = [
        sum(t.nbytes for t in load_tensors(p.read_bytes()).values() if t.is_floating_point()) for p in paths
    ]
    assert payloads[0] == 2 * payloads[1]
    loaded, loaded_record = load_checkpoint(paths[1])
    assert loaded_record.precision == precision
    wanted = rounded(network, precision).state_dict()
    for name, value in loaded.state_dict().items():
        assert value.dtype == network.state_dict()[name].dtype
        assert torch.equal(value, wanted[name])
    assert not torch.equal(loaded.classifier[2].weight, network.classifier[2].weight)


def test_a_checkpoint_cannot_be_of_8_bits(exported, info, tmp_path):
    with pytest.raises(ModelError, match=r"cannot be of int8: write a model file"):
        save_checkpoint(tmp_path / "a.safetensors", exported[0], info.changed(precision="int8"))
    assert not list(tmp_path.iterdir())


@both
def test_a_model_file_of_16_bits_is_half_as_large_and_answers_as_rounded(exported, info, precision):
    content, _ = read_model_file(exported[1])
    small = narrowed(content, info, precision)
    halved = sum(2 * np.prod(t.dims) for t in onnx.load_model_from_string(content).graph.initializer)
    assert len(small) < len(content) - 0.95 * halved + 64 * 200, "a cast for each of less than 200 tensors"
    stored_record = json.loads(onnx.load_model_from_string(small).metadata_props[0].value)
    assert stored_record["precision"] == precision
    graph = onnx.load_model_from_string(content)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1:
            values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()).to(BITS[precision]).float()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.numpy(), tensor.name))
    given = torch.randn(3, 32, 40, generator=torch.Generator().manual_seed(0)).numpy()
    before, wanted, got = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"log_mel": given})
        for model in (content, graph.SerializeToString(), small)
    )
    for number in range(2):
        np.testing.assert_allclose(got[number], wanted[number], rtol=1e-5, atol=1e-5)
        assert np.abs(got[number] - before[number]).max() > 1e-4


@both
def test_weights_of_16_bits_are_read_without_the_runtime(exported, info, precision):
    content, _ = read_model_file(exported[1])
    wanted = read_weights(content, "features.1.block.1")
    got = read_weights(narrowed(content, info, precision), "features.1.block.1", precision)
    assert wanted.keys() == got.keys() != set()
    for name, values in wanted.items():
        rounded_to = torch.from_numpy(values).to(BITS[precision]).float().numpy()
        np.testing.assert_array_equal(got[name], rounded_to)


def test_single_numbers_and_what_a_front_end_learned_stay(exported, info):
    content, _ = read_model_file(exported[1])
    learned = info.changed(front_end=LEAF)
    for own, kept in ((info, False), (learned, True)):
        tensors = onnx.load_model_from_string(narrowed(content, own, "fp16")).graph.initializer
        single = {tensor.data_type for tensor in tensors if np.prod(tensor.dims) == 1}
        features = {t.data_type for t in tensors if t.name.startswith("features.") and np.prod(t.dims) > 1}
        assert onnx.TensorProto.FLOAT16 not in single
        assert features == ({onnx.TensorProto.FLOAT} if kept else {onnx.TensorProto.FLOAT16})


def test_what_fp16_cannot_hold_is_refused(exported):
    network = rounded(exported[0], "fp32")
    with torch.no_grad():
        network.classifier[2].weight[0, 0] = 70_000
    with pytest.raises(ModelError, match=r"classifier\.2\.weight: a weight of 70000 is too large for fp16"):
        rounded(network, "fp16")
    assert rounded(network, "bf16").classifier[2].weight[0, 0] == 70_144


def test_weights_are_rounded_once(exported, info):
    content, _ = read_model_file(exported[1])
    with pytest.raises(ModelError, match="its weights are fp16 already"):
        narrowed(content, info.changed(precision="fp16"), "bf16")


def test_a_suffix_says_what_a_file_is(exported, info, tmp_path):
    save_checkpoint(tmp_path / f"a{CHECKPOINT}", exported[0], info)
    assert open_source(str(tmp_path / f"a{CHECKPOINT}")).network is not None
    assert open_source(str(exported[1])).network is None
