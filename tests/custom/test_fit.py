"""Fitting a tagger to own sounds."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from own_sounds import write_folder

import earmark
from earmark.custom import FitOptions, fit, read_dataset, write_report
from earmark.custom.features import Clip, extract, open_base
from earmark.custom.fit import prepare
from earmark.custom.folds import grouped_folds, num_folds
from earmark.custom.probe import fit_probe
from earmark.custom.table import clip_scores, make_table
from earmark.errors import DataError, EarmarkError

pytest.importorskip("scipy")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("own"))


def options(toy_model: Path, **values: object) -> FitOptions:
    return FitOptions(base=toy_model, workers=1, augment=False, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("kinds", [("tone", "noise"), ("tone", "noise", "")])
def test_scores_within_a_fit_are_those_of_tag(
    toy_model: Path, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    folder = write_folder(tmp_path / "own", clips=4, kinds=kinds)
    chosen = options(toy_model)
    report = fit(folder, tmp_path / "own.onnx", chosen)
    assert report.task == ("multi_label" if "" in kinds else "single_label")
    tagger = earmark.load(tmp_path / "own.onnx")
    dataset = read_dataset(folder)
    prepared = prepare(open_base(toy_model), dataset, chosen, lambda what, done, total: None)
    table = make_table(
        dataset.examples, [one.features for one in prepared.clips], [], dataset.labels, report.task
    )
    assert max(map(len, table.windows())) > 1  # clips longer than a window
    classifier = fit_probe(table, np.ones(len(table.targets), bool))
    logits = [classifier.logits(rows) for rows in table.windows()]
    expected = clip_scores(logits, report.task, tagger.info.calibration)
    for example, scores in zip(dataset.examples, expected, strict=True):
        np.testing.assert_allclose(tagger.tag(example.path).scores, scores, atol=1e-4)


def test_a_fit_learns_and_is_honest(toy_model: Path, sounds: Path, tmp_path: Path) -> None:
    report = fit(sounds, tmp_path / "own.onnx", options(toy_model))
    info = earmark.load(tmp_path / "own.onnx").info
    assert info.calibration is not None
    assert info.calibration.fitted_on["clips"] == sum(report.counts.values())
    assert report.metrics["accuracy"] > 0.8
    assert report.metrics["low"] <= report.metrics["accuracy"] <= report.metrics["high"]
    assert report.false_alarms_per_hour is not None
    assert info.labels == ("hiss", "tone")
    assert info.metrics["cross-validated accuracy"] == report.metrics["accuracy"]
    assert info.thresholds is not None
    assert report.headline in info.card
    assert info.provenance["base"] == "toy"


def test_shuffled_labels_are_not_learned(toy_model: Path, tmp_path: Path) -> None:
    """What cross-validation reports must not come from clips that were fitted to."""
    generator = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "own" / "ab"[number % 2] / f"x{number:03d}x.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, toy.sound("noise", generator), toy.SAMPLE_RATE)
    report = fit(tmp_path / "own", None, options(toy_model, folds=6))
    assert report.metrics["accuracy"] < 0.85


def test_unknown_sounds_are_not_named(toy_model: Path, sounds: Path, tmp_path: Path) -> None:
    fit(sounds, tmp_path / "own.onnx", options(toy_model))
    tagger = earmark.load(tmp_path / "own.onnx")
    generator = np.random.default_rng(9)
    hums = [tagger.tag(toy.sound("", generator), toy.SAMPLE_RATE).detected for _ in range(8)]
    tones = [tagger.tag(toy.sound("tone", generator), toy.SAMPLE_RATE).detected for _ in range(8)]
    assert sum(map(bool, hums)) <= 2
    assert sum(map(bool, tones)) >= 6


def test_regions_have_the_windows_of_cut_clips(toy_model: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    long = np.concatenate([toy.sound("noise", generator) for _ in range(6)])
    soundfile.write(tmp_path / "long.wav", long, toy.SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "cut.wav", long[8000:14000], toy.SAMPLE_RATE, subtype="FLOAT")
    (tmp_path / "clips.csv").write_text(
        "path,label,start_s,end_s\nlong.wav,a,1,1.75\ncut.wav,a,,\nlong.wav,a,50,51\n"
    )
    region, cut, beyond = extract(
        open_base(toy_model), read_dataset(tmp_path / "clips.csv").examples, workers=1
    )
    assert isinstance(region, Clip)
    assert isinstance(cut, Clip)
    np.testing.assert_allclose(region.features, cut.features, atol=1e-5)
    assert isinstance(beyond, EarmarkError)


def test_features_are_kept_by_content(toy_model: Path, sounds: Path, own_cache: Path, tmp_path: Path) -> None:
    base, dataset = open_base(toy_model), read_dataset(sounds)
    first = list(extract(base, dataset.examples, workers=2))
    kept = sorted(own_cache.rglob("*.npy"))
    assert len(kept) == len(dataset.examples)
    kept[0].write_bytes(b"damaged")
    again = list(extract(base, dataset.examples, workers=2))
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, Clip)
        assert isinstance(other, Clip)
        np.testing.assert_array_equal(one.features, other.features)
    assert sorted(own_cache.rglob("*.npy")) == kept


def test_sources_are_never_on_both_sides_of_a_split() -> None:
    groups = np.repeat(np.arange(12), 3)
    targets = np.eye(3, dtype=np.float32)[groups % 3]
    folds = grouped_folds(targets, groups, 4)
    assert all(len(set(folds[groups == group])) == 1 for group in range(12))
    assert all(len(set(folds[targets[:, column] > 0])) == 4 for column in range(3))


def test_few_sources_are_left_out_one_by_one() -> None:
    groups = np.arange(8)
    targets = np.eye(2, dtype=np.float32)[groups % 2]
    assert num_folds(targets, groups, None) == 8
    assert num_folds(targets, np.zeros(8, np.int64), None) == 0


def test_a_class_of_one_source_is_fitted_but_not_tested(toy_model: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", clips=4)
    (folder / "single").mkdir()
    soundfile.write(
        folder / "single" / "a.wav", toy.sound("", np.random.default_rng(4)) * 20, toy.SAMPLE_RATE
    )
    report = fit(folder, tmp_path / "own.onnx", options(toy_model))
    assert "recall" not in report.by_class["single"]
    assert "recall" in report.by_class["tone"]
    assert "single" in earmark.load(tmp_path / "own.onnx").labels


def test_bad_clips_do_not_end_a_fit(toy_model: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", clips=4)
    (folder / "tone" / "broken.wav").write_bytes(b"no sound")
    tone = (folder / "tone" / "rec000x.wav").read_bytes()
    (folder / "tone" / "copy.wav").write_bytes(tone)
    (folder / "hiss" / "both.wav").write_bytes((folder / "tone" / "rec001x.wav").read_bytes())
    soundfile.write(folder / "hiss" / "silent.wav", np.zeros(4000), toy.SAMPLE_RATE)
    report = fit(folder, tmp_path / "own.onnx", options(toy_model))
    kinds = {finding.kind for finding in report.findings}
    assert {"unreadable", "duplicate", "conflict", "quiet"} <= kinds
    assert report.num_failed == 1
    assert report.counts["tone"] == 3  # the copy, and the clip with two labels, are left out


@pytest.mark.parametrize("kinds", [("tone",), ("",)])
def test_nothing_to_tell_apart_is_refused(toy_model: Path, tmp_path: Path, kinds: tuple[str, ...]) -> None:
    with pytest.raises(DataError):
        fit(write_folder(tmp_path / "own", 2, kinds), tmp_path / "own.onnx", options(toy_model))
    assert not (tmp_path / "own.onnx").exists()


def test_one_class_and_background_is_enough(toy_model: Path, tmp_path: Path) -> None:
    report = fit(write_folder(tmp_path / "own", 12, ("tone", "")), tmp_path / "own.onnx", options(toy_model))
    assert report.labels == ("tone",)
    assert report.metrics["map_macro"] > 0.8
    assert "accuracy" not in report.metrics  # of one class it says nothing


def test_the_number_of_clips_is_limited_evenly(toy_model: Path, sounds: Path) -> None:
    report = fit(sounds, None, options(toy_model, max_clips=9))
    assert report.counts == {"hiss": 3, "tone": 3, "": 3}


def test_a_wrong_label_is_suspected(toy_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("cleanlab")
    folder = write_folder(tmp_path / "own", 12, ("tone", "noise"))
    soundfile.write(
        folder / "hiss" / "wrong9x.wav", toy.sound("tone", np.random.default_rng(5)), toy.SAMPLE_RATE
    )
    report = fit(folder, None, options(toy_model))
    assert any("wrong9x" in one.text for one in report.findings if one.kind == "suspect")


def test_the_page_plays_the_wrong_clips(toy_model: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "own", 6, ("tone", "noise"))
    soundfile.write(
        folder / "hiss" / "<wrong>.wav", toy.sound("tone", np.random.default_rng(5)), toy.SAMPLE_RATE
    )
    report = fit(folder, None, options(toy_model))
    assert any("<wrong>" in one.example.name for one in report.wrong)
    write_report(report, tmp_path / "out")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<wrong>" not in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["metrics"] == dict(report.metrics)
    played = sorted((tmp_path / "out" / "clips").iterdir())
    assert {path.suffix for path in played} == {".ogg", ".png"}
    assert soundfile.info(played[0]).duration > 0.2


@pytest.mark.parametrize("depth", ["probe", "head"])
def test_each_depth_gives_a_model(toy_model: Path, sounds: Path, tmp_path: Path, depth: str) -> None:
    if depth == "head":
        pytest.importorskip("torch")
    report = fit(sounds, tmp_path / "own.onnx", options(toy_model, depth=depth, folds=2))
    tagger = earmark.load(tmp_path / "own.onnx")
    assert report.depth == tagger.info.provenance["depth"] == depth
    tags = [tagger.tag(path).tags[0].label for path in sorted((sounds / "tone").iterdir())]
    assert tags.count("tone") >= 4


def test_the_output_is_never_an_input(toy_model: Path, sounds: Path) -> None:
    clip = next((sounds / "tone").iterdir())
    before = clip.read_bytes()
    with pytest.raises(DataError):
        fit(sounds, clip, options(toy_model))
    assert clip.read_bytes() == before
