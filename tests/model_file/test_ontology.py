"""AudioSet's ontology is the published one, and parents get the highest score of their children.

Without the folder ``shared`` beside the project, the shipped table is not compared with Google's.
"""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from earmark.errors import DataError, ModelError
from earmark.model_file.labels import label_set
from earmark.model_file.ontology import audioset_ontology, rollup_labels, rollup_scores

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


def test_rollup_by_hand() -> None:
    labels = ("Bark", "Purr", "Dog", "Siren")
    rolled = rollup_labels(labels)
    scores = np.array([[0.7, 0.2, 0.1, 0.4], [0.0, 0.9, 0.5, 0.3]], np.float32)
    table = dict(zip(rolled, rollup_scores(labels, scores).T.tolist(), strict=True))
    assert rolled[:4] == labels
    assert set(rolled[4:]) == {"Animal", "Domestic animals, pets", "Cat", "Alarm", "Sounds of things"}
    expected = {"Bark": [0.7, 0.0], "Dog": [0.7, 0.5], "Cat": [0.2, 0.9], "Animal": [0.7, 0.9]}
    expected |= {"Purr": [0.2, 0.9], "Siren": [0.4, 0.3], "Alarm": [0.4, 0.3]}
    for name, values in expected.items():
        np.testing.assert_array_equal(table[name], np.float32(values))


def test_rollup_of_all_audioset() -> None:
    scores = np.random.default_rng(0).random(527, np.float32)
    score_of = dict(zip(AUDIOSET, scores, strict=True))
    ontology = audioset_ontology()
    rolled = rollup_scores(AUDIOSET, scores)
    assert rolled.dtype == np.float32
    for name, score in zip(rollup_labels(AUDIOSET), rolled, strict=True):
        assert score == max(score_of.get(below, 0) for below in (name, *ontology.descendants(name)))


def test_labels_of_another_kind_are_not_rolled_up() -> None:
    with pytest.raises(ModelError, match="'dog'"):
        rollup_labels(("Siren", "dog"))
