"""Depth "full": the network of a model file, with its weights, and its fine-tuning."""

import gc
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from own_sounds import write_folder

import earmark
from earmark.custom import Dataset, Example, FitOptions, fit, read_dataset
from earmark.custom.features import Clip, extract, open_base
from earmark.custom.table import clip_scores, make_table
from earmark.errors import ModelError
from earmark.hub import registry
from earmark.model_file.onnx_file import read_model_file
from earmark.model_file.onnx_runtime import onnxruntime

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model file whose weights can be read."""
    from toy_model import INFO

    from earmark.export.export import export_model

    network = toy.lively_network(INFO)
    for name, weight in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.1)  # equal ones would be one initializer of the graph
    path = tmp_path_factory.mktemp("base") / "base.onnx"
    export_model(network, INFO, path)
    return path


def chosen(base: Path, **values: object) -> FitOptions:
    return FitOptions(base=base, depth="full", folds=2, augment=False, workers=1, **values)  # type: ignore[arg-type]


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


@pytest.mark.slow
def test_scores_within_a_fit_are_those_of_tag(base: Path, tmp_path: Path) -> None:
    """With background, a label of odd characters, clips of several windows, and a region of a recording."""
    folder = write_folder(tmp_path / "own", 6)
    long = [toy.sound("tone", np.random.default_rng(7)) for _ in range(6)]
    soundfile.write(tmp_path / "long.wav", np.concatenate(long), toy.SAMPLE_RATE)
    files = [
        replace(one, labels=tuple(f"{label}; ü," for label in one.labels))
        for one in read_dataset(folder).examples
    ]
    dataset = Dataset((*files, Example(tmp_path / "long.wav", ("tone; ü,", "hiss; ü,"), "long", 0.5, 1.5)))
    report = fit(dataset, tmp_path / "own.onnx", chosen(base))
    tagger = earmark.load(tmp_path / "own.onnx")
    assert tagger.labels == ("hiss; ü,", "tone; ü,")
    assert report.task == "multi_label"
    assert report.false_alarms_per_hour is not None

    from earmark.custom.full import full_fitter

    opened = open_base(base)
    features = [one.features for one in extract(opened, dataset.examples) if isinstance(one, Clip)]
    table = make_table(dataset.examples, features, [], dataset.labels, report.task)
    classifier = full_fitter(opened, dataset.examples, 0)(table, np.ones(len(table.targets), bool))
    logits = [classifier.logits(rows) for rows in table.windows()]
    assert max(map(len, logits)) > 1
    expected = clip_scores(logits, report.task, tagger.info.calibration)
    for example, scores in zip(files, expected, strict=False):
        np.testing.assert_allclose(tagger.tag(example.path).scores, scores, atol=1e-4)
    waveform, rate = soundfile.read(tmp_path / "long.wav", dtype="float32")
    region = waveform[rate // 2 : 3 * rate // 2]
    np.testing.assert_allclose(tagger.tag(region, rate).scores, expected[-1], atol=1e-4)


@pytest.mark.slow
def test_training_learns_from_the_clips_that_it_is_given(base: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", 12, ("tone", "noise"))
    with suppress(OSError):  # where a name may be any bytes
        (folder / "tone" / "rec000x.wav").rename(os.fsdecode(os.fsencode(folder) + b"/tone/\xff1.wav"))
    dataset, opened = read_dataset(folder), open_base(base)
    features = [one.features for one in extract(opened, dataset.examples) if isinstance(one, Clip)]
    table = make_table(dataset.examples, features, [], dataset.labels, "single_label")

    from earmark.custom.full import full_fitter

    fitter = full_fitter(opened, dataset.examples, 1)
    half = np.arange(len(table.targets)) % 2 == 0
    scores = {}
    for name, targets in (("right", table.targets), ("swapped", table.targets[:, ::-1])):
        classifier = fitter(replace(table, targets=targets), half)
        logits = [classifier.logits(rows) for rows in table.windows()]
        found = clip_scores(logits, "single_label").argmax(1) == table.targets.argmax(1)
        scores[name] = found[~half].mean()
    assert scores["right"] > 0.8
    assert scores["swapped"] < 0.2


@pytest.mark.slow
def test_nothing_is_left_behind(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_folder(tmp_path / "own", 4, ("tone", "noise"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    steps: list[tuple[int, int]] = []

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "training step":
            assert list((tmp_path / "temporary").iterdir())
            steps.append((done, total))
        if len(steps) > 3:
            raise KeyboardInterrupt

    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        fit(folder, tmp_path / "own.onnx", chosen(base), progress=interrupt)
    gc.collect()
    assert torch.equal(torch.get_rng_state(), before)
    assert not list((tmp_path / "temporary").iterdir())
    assert not (tmp_path / "own.onnx").exists()
