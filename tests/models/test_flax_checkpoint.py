"""``earmark convert`` of audax's checkpoints, in the form in which flax publishes them."""

from pathlib import Path
from types import SimpleNamespace

import msgpack
import numpy as np
import pytest
import torch
from audax_golden import COMMITTED, TOLERANCE, flax_shapes, spectrograms, variables
from one_line import assert_one_line

from earmark.features.learned import LEAF
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.models import create_model
from earmark.models.checkpoint import load_checkpoint
from earmark.models.waveform_network import WaveformNetwork

STEP = 43643  # with which the ninth byte is that of a safetensors file, "{"
OPTIONS = ["--front-end", "audax", "--window", "5", "--task", "multi_label", "--argument"]


def packed(array: np.ndarray) -> msgpack.ExtType:
    """An array as flax stores it."""
    array = np.asarray(array)
    return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes())))


def write_training_state(path: Path, given: dict[str, np.ndarray], frozen: tuple[str, ...] = ()) -> Path:
    """A checkpoint as audax's ``save_best_checkpoint`` writes it: the whole training state."""
    state: dict = {"step": STEP, "params": {}, "frozen_params": {}, "batch_stats": {}}
    for name, array in given.items():
        collection, *folders, leaf = name.split("/")
        is_frozen = collection == "params" and folders[0] in frozen
        part = state["frozen_params" if is_frozen else collection]
        for folder in folders:
            part = part.setdefault(folder, {})
        part[leaf] = packed(array)
    moments = dict.fromkeys(("mu", "nu"), state["params"])
    state |= {
        "dynamic_scale": None,
        "aux_rng_keys": {"mixup": packed(np.array([0, 7], np.uint32))},
        "opt_state": {"0": {"count": packed(np.int32(STEP)), **moments}, "1": {}},
    }
    path.write_bytes(msgpack.packb(state, strict_types=True))
    return path


def small(**arguments):
    """A network whose file is written in no time."""
    return create_model("resnet", num_classes=3, depths=(1, 1, 1, 1), width=8, **arguments)


SMALL = [*OPTIONS, "num_classes=3", "--argument", "depths=[1,1,1,1]", "--argument", "width=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "published", "gain"),
    [("resnet18", "ResNet18", 1.0), ("efficientnet_b0", "efficientnet_b0", 1.2)],
)
def test_a_checkpoint_predicts_what_audax_predicts(run, tmp_path, architecture, published, gain):
    with torch.device("meta"):
        shapes = flax_shapes(create_model(architecture))
    weights = write_training_state(tmp_path / "best_ckpt_0.3648", variables(shapes, gain))
    model = tmp_path / "audax.onnx"
    code, out, err = run(
        "convert", weights, "--architecture", architecture, "--labels", "audioset", *OPTIONS[:-1], "-o", model
    )
    assert (code, err) == (0, "")
    assert out.splitlines() == [str(model), str(model.with_suffix(".safetensors"))]
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    got = session.run(["logits", "embedding"], {"log_mel": spectrograms(104).numpy()})
    with np.load(COMMITTED) as stored:
        for name, values in zip(("logits", "embedding"), got, strict=True):
            wanted = stored[f"{published}/T104/{name}"]
            assert np.abs(values - wanted).max() <= TOLERANCE * np.abs(wanted).max()


@pytest.fixture
def no_export(monkeypatch):
    """Only the checkpoint is written, since an export takes seconds."""
    made = SimpleNamespace(SerializeToString=bytes)
    monkeypatch.setattr("earmark.hub.build.network_to_onnx", lambda network, info: made)
    monkeypatch.setattr("earmark.hub.build._difference", lambda network, content, info: 0.0)


@pytest.mark.parametrize("frozen", [(), ("encoder",)])
def test_the_weights_of_a_training_state(run, tmp_path, frozen, no_export):
    given = variables(flax_shapes(small()))
    weights = write_training_state(tmp_path / "checkpoint_43600", given, frozen)
    model = tmp_path / "small.onnx"
    assert run("convert", weights, "--architecture", "resnet", *SMALL, "-o", model)[0] == 0
    network, info = load_checkpoint(model.with_suffix(".safetensors"))
    assert (info.front_end.sample_rate, info.window_s, info.padding) == (16000, 5.0, "zero")
    np.testing.assert_array_equal(network.fc.weight.detach(), given["params/fc/kernel"].T)
    np.testing.assert_array_equal(network.bn1.running_var, given["batch_stats/encoder/bn_init/var"])


def test_a_learned_front_end(run, tmp_path, no_export):
    network = WaveformNetwork(small(), LEAF)
    given = variables(flax_shapes(network.network))
    front = {
        "complex_conv/gabor_kernel": np.stack([network.features.centre.detach(), np.full(64, 30.0)], 1),
        "pooling/kernel": np.full((1, 1, 64, 1), 0.3),
        "compression/alpha": np.full(64, 0.9),
        "compression/delta": np.full(64, 2.0),
        "compression/root": np.full(64, 2.0),
        "compression/ExponentialMovingAverage_0/smooth": np.full(64, 0.05),
    }
    given |= {f"params/frontend/{path}": array.astype(np.float32) for path, array in front.items()}
    weights = write_training_state(tmp_path / "best_ckpt_0.38", given)
    options = [*SMALL[2:], "--front-end", "leaf", "-o", tmp_path / "leaf.onnx"]
    code, _, err = run("convert", weights, "--architecture", "resnet", *options)
    assert (code, err) == (0, "")
    converted, info = load_checkpoint(tmp_path / "leaf.safetensors")
    assert info.front_end == LEAF
    assert converted.features.alpha.tolist() == pytest.approx([0.9] * 64)


def broken(kind: str, content: bytes) -> bytes:
    array = msgpack.ExtType(1, msgpack.packb(((2, 3), "float32", b"1234")))
    bfloat = msgpack.ExtType(1, msgpack.packb(((2,), "bfloat16", b"1234")))
    deep: dict = {}
    for _ in range(400):
        deep = {"a": deep}
    return {
        "cut": content[: len(content) // 2],
        "shape": msgpack.packb({"params": {"fc": {"bias": array}}}),
        "type": msgpack.packb({"params": {"fc": {"bias": bfloat}}}),
        "number": msgpack.packb({"params": {"fc": {"bias": 3}}}),
        "nothing": msgpack.packb({"step": 1234567, "opt_state": {}}),
        "list": msgpack.packb({"params": [1, 2, 3, 4, 5]}),
        "deep": msgpack.packb({"params": deep}),
        "names": msgpack.packb({"params": {"fc": {"weights": packed(np.zeros(3, np.float32))}}}),
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "shape", "type", "number", "nothing", "list", "deep", "names"])
def test_a_damaged_file_is_one_line_and_writes_nothing(run, tmp_path, kind):
    weights = write_training_state(tmp_path / "best_ckpt_0.3", variables(flax_shapes(small())))
    weights.write_bytes(broken(kind, weights.read_bytes()))
    code, out, err = run("convert", weights, "--architecture", "resnet", *SMALL, "-o", tmp_path / "a.onnx")
    assert (code, out) == (2, "")
    assert_one_line(err, "best_ckpt_0.3")
    assert list(tmp_path.iterdir()) == [weights]
