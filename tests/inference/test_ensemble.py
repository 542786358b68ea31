"""Ensembles: the mean of logits of models with one front-end."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy

import earmark
from earmark.errors import ModelError
from earmark.hub import registry
from earmark.inference import load
from earmark.inference.ensemble import EnsembleSession, ensemble, ensemble_info
from earmark.model_file.calibration import Platt
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

RATE = toy.SAMPLE_RATE
OTHER = replace(toy.FRONT_END, n_mels=24)


def sound(seconds: float) -> np.ndarray:
    """Noise and a rising tone, so that no two windows are alike."""
    time = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * np.sin(2 * np.pi * (200 + 300 * time) * time) + 0.1 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def members(info: ModelInfo, toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Model files of two networks with one front-end: what one hears more of, the other hears less of."""
    onnx = pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("members")
    for name, factor in (("toy", 0.3), ("small", -0.2)):
        model = onnx.load(toy_model)
        del model.metadata_props[:]
        [head] = [tensor for tensor in model.graph.initializer if tensor.name == "classifier.5.weight"]
        head.CopyFrom(onnx.numpy_helper.from_array(factor * onnx.numpy_helper.to_array(head), head.name))
        content = attach_info(model.SerializeToString(), info.changed(name=name))
        (folder / f"{name}.onnx").write_bytes(content)
    return [folder / "toy.onnx", folder / "small.onnx"]


def logits_of(result: earmark.Result) -> np.ndarray:
    """Of each window, (window, class)."""
    scores = np.stack([window.scores for window in result.windows]).astype(np.float64)
    return np.log(scores / (1 - scores))


@pytest.mark.parametrize("weights", [(0, 1), (0, 0, 1)])
def test_logits_are_averaged_and_embeddings_concatenated(members: list[Path], weights) -> None:
    options = {"window_s": 0.8, "hop_s": 0.12}
    apart = [earmark.load(members[one], threads=1).tag(sound(1.8), RATE, **options) for one in weights]
    tagger = earmark.load([members[one] for one in weights], threads=1)
    result = tagger.tag(sound(1.8), RATE, **options)
    assert np.std([logits_of(one) for one in apart], 0).mean() > 0.05, "members must differ"
    np.testing.assert_allclose(logits_of(result), np.mean([logits_of(one) for one in apart], 0), atol=1e-4)
    for window, *parts in zip(result.windows, *(one.windows for one in apart), strict=True):
        np.testing.assert_array_equal(window.embedding, np.concatenate([part.embedding for part in parts]))
    assert result.model == "+".join(one.model for one in apart)
    assert tagger.info.embedding_size == len(result.embedding)


def test_one_model_is_no_ensemble(toy_model: Path) -> None:
    assert earmark.load([toy_model]).info == earmark.load(toy_model).info


def test_model_info(info: ModelInfo) -> None:
    other = info.changed(name="other", embedding_size=10, license="CC0", source="a test", card="# other\n")
    joint = ensemble_info([info, other, info])
    assert (joint.name, joint.architecture) == ("toy+other+toy", "ensemble")
    assert (joint.front_end, joint.embedding_size) == (info.front_end, 2 * info.embedding_size + 10)
    assert (joint.license, joint.source) == ("MIT; CC0", "a test")
    assert (joint.card.count("hört Töne"), joint.card.count("# other")) == (1, 1)
    assert ModelInfo.from_json(joint.to_json()) == joint
    assert ensemble_info([info, other], "both").name == "both"
    assert ensemble_info([info]) is info


def test_all_members_get_windows_with_the_padding_of_the_first(members: list[Path], info: ModelInfo) -> None:
    first, second = (earmark.load(path, threads=1) for path in members)
    for padding in ("zero", "repeat"):
        mixed = [
            earmark.Tagger(first.session, info.changed(padding=padding)),
            earmark.Tagger(second.session, info.changed(padding="repeat")),
        ]
        alike = [earmark.Tagger(one.session, info.changed(padding=padding)) for one in (first, second)]
        got, expected = (ensemble(taggers).tag(sound(0.3), RATE) for taggers in (mixed, alike))
        assert ensemble(mixed).info.padding == padding
        np.testing.assert_array_equal(got.scores, expected.scores)


def test_an_ensemble_is_not_calibrated(info: ModelInfo) -> None:
    own = info.changed(calibration=Platt((0.5, 2.0), (-1.0, 0.25)), threshold=(0.1, 0.2))
    joint = ensemble_info([own, own])
    assert (joint.calibration, joint.threshold) == (None, None)


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"labels": ("tone",)}, "2 and 1 labels"),
        ({"labels": ("noise", "tone")}, "label 1 is 'tone' and 'noise'"),
        ({"task": "single_label"}, "task is multi_label and single_label"),
        ({"front_end": OTHER}, "front_end is n_mels=32 and n_mels=24"),
        ({"window_s": 5.0}, "window_s is 0.5 and 5.0: earmark convert --window"),
    ],
)
def test_members_that_differ_are_refused(info: ModelInfo, changes: dict, difference: str) -> None:
    other = info.changed(name="other", **changes)
    with pytest.raises(ModelError, match=f"toy and other cannot form an ensemble: {difference}"):
        ensemble_info([info, info, other])


def test_outputs_come_in_the_order_of_their_names(info: ModelInfo) -> None:
    class Session:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        def run(self, names, inputs):
            return [self.factor * inputs["log_mel"]] * 2

    joint = ensemble([earmark.Tagger(Session(factor), info) for factor in (1.0, 10.0)])
    assert isinstance(joint.session, EnsembleSession)
    embedding, logits = joint.session.run(["embedding", "logits"], {"log_mel": np.ones((1, 2), np.float32)})
    np.testing.assert_array_equal(embedding, [[1, 1, 10, 10]])
    np.testing.assert_array_equal(logits, [[5.5, 5.5]])


def test_files_of_ensembles_over_several_front_ends_are_refused(info: ModelInfo) -> None:
    values = json.loads(info.to_json())
    assert ModelInfo.from_json(json.dumps(values | {"further_front_ends": []})) == info
    with pytest.raises(ModelError, match="different front-ends"):
        ModelInfo.from_json(json.dumps(values | {"further_front_ends": [OTHER.to_dict()]}))


def test_every_published_member_is_downloaded_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pulled: list[str] = []
    monkeypatch.setattr(load, "pull", lambda name, progress=None: pulled.append(name))
    with pytest.raises(ModelError, match="mn04_as"):
        earmark.load(["mn04_as", "dymn04_as"])
    assert pulled == ["mn04_as", "dymn04_as"]
    for unusable in ("mn04_sa", "mn04_im", "mn04_as+dymn04_as"):
        with pytest.raises(ModelError):
            earmark.load([registry.DEFAULT, unusable])


def test_no_pytorch_is_needed(members: list[Path]) -> None:
    command = (
        "import sys; sys.modules['torch'] = None; import earmark, numpy as np;"
        f"tagger = earmark.load({[str(path) for path in members]!r});"
        "print(len(tagger.tag(np.full(3000, 0.1, np.float32), 8000).tags))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"
