import zipfile

import numpy as np
import onnxruntime
import pytest
from toy_model import INFO, toy_content

from earmark.errors import ModelError
from earmark.hub.skeleton import FILE
from earmark.model_file.protobuf import encode, fields
from earmark.model_file.subgraph import SplitGraph, split_before_pooling


def session(content: bytes) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def logits_and_features(split: SplitGraph, inputs: np.ndarray) -> list[np.ndarray]:
    return session(split.body).run(["logits", split.feature_map], {"log_mel": inputs})


def head_logits(split: SplitGraph, features: np.ndarray) -> np.ndarray:
    return session(split.head).run(["logits"], {split.feature_map: features})[0]


def log_mel(frames: int, n_mels: int = INFO.front_end.n_mels) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, n_mels, frames)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 50, 500])
def test_the_head_of_the_feature_map_is_the_network(frames: int) -> None:
    split = split_before_pooling(toy_content())
    logits, features = logits_and_features(split, log_mel(frames))
    assert np.abs(logits).max() > 1e-3
    assert head_logits(split, features) == pytest.approx(logits, abs=1e-5)


def test_the_head_takes_parts_of_the_feature_map() -> None:
    split = split_before_pooling(toy_content())
    _, features = logits_and_features(split, log_mel(500))
    parts = np.concatenate([features[..., :4], features[..., -4:]])
    found = head_logits(split, parts)
    assert found.shape == (2, len(INFO.labels))
    assert not np.allclose(found[0], found[1])
    assert found[1:] == pytest.approx(head_logits(split, features[..., -4:]), abs=1e-5)


NETWORKS = {
    "mn10, 527 classes, 128 mel bands": 3,
    "mn10 head=fully_convolutional, 527 classes, 128 mel bands": 3,
    "dymn04 temperature=1.0, 527 classes, 128 mel bands": 3,
    "cnn6_60k, 10 classes, 256 mel bands": 3,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_published_networks_have_a_feature_map(name: str) -> None:
    """Their graphs without weights: the axis of time is found, and the head has no convolution."""
    with zipfile.ZipFile(FILE) as file:
        content = file.read(f"{name}/graph.onnx")
    split = split_before_pooling(content)
    assert split.time_axis == NETWORKS[name]
    assert b"Conv" in split.body
    assert b"Conv" not in split.head
    assert len(split.head) < len(split.body)


def test_a_graph_without_pooling_is_refused() -> None:
    [graph] = [field.value for field in fields(toy_content()) if field.number == 7]
    nodes = [field for field in fields(graph) if field.number == 1]
    others = [field.encoded for field in fields(graph) if field.number != 1]
    kept = [node.encoded for node in nodes if b"ReduceMean" not in bytes(node.value)]
    with pytest.raises(ModelError, match="does not pool"):
        split_before_pooling(encode(7, b"".join([*kept, *others])))


def test_a_graph_of_one_length_is_refused() -> None:
    [graph] = [field.value for field in fields(toy_content()) if field.number == 7]
    fixed = b"".join(field.encoded for field in fields(graph) if field.number != 13)  # no shapes
    with pytest.raises(ModelError, match="one length"):
        split_before_pooling(encode(7, fixed))


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "n_mels"), [("cnn6_60k", 256), ("resnet18", 128)])
def test_other_networks(architecture: str, n_mels: int) -> None:
    from earmark.models import create_model
    from earmark.models.onnx_graph import network_to_onnx

    info = INFO.changed(front_end=INFO.front_end.__class__(n_mels=n_mels), architecture=architecture)
    network = create_model(architecture, num_classes=2).eval()
    split = split_before_pooling(network_to_onnx(network, info).SerializeToString())
    logits, features = logits_and_features(split, log_mel(200, n_mels))
    assert head_logits(split, features) == pytest.approx(logits, abs=1e-5)
