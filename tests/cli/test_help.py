"""The help of the program and of its commands, at 80 columns."""

import re
from collections.abc import Callable

import pytest
from typer.main import get_command

from earmark.cli import app

COMMANDS = get_command(app).commands
GROUPS = {
    "Use": ["tag", "listen", "clips", "embed", "similar", "serve"],
    "Own sounds": ["fit", "suggest", "review"],
    "Models": ["models", "info", "pull", "convert"],
    "Train and evaluate": [
        "train",
        "evaluate",
        "probe",
        "calibrate",
        "teach",
        "pack",
        "bench",
        "report",
        "complexity",
    ],
    "Ship": ["export"],
}
MOST_IN_SIGHT = 12


@pytest.fixture
def help_of(
    run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, list[str]]]:
    """Runs ``--help`` at 80 columns; returns the lines under each heading."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*command: str) -> dict[str, list[str]]:
        code, out, err = run(*command, "--help")
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert out.isascii(), "no boxes, no marks of a cut"
        headings = re.findall(r"^(\S[^\n]*):\n((?:  [^\n]*\n)+)", out, re.MULTILINE)
        return {heading: lines.splitlines() for heading, lines in headings}

    return call


def test_commands_are_grouped_with_whole_summaries(help_of) -> None:
    shown = help_of()
    assert [heading for heading in shown if heading != "Options"] == list(GROUPS)
    for group, commands in GROUPS.items():
        assert [line.split()[0] for line in shown[group]] == commands
        for line, command in zip(shown[group], commands, strict=True):
            assert line.split(maxsplit=1)[1] == COMMANDS[command].help.splitlines()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(help_of, command: str) -> None:
    entry = COMMANDS[command]
    summary = entry.help.splitlines()[0]
    assert len(summary) <= 60
    assert re.fullmatch(r"[A-Z][a-z]+ .+\.", summary)
    assert not summary.split()[0].endswith("s"), "imperative"
    shown = help_of(command)
    assert sum(line.startswith("  -") for line in shown["Options"]) - 1 <= MOST_IN_SIGHT
    for parameter in entry.params:
        assert parameter.help, parameter.name


def test_one_spelling_for_one_thing() -> None:
    spellings = {
        "output": ["--output", "-o"],
        "quiet": ["--quiet", "-q"],
        "model": ["--model", "-m"],
        "models": ["--model", "-m"],
    }
    for command, entry in COMMANDS.items():
        options = {p.name: list(p.opts) for p in entry.params if p.param_type_name == "option"}
        assert not options.keys() & {"out", "destination", "again", "judge"}, command
        for name, opts in options.items():
            assert opts == spellings.get(name, opts), f"earmark {command}"
    for command in ("tag", "embed", "evaluate", "calibrate", "teach", "bench"):
        assert any(p.name == "device" for p in COMMANDS[command].params), command
