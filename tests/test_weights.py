"""A model's name, or its path, leads to its file."""

import pytest

from earmark import weights
from earmark.errors import ModelError


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A table of two models, apart from what the package ships."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("mn04_esc18.onnx", "mn10_street.onnx", "README.md"):
        (folder / name).touch()
    monkeypatch.setattr(weights, "_SHIPPED", folder)
    return folder


def test_names_are_those_of_the_model_files(shipped):
    assert weights.names() == ["mn04_esc18", "mn10_street"]


def test_a_name_leads_to_its_file(shipped):
    assert weights.find("mn10_street") == shipped / "mn10_street.onnx"
    assert weights.find() == weights.find(weights.DEFAULT) == shipped / "mn04_esc18.onnx"


def test_a_path_leads_to_itself(shipped, tmp_path):
    path = tmp_path / "own.onnx"
    path.touch()
    assert weights.find(path) == path
    assert weights.find(str(path)) == path


def test_an_unknown_name_is_answered_with_the_nearest(shipped):
    with pytest.raises(ModelError, match=r"no model named 'mn10_stret': did you mean mn10_street"):
        weights.find("mn10_stret")
    with pytest.raises(ModelError, match="did you mean mn04_esc18 or mn10_street"):
        weights.find("???")


@pytest.mark.parametrize("name", ["none.onnx", "folder/none"])
def test_a_path_that_leads_nowhere_is_named(shipped, name):
    with pytest.raises(ModelError, match=f"{name}: there is no such model file"):
        weights.find(name)


def test_a_folder_is_no_model_file(shipped):
    with pytest.raises(ModelError, match="there is no such model file"):
        weights.find(shipped)


def test_without_any_model_a_path_is_asked_for(shipped, monkeypatch):
    monkeypatch.setattr(weights, "_SHIPPED", shipped / "nothing")
    with pytest.raises(ModelError, match="give the path of a model file"):
        weights.find()
