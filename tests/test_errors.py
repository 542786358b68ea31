"""The tree of errors, and the hint at an extra."""

import pytest

from earmark import errors
from earmark.errors import EarmarkError, MissingExtraError, extra


def test_every_error_is_an_earmark_error():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    kinds = [kind for kind in kinds if issubclass(kind, Exception)]
    assert len(kinds) == 7
    assert all(issubclass(kind, EarmarkError) for kind in kinds)
    tree = errors.__doc__
    assert all(kind.__name__ in tree for kind in kinds)


def test_a_missing_extra_names_the_command():
    error = MissingExtraError("writing Parquet", "parquet")
    assert isinstance(error, ImportError)
    assert str(error) == "writing Parquet needs an optional part of earmark: pip install 'earmark[parquet]'"


def test_only_packages_of_others_are_extras():
    with pytest.raises(MissingExtraError), extra("a test", "train"):
        import nobody_has_this_package  # noqa: F401
    with pytest.raises(ModuleNotFoundError) as caught, extra("a test", "train"):
        import earmark.nobody_has_this_module  # noqa: F401
    assert not isinstance(caught.value, EarmarkError)
