import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile

import earmark
from earmark.errors import DataError, ModelError
from earmark.model_file.info import ModelInfo
from earmark.model_file.labels import audioset_ontology, choose, label_set, roll_up, rolled_up_labels
from earmark.model_file.onnx_file import seal

ROOT = Path(__file__).resolve().parents[2]
AUDIOSET = label_set("audioset")


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ontology", ROOT / "recipes" / "audioset" / "ontology.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def reference(shared: Path) -> dict:
    return json.loads((shared / "reference" / "audioset.json").read_text(encoding="utf-8"))


def test_audioset_is_the_published_set(reference: dict) -> None:
    assert tuple(name for _, _, name in reference["labels"]) == AUDIOSET
    ids = audioset_ontology().ids
    assert [ids[name] for name in AUDIOSET] == [id_ for _, id_, _ in reference["labels"]]


def test_ontology_is_the_published_one(reference: dict) -> None:
    ontology = audioset_ontology()
    names = {node["id"]: node["name"] for node in reference["ontology"]}
    assert {id_: name for name, id_ in ontology.ids.items()} == names
    for node in reference["ontology"]:
        assert ontology.children[node["name"]] == tuple(names[child] for child in node["children"])


def test_table_is_what_its_script_writes(reference: dict, recipe: ModuleType) -> None:
    assert recipe.SHIPPED.read_text(encoding="utf-8") == recipe.table(reference)


@pytest.mark.parametrize(
    ("children", "labels", "message"),
    [
        ({"a": ["b"], "b": ["a"]}, [[0, "a", "A"]], "own ancestor"),
        ({"a": []}, [[0, "a", "B"]], "no node"),
        ({"a": [], "x": []}, [[0, "a", "A"]], "share a name"),
    ],
)
def test_a_table_of_a_broken_ontology_is_refused(
    recipe: ModuleType, children: dict, labels: list, message: str
) -> None:
    names = {"a": "A", "b": "B", "x": "A"}
    nodes = [{"id": id_, "name": names[id_], "children": below} for id_, below in children.items()]
    with pytest.raises(DataError, match=message):
        recipe.table({"labels": labels, "ontology": nodes})


def test_label_sets() -> None:
    assert len(AUDIOSET) == len(set(AUDIOSET)) == 527
    assert (AUDIOSET[0], AUDIOSET[74], AUDIOSET[-1]) == ("Speech", "Dog", "Field recording")
    scenes = label_set("tau_scenes")
    assert len(scenes) == 10
    assert scenes == tuple(sorted(scenes))
    with pytest.raises(ModelError, match="audioset, tau_scenes"):
        label_set("tau")


def test_ancestors_and_descendants() -> None:
    ontology = audioset_ontology()
    assert len(ontology.ids) == 632
    assert ontology.ancestors("Bark") == ("Dog", "Domestic animals, pets", "Animal")
    assert ontology.ancestors("Animal") == ()
    assert ontology.descendants("Bark") == ()
    assert "Bark" in ontology.descendants("Animal")
    assert ontology.parents["Police car (siren)"] == ("Emergency vehicle", "Siren")
    below = ontology.descendants("Sounds of things")
    assert below.count("Jet engine") == 1, "it has two parents, and both lie below"
    for name in ontology.ids:
        assert all(name in ontology.ancestors(child) for child in ontology.children[name])
    with pytest.raises(ModelError, match="did you mean 'Bark'"):
        ontology.ancestors("Bakr")


def test_roll_up_by_hand() -> None:
    labels = ("Bark", "Purr", "Dog", "Siren")
    rolled = rolled_up_labels(labels)
    scores = np.array([[0.7, 0.2, 0.1, 0.4], [0.0, 0.9, 0.5, 0.3]], np.float32)
    table = dict(zip(rolled, roll_up(labels, scores).T.tolist(), strict=True))
    assert rolled[:4] == labels
    assert set(rolled[4:]) == {"Animal", "Domestic animals, pets", "Cat", "Alarm", "Sounds of things"}
    expected = {"Bark": [0.7, 0.0], "Dog": [0.7, 0.5], "Cat": [0.2, 0.9], "Animal": [0.7, 0.9]}
    expected |= {"Purr": [0.2, 0.9], "Siren": [0.4, 0.3], "Alarm": [0.4, 0.3]}
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name], np.float32(values))


def test_roll_up_of_all_audioset() -> None:
    scores = np.random.default_rng(0).random(527, np.float32)
    score_of = dict(zip(AUDIOSET, scores, strict=True))
    ontology = audioset_ontology()
    rolled = roll_up(AUDIOSET, scores)
    assert rolled.dtype == np.float32
    for name, score in zip(rolled_up_labels(AUDIOSET), rolled, strict=True):
        assert score == max(score_of.get(below, 0) for below in (name, *ontology.descendants(name)))


