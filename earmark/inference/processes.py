"""Sessions in other processes: pickled as the way to open them, and opened anew in forked children.

Conventions: an engine's threads and handles belong to the process that made them. What a pickle holds is the
name or path of a model and the options that it was opened with, never weights.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from weakref import WeakSet

from earmark.errors import ModelError
from earmark.inference.engines import Floats, Session


class OpenedSession:
    """A session, and how another process opens the same.

    Args:
        session: Opened in this process.
        reopen: Opens it anew; can be pickled.
        survives_fork: Whether a forked child can go on using the session itself.
        open_local: Opens the same model for local scores; can be pickled. None: it has none.
    """

    def __init__(
        self,
        session: Session,
        reopen: Callable[[], Session],
        *,
        survives_fork: bool = False,
        open_local: Callable[[], Session] | None = None,
    ) -> None:
        self._session: Session | None = session
        self.open_local = open_local
        self._reopen, self._survives_fork = reopen, survives_fork
        if not survives_fork:
            _watch_forks()
            _opened.add(self)

    def run(self, names: Sequence[str], inputs: Mapping[str, Floats]) -> list[Floats]:
        """Computes the named outputs.

        Raises:
            ModelError: In a forked child, if the model's file is not there any more or has changed.
        """
        if self._session is None:
            self._session = self._reopen()
        return self._session.run(names, inputs)

    def __reduce__(self) -> tuple[Callable[..., OpenedSession], tuple[object, ...]]:
        return _unpickled, (self._reopen, self._survives_fork)

    def leave_to_parent(self) -> None:
        """In a forked child: forgets the session of the parent.

        It is never freed here: ONNX Runtime would wait for threads that only the parent has.
        """
        if self._session is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._session))
            self._session = None


def _unpickled(reopen: Callable[[], Session], survives_fork: bool) -> OpenedSession:
    return OpenedSession(reopen(), reopen, survives_fork=survives_fork)


def require_portable(sessions: Sequence[Session], name: str) -> None:
    """Checks that sessions can be pickled.

    Raises:
        ModelError: If one was not opened by :func:`earmark.load`.
    """
    if not all(isinstance(session, OpenedSession) for session in sessions):
        raise ModelError(
            f"the tagger of {name} cannot be pickled, because earmark.load did not open it: load the model "
            "in the other process"
        )


_opened: WeakSet[OpenedSession] = WeakSet()


def _leave_all_to_parent() -> None:
    for session in tuple(_opened):
        session.leave_to_parent()


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_leave_all_to_parent)
