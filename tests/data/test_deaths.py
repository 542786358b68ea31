"""How a process died decides whether the clip that it read is at fault."""

from pathlib import Path
from signal import SIGABRT, SIGBUS, SIGKILL, SIGSEGV, SIGTERM

import pytest

from earmark.data.deaths import death_of


@pytest.mark.parametrize(
    ("code", "cause"), [(-SIGSEGV, "SIGSEGV"), (-SIGBUS, "SIGBUS"), (-SIGABRT, "SIGABRT")]
)
def test_crashes(code: int, cause: str) -> None:
    death = death_of(code)
    assert death == (cause, True)
    assert death.left_out(Path("a.ogg")) == f"a.ogg: left out: the process that read it died ({cause})"


@pytest.mark.parametrize(
    ("code", "cause"), [(-SIGKILL, "SIGKILL"), (-SIGTERM, "SIGTERM"), (255, "exit code 255")]
)
def test_other_deaths(code: int, cause: str) -> None:
    assert death_of(code) == (cause, False)
