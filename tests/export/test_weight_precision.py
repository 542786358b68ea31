"""Weights in 16 bits, in checkpoints and model files.

Without the folder ``shared`` beside the project, SP4ASC's own fp16 outputs are not compared.
"""

from copy import deepcopy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import load_file

from earmark.errors import ModelError
from earmark.export.fuse import fuse
from earmark.export.weight_precision import fp32_prefix, graph_of, narrow_graph, rounded
from earmark.features.learned import LEAF
from earmark.model_file.onnx_file import attach_info, read_model_file, read_weights
from earmark.models import create_model
from earmark.models.checkpoint import load_checkpoint, save_checkpoint

BITS = {"fp16": torch.float16, "bf16": torch.bfloat16}
both = pytest.mark.parametrize("precision", list(BITS))


@torch.no_grad()
def test_outputs_equal_sp4ascs(shared: Path) -> None:
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
def test_a_checkpoint_in_16_bits_is_half_as_large_and_loads_rounded(exported, info, tmp_path, precision):
    network = deepcopy(exported[0])
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1 + 2**-14)  # the toy model's own weights are exact in 16 bits
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
    loaded, loaded_info = load_checkpoint(paths[1])
    assert loaded_info.precision == precision
    expected = rounded(network, precision).state_dict()
    for name, value in loaded.state_dict().items():
        assert value.dtype == network.state_dict()[name].dtype
        assert torch.equal(value, expected[name])
    assert not torch.equal(loaded.classifier[2].weight, network.classifier[2].weight)


def test_a_checkpoint_cannot_be_in_int8(exported, info, tmp_path):
    with pytest.raises(ModelError):
        save_checkpoint(tmp_path / "a.safetensors", exported[0], info.changed(precision="int8"))
    assert not list(tmp_path.iterdir())


def narrowed(content, info, precision):
    model = graph_of(content)
    narrow_graph(model, precision, fp32_prefix(info))
    return attach_info(model.SerializeToString(), info.changed(precision=precision))


@both
def test_a_graph_in_16_bits_is_half_as_large_and_computes_with_rounded_weights(exported, info, precision):
    content, _ = read_model_file(exported[1])
    small = narrowed(content, info, precision)
    halved = sum(2 * np.prod(t.dims) for t in onnx.load_model_from_string(content).graph.initializer)
    assert len(small) < len(content) - 0.95 * halved + 64 * 200, "a cast for each of less than 200 tensors"
    graph = onnx.load_model_from_string(content)
    for tensor in graph.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and np.prod(tensor.dims) > 1:
            values = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()).to(BITS[precision]).float()
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.numpy(), tensor.name))
    given = torch.randn(3, 32, 40, generator=torch.Generator().manual_seed(0)).numpy()
    before, expected, found = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"log_mel": given})
        for model in (content, graph.SerializeToString(), small)
    )
    for number in range(2):
        np.testing.assert_allclose(found[number], expected[number], rtol=1e-5, atol=1e-5)
        assert np.abs(found[number] - before[number]).max() > 1e-4


@both
def test_weights_in_16_bits_are_read_without_the_runtime(exported, info, precision):
    content, _ = read_model_file(exported[1])
    before = read_weights(content, "features.1.block.1")
    found = read_weights(narrowed(content, info, precision), "features.1.block.1", precision)
    assert before.keys() == found.keys() != set()
    for name, values in before.items():
        rounded_to = torch.from_numpy(values).to(BITS[precision]).float().numpy()
        np.testing.assert_array_equal(found[name], rounded_to)


def test_scalars_and_learned_front_ends_stay_in_fp32(exported, info):
    content, _ = read_model_file(exported[1])
    learned = info.changed(front_end=LEAF)
    for own, kept in ((info, False), (learned, True)):
        tensors = onnx.load_model_from_string(narrowed(content, own, "fp16")).graph.initializer
        single = {tensor.data_type for tensor in tensors if np.prod(tensor.dims) == 1}
        features = {t.data_type for t in tensors if t.name.startswith("features.") and np.prod(t.dims) > 1}
        assert onnx.TensorProto.FLOAT16 not in single
        assert features == ({onnx.TensorProto.FLOAT} if kept else {onnx.TensorProto.FLOAT16})


def test_weights_beyond_the_range_of_fp16_are_refused(exported):
    network = rounded(exported[0], "fp32")
    with torch.no_grad():
        network.classifier[2].weight[0, 0] = 70_000
    with pytest.raises(ModelError):
        rounded(network, "fp16")
    assert rounded(network, "bf16").classifier[2].weight[0, 0] == 70_144
