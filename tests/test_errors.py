"""One family of errors, each with a place in it."""

import pytest

from earmark import errors


@pytest.mark.parametrize(
    "name", ["AudioError", "ModelError", "DataError", "RecipeError", "RunError", "MissingExtraError"]
)
def test_every_kind_is_of_the_family(name):
    assert issubclass(getattr(errors, name), errors.EarmarkError)


def test_there_is_no_kind_but_these():
    kinds = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert kinds == {
        "EarmarkError",
        "AudioError",
        "ModelError",
        "DataError",
        "RecipeError",
        "RunError",
        "MissingExtraError",
    }


def test_a_missing_extra_says_how_to_get_it():
    error = errors.MissingExtraError("reading m4a", "ffmpeg")
    assert isinstance(error, ImportError)
    assert str(error) == "reading m4a needs an optional part of earmark: pip install 'earmark[ffmpeg]'"
