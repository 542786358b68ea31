"""How a process died decides whether the clip that it read is at fault."""

from pathlib import Path
from signal import SIGABRT, SIGBUS, SIGKILL, SIGSEGV, SIGTERM

import pytest

from earmark.data.worker_exits import worker_exit


@pytest.mark.parametrize(
    ("code", "cause"), [(-SIGSEGV, "SIGSEGV"), (-SIGBUS, "SIGBUS"), (-SIGABRT, "SIGABRT")]
)
def test_crashes(code: int, cause: str) -> None:
    ended = worker_exit(code)
    assert ended == (cause, True)
    assert ended.left_out(Path("a.ogg")) == f"a.ogg: left out: the process that read it died ({cause})"


@pytest.mark.parametrize(
    ("code", "cause"), [(-SIGKILL, "SIGKILL"), (-SIGTERM, "SIGTERM"), (255, "exit code 255")]
)
def test_other_exits(code: int, cause: str) -> None:
    assert worker_exit(code) == (cause, False)
