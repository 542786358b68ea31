"""The one family of exceptions that earmark raises on purpose.

Conventions: a message says what was wrong, where, and what to do, on one line; the command line prints it as
it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class EarmarkError(Exception):
    """Root of every error that earmark raises on purpose."""


class AudioError(EarmarkError):
    """A recording cannot be read, or holds samples that mean nothing (none at all, NaN, infinite)."""


class ModelError(EarmarkError):
    """A model is unknown, its file is damaged or too new, or a network cannot be built as asked."""


class DataError(EarmarkError):
    """A manifest, or a file that it names, is missing or malformed."""


class RecipeError(EarmarkError):
    """A recipe, or a value that overrides one, is not what the recipe's model allows."""


class RunError(EarmarkError):
    """A training was stopped by what is around it: a full disk, a process that died, too little memory."""


class MissingExtraError(EarmarkError, ImportError):
    """Something was asked for that an optional part of earmark provides.

    Args:
        what: What was asked for, as the start of a sentence.
        extra: The extra that provides it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part of earmark: pip install 'earmark[{extra}]'")


@contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Says which extra to install where a package that it brings is missing.

    Args:
        what: What was asked for, as the start of a sentence.
        name: The extra that provides it.

    Raises:
        MissingExtraError: If a module that is not earmark's own cannot be found within the block.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("earmark"):
            raise
        raise MissingExtraError(what, name) from None
