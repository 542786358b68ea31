"""Depth "full": the network of a model file, with its weights, and its fine-tuning."""

from pathlib import Path

import numpy as np
import pytest
from own_sounds import write_folder

import earmark
from earmark.custom import FitOptions, fit
from earmark.errors import ModelError
from earmark.hub import registry
from earmark.model_file.onnx_file import read_model_file
from earmark.model_file.onnx_runtime import onnxruntime

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")


def test_the_network_of_the_shipped_model_has_its_weights() -> None:
    from earmark.custom.base_network import network_of

    content, info = read_model_file(registry.find(None))
    network = network_of(content, info)
    log_mel = np.random.default_rng(1).standard_normal((1, info.front_end.n_mels, 101)).astype(np.float32)
    logits, embedding = onnxruntime.InferenceSession(content).run(
        ["logits", "embedding"], {"log_mel": log_mel}
    )
    with torch.no_grad():
        found = network(torch.from_numpy(log_mel))
    np.testing.assert_allclose(found.logits.numpy(), logits, atol=1e-4)
    np.testing.assert_allclose(found.embedding.numpy(), embedding, atol=1e-4)


def test_weights_that_cannot_be_read_are_refused(toy_single_label_model: Path) -> None:
    from earmark.custom.base_network import network_of

    content, info = read_model_file(toy_single_label_model)
    with pytest.raises(ModelError, match="depth full"):
        network_of(content, info.changed(architecture="mn04"))
    with pytest.raises(ModelError, match="int8"):
        network_of(content, info.changed(precision="int8"))


@pytest.mark.slow
def test_all_weights_are_trained(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", 3, ("tone", "noise"))
    report = fit(folder, tmp_path / "own.onnx", FitOptions(depth="full", folds=2, augment=False, workers=1))
    tagger, base = earmark.load(tmp_path / "own.onnx"), earmark.load()
    path = folder / "tone" / "rec000x.wav"
    assert report.depth == "full"
    assert tagger.info.precision == "fp32"
    assert tagger.tag(path).tags[0].label == "tone"
    assert np.abs(tagger.tag(path).embedding - base.tag(path).embedding).max() > 1e-3
