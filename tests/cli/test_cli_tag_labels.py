"""Rollup to AudioSet's parent sounds and selection of labels, in results and on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import earmark
from earmark.errors import ModelError
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info
from earmark.model_file.ontology import rollup_labels, rollup_scores

RATE = 8000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def dogs_and_cats(toy_model: Path, info: ModelInfo) -> Path:
    """The path of a model file with the toy's graph and labels of AudioSet."""
    import onnx

    model = onnx.load(toy_model)
    del model.metadata_props[:]
    path = toy_model.with_name("dogs_and_cats.onnx")
    path.write_bytes(attach_info(model.SerializeToString(), info.changed(labels=("Bark", "Purr"))))
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    samples = np.random.default_rng(0).standard_normal(9000) * np.geomspace(0.01, 0.3, 9000)
    soundfile.write(path, samples, RATE)
    return path


def test_results_are_rolled_up_in_every_window(dogs_and_cats: Path, noise: Path) -> None:
    result = earmark.load(dogs_and_cats).tag(noise)
    rolled = result.filter(rollup=True)
    assert rolled.labels == rollup_labels(("Bark", "Purr"))
    assert len(rolled.windows) == len(result.windows) == 3
    for before, after in zip(result.windows, rolled.windows, strict=True):
        np.testing.assert_array_equal(after.scores, rollup_scores(result.labels, before.scores))
        np.testing.assert_array_equal(after.embedding, before.embedding)
    tags = {tag.label: tag for tag in rolled.tags}
    loudest = result.tags[0]
    assert tags["Animal"] == loudest._replace(label="Animal")
    assert tags["Dog"] == tags["Bark"]._replace(label="Dog")
    assert rolled.scores.shape == (6,)


def test_results_of_some_labels(dogs_and_cats: Path, noise: Path) -> None:
    result = earmark.load(dogs_and_cats).tag(noise)
    some = result.filter("animal,bark", rollup=True)
    assert some.labels == ("Bark", "Animal")
    assert {tag for tag in some.tags if tag.label == "Bark"} == {t for t in result.tags if t.label == "Bark"}
    assert result.filter(["Purr"]).filter("Purr").labels == ("Purr",)
    with pytest.raises(ModelError, match="'Animal'"):
        result.filter("Animal")


def test_rollup_and_labels_on_the_command_line(run: Run, dogs_and_cats: Path, noise: Path) -> None:
    code, out, _ = run("tag", noise, "--model", dogs_and_cats, "--rollup", "--format", "json")
    assert code == 0
    [found] = json.loads(out)
    assert {tag["label"] for tag in found["tags"]} == set(rollup_labels(("Bark", "Purr")))
    assert len(found["windows"][0]["tags"]) == 6
    command = ("tag", noise, "--model", dogs_and_cats, "--rollup", "--format", "csv")
    _, out, _ = run(*command, "--label", "Dog", "--label", "cat", "--label", "Domestic animals, pets")
    labels = [line.split(",")[1].strip('"') for line in out.splitlines()[1:]]
    assert sorted(labels) == ["Cat", "Dog", "Domestic animals"]


def test_labels_of_any_model_can_be_selected(run: Run, toy_model: Path, noise: Path) -> None:
    _, out, _ = run("tag", noise, "--model", toy_model, "--label", "tone", "--format", "json")
    assert [tag["label"] for tag in json.loads(out)[0]["tags"]] == ["tone"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "tune"], "unknown label 'tune': did you mean 'tone'?"),
        (["--label", ""], "unknown label ''"),
        (["--rollup"], "label 'tone'"),
    ],
)
def test_labels_that_cannot_be_shown_are_found_before_anything_is_tagged(
    run: Run, toy_model: Path, noise: Path, options: list[str], message: str
) -> None:
    code, out, err = run("tag", noise, noise, "--model", toy_model, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