def test_labels_of_another_kind_are_not_rolled_up() -> None:
    with pytest.raises(ModelError, match="'dog' is none of AudioSet's"):
        rolled_up_labels(("Siren", "dog"))


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("Dog,Siren", ["Dog", "Siren"]),
        (" siren , DOG,", ["Dog", "Siren"]),
        ("Male speech, man speaking,Dog", ["Male speech, man speaking", "Dog"]),
        ("dog,male speech,man speaking", ["Male speech, man speaking", "Dog"]),
        (["Siren", "Dog", "Dog"], ["Dog", "Siren"]),
    ],
)
def test_choose(wanted: str | list[str], found: list[str]) -> None:
    assert [AUDIOSET[index] for index in choose(AUDIOSET, wanted)] == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Dgo", "'Dgo': did you mean 'Dog'"),
        ("Dog,speech man", "'speech man'"),
        ("male speech", "or 'Male speech, man speaking'"),
        ("zzz", "there are Speech, "),
        (" , ", "no label was named"),
        ([], "no label was named"),
    ],
)
def test_unknown_labels_are_answered_with_the_nearest(wanted: str | list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        choose(AUDIOSET, wanted)


def test_labels_that_differ_in_size_of_letters_only_are_told_apart() -> None:
    assert choose(("a", "A"), "A") == (1,)
    with pytest.raises(ModelError, match="'á'"):
        choose(("a", "A"), "á")


RATE = 8000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def dogs_and_cats(toy_model: Path, info: ModelInfo) -> Path:
    """The path of a model file with the toy's graph and labels of AudioSet."""
    import onnx

    model = onnx.load(toy_model)
    del model.metadata_props[:]
    path = toy_model.with_name("dogs_and_cats.onnx")
    path.write_bytes(seal(model.SerializeToString(), info.changed(labels=("Bark", "Purr"))))
    return path


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    path = tmp_path / "noise.wav"
    samples = np.random.default_rng(0).standard_normal(9000) * np.geomspace(0.01, 0.3, 9000)
    soundfile.write(path, samples, RATE)
    return path


def test_results_are_rolled_up_in_every_window(dogs_and_cats: Path, noise: Path) -> None:
    result = earmark.load(dogs_and_cats).tag(noise)
    rolled = result.rolled_up()
    assert rolled.labels == rolled_up_labels(("Bark", "Purr"))
    assert len(rolled.windows) == len(result.windows) == 3
    for before, after in zip(result.windows, rolled.windows, strict=True):
        np.testing.assert_array_equal(after.scores, roll_up(result.labels, before.scores))
        np.testing.assert_array_equal(after.embedding, before.embedding)
    tags = {tag.label: tag for tag in rolled.tags}
    loudest = result.tags[0]
    assert tags["Animal"] == loudest._replace(label="Animal")
    assert tags["Dog"] == tags["Bark"]._replace(label="Dog")
    assert rolled.scores.shape == (6,)


def test_results_of_some_labels(dogs_and_cats: Path, noise: Path) -> None:
    result = earmark.load(dogs_and_cats).tag(noise)
    some = result.rolled_up().only("animal,bark")
    assert some.labels == ("Bark", "Animal")
    assert {tag for tag in some.tags if tag.label == "Bark"} == {t for t in result.tags if t.label == "Bark"}
    assert result.only(["Purr"]).only("Purr").labels == ("Purr",)
    with pytest.raises(ModelError, match="'Animal'"):
        result.only("Animal")


def test_rollup_and_only_on_the_command_line(run: Run, dogs_and_cats: Path, noise: Path) -> None:
    code, out, _ = run("tag", noise, "--model", dogs_and_cats, "--rollup", "--format", "json")
    assert code == 0
    [answer] = json.loads(out)
    assert {tag["label"] for tag in answer["tags"]} == set(rolled_up_labels(("Bark", "Purr")))
    assert len(answer["windows"][0]["tags"]) == 6
    command = ("tag", noise, "--model", dogs_and_cats, "--rollup", "--format", "csv")
    _, out, _ = run(*command, "--only", "Dog,cat", "--only", "Domestic animals, pets")
    labels = [line.split(",")[1].strip('"') for line in out.splitlines()[1:]]
    assert sorted(labels) == ["Cat", "Dog", "Domestic animals"]


def test_only_serves_models_of_any_labels(run: Run, toy_model: Path, noise: Path) -> None:
    _, out, _ = run("tag", noise, "--model", toy_model, "--only", "tone", "--format", "json")
    assert [tag["label"] for tag in json.loads(out)[0]["tags"]] == ["tone"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "tune"], "there is no label 'tune': did you mean 'tone'?"),
        (["--only", ""], "no label was named"),
        (["--rollup"], "label 'tone' is none of AudioSet's"),
    ],
)
def test_labels_that_cannot_be_shown_are_found_before_anything_is_tagged(
    run: Run, toy_model: Path, noise: Path, options: list[str], message: str
) -> None:
    code, out, err = run("tag", noise, noise, "--model", toy_model, *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert message in err
