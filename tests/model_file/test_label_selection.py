"""Labels are found by name, and unknown names get suggestions."""

import pytest

from earmark.errors import ModelError
from earmark.model_file.label_selection import select_labels
from earmark.model_file.labels import label_set

AUDIOSET = label_set("audioset")


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
def test_labels_are_selected_by_name(wanted: str | list[str], found: list[str]) -> None:
    assert [AUDIOSET[index] for index in select_labels(AUDIOSET, wanted)] == found


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("Dgo", "'Dgo': did you mean 'Dog'"),
        ("Dog,speech man", "'speech man'"),
        ("male speech", "or 'Male speech, man speaking'"),
        ("zzz", "choose from Speech, "),
        (" , ", "no label given"),
        ([], "no label given"),
    ],
)
def test_an_unknown_label_gets_suggestions(wanted: str | list[str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        select_labels(AUDIOSET, wanted)


def test_labels_that_differ_only_in_case_stay_distinct() -> None:
    assert select_labels(("a", "A"), "A") == (1,)
    with pytest.raises(ModelError, match="'á'"):
        select_labels(("a", "A"), "á")
