"""The exceptions that earmark raises on purpose.

    EarmarkError
      + AudioError         a recording cannot be read
      + DataError          a dataset or another input file is missing or malformed
      + ModelError         a model is unknown, damaged, or cannot be used as asked
      + RecipeError        a recipe is invalid
      + RunError           a training was stopped from outside
      + MissingExtraError  an optional package is needed (also an ImportError)

Conventions: a message is one line that names what was wrong, the value, the allowed range and the remedy; the
command line prints it as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class EarmarkError(Exception):
    """Base class of all errors that earmark raises on purpose."""


class AudioError(EarmarkError):
    """A recording cannot be read, or has no samples, or NaN or infinite ones."""


class ModelError(EarmarkError):
    """A model is unknown, its file is damaged or too new, or it cannot be used as asked."""


class DataError(EarmarkError):
    """A dataset, or a file that it names, is missing or malformed."""


class RecipeError(EarmarkError):
    """A recipe, or a value that overrides one, is invalid."""


class RunError(EarmarkError):
    """A training was stopped from outside: a full disk, a killed process, too little memory."""


class MissingExtraError(EarmarkError, ImportError):
    """An optional package is needed that is not installed.

    Args:
        what: What needs it, as the start of a sentence.
        extra: The extra that provides it.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part of earmark: pip install 'earmark[{extra}]'")


def contained(error: Exception, item: str) -> EarmarkError:
    """The error of one item of many, so that it ends the work on that item only.

    Args:
        error: Any exception that was raised for the item.
        item: Name of the item, for instance the path of a recording.

    Returns:
        An EarmarkError as it is, a ModelError with the item before it; else one whose line names the item and
        the kind of error.
    """
    if isinstance(error, ModelError) and item not in str(error):
        return ModelError(f"{item}: {error}")
    if isinstance(error, EarmarkError):
        return error
    if isinstance(error, OSError):
        return EarmarkError(f"{item}: {error.strerror or first_line(error)}")
    if isinstance(error, MemoryError):
        return EarmarkError(f"{item}: there is not enough memory to process it")
    kind, reason = type(error).__name__, first_line(error)
    return EarmarkError(f"{item}: cannot be processed ({kind if reason == kind else f'{kind}: {reason}'})")


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the kind of error if it has none."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def extra(what: str, name: str) -> Iterator[None]:
    """Names the extra to install if an import within the block fails.

    Args:
        what: What needs the package, as the start of a sentence.
        name: The extra that provides it.

    Raises:
        MissingExtraError: If a module that is not earmark's own is not found within the block.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("earmark"):
            raise
        raise MissingExtraError(what, name) from None
