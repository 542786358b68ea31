"""Putting another classifier at the end of a graph."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from earmark.custom.graph_head import apply, feature_name, with_classifier, with_feature_output
from earmark.model_file.onnx_file import read_model_file
from earmark.model_file.onnx_runtime import onnxruntime
from earmark.model_file.protobuf import fields, find


@pytest.mark.parametrize("hidden", [(), (7,)])
def test_a_classifier_takes_the_place_of_the_old_one(toy_model: Path, hidden: tuple[int, ...]) -> None:
    content, info = read_model_file(toy_model)
    name = feature_name(content)
    log_mel = np.random.default_rng(0).standard_normal((3, info.front_end.n_mels, 60)).astype(np.float32)
    base = onnxruntime.InferenceSession(with_feature_output(content, name))
    embedding, features = base.run(["embedding", name], {"log_mel": log_mel})
    rng = np.random.default_rng(1)
    sizes = [features.shape[1], *hidden, 5]
    layers = [
        (rng.standard_normal(pair).astype(np.float32), rng.standard_normal(pair[1]).astype(np.float32))
        for pair in pairwise(sizes)
    ]
    graph = with_classifier(content, name, layers)
    made = onnxruntime.InferenceSession(graph)
    logits, same = made.run(["logits", "embedding"], {"log_mel": log_mel})
    np.testing.assert_allclose(logits, apply(layers, features), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(same, embedding, atol=1e-4)
    assert [output.name for output in made.get_outputs()] == ["logits", "embedding"]
    weights = [bytes(find(one.value, 8)) for one in fields(find(graph, 7)) if one.number == 5]
    assert [name for name in weights if b"classifier.5" in name] == []


def test_a_fitted_model_is_a_base_again(toy_model: Path) -> None:
    content, _ = read_model_file(toy_model)
    name = feature_name(content)
    size = onnxruntime.InferenceSession(with_feature_output(content, name))
    features = size.run([name], {"log_mel": np.zeros((1, 32, 60), np.float32)})[0].shape[1]
    layer = (np.ones((features, 3), np.float32), np.zeros(3, np.float32))
    graph = with_classifier(content, name, [layer])
    assert feature_name(graph) == name
    again = with_classifier(graph, name, [layer])
    assert len(again) == len(graph)
