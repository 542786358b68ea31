"""Work for processes, which import it by the name of this module."""

import os
import signal
import time
from pathlib import Path


class Unopenable:
    """Fails where it is unpickled, as a model does whose file has changed."""

    def __call__(self, path: str) -> str:
        return path

    def __reduce__(self) -> tuple:
        return _refuse, ()


def _refuse() -> None:
    from earmark.errors import ModelError

    raise ModelError("the model has changed")


def shout(path: str) -> tuple[str, int]:
    """Upper case, and the process; what a path is named for happens first."""
    name = Path(path).name
    if name.startswith("slow"):
        time.sleep(0.3)
    if name.startswith("bad"):
        raise ValueError("no sound in it")
    if name.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[name])
    if name.startswith("once") and not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path.upper(), os.getpid()
