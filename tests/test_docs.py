"""What README and docs say is true: examples run, links lead somewhere, commands and options exist."""

import importlib.util
import re
import shlex
from pathlib import Path

import make_siren_and_bell
import numpy as np
import pytest
import refresh
import soundfile
from typer.main import get_command

from earmark.cli import app, main
from earmark.training.config.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = refresh.documents()
EXAMPLE = ROOT / "examples" / "siren_and_bell.ogg"
NUMBER = re.compile(r"\d+\.\d+")
SCORE_TOLERANCE = 0.02  # processors differ in the last digits, and a score may stand on an edge of rounding


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def examples(kind: str) -> list:
    return [pytest.param(path, id=name(path)) for path in DOCUMENTS if refresh.fences(read(path), kind)]


every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name)


@pytest.mark.parametrize("path", examples("python"))
def test_python_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, example in enumerate(refresh.fences(read(path), "python"), start=1):
        exec(compile(example, f"{name(path)}, example {number}", "exec"), names)


@pytest.mark.parametrize("path", examples("console"))
def test_console_examples_print_what_they_say(path: Path) -> None:
    for example in refresh.fences(read(path), "console"):
        printed = refresh.run(example)
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", example), "python docs/refresh.py mends this"
        said = [float(number) for number in NUMBER.findall(example)]
        assert [float(number) for number in NUMBER.findall(printed)] == pytest.approx(
            said, abs=SCORE_TOLERANCE
        )


@every_document
def test_generated_tables_are_current(path: Path) -> None:
    assert refresh.with_tables(read(path)) == read(path), "python docs/refresh.py mends this"


def test_every_table_is_used() -> None:
    used = {found[2] for path in DOCUMENTS for found in refresh.GENERATED.finditer(read(path))}
    assert used == set(refresh.TABLES)


@every_document
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if not target.startswith(("https://", "http://")):
            assert (path.parent / target.split("#")[0]).exists(), target


def commands(text: str) -> list[list[str]]:
    """Every ``earmark ...`` in fences and in line, as words."""
    fenced = "\n".join(refresh.fences(text, "sh") + refresh.fences(text, "console")).replace("\\\n", " ")
    fenced = re.sub(r"\n[ \t]+", " ", fenced)  # a command that goes on in the next line
    inline = re.findall(r"`(earmark [^`]+)`", text)
    found = re.findall(r"(?<![\w/'-])(?:\.venv/bin/)?(earmark [a-z][^\n&|;]*)", fenced)
    return [shlex.split(command.replace("[", " ").replace("]", " ")) for command in found + inline]


@every_document
def test_commands_and_options_exist(path: Path) -> None:
    known = get_command(app).commands
    for words in commands(read(path)):
        assert words[1] in known, " ".join(words)
        options = {option for parameter in known[words[1]].params for option in parameter.opts} | {"--help"}
        used = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
        assert used <= options, " ".join(words)


def test_commands_are_found() -> None:
    fence = "```sh\nx && .venv/bin/earmark tag a.wav --top 3 | head\nearmark info [--json]\n```\n"
    text = fence + "See `earmark models`.\n"
    assert commands(text) == [
        ["earmark", "tag", "a.wav", "--top", "3"],
        ["earmark", "info", "--json"],
        ["earmark", "models"],
    ]


def test_every_command_and_option_is_documented() -> None:
    text = "\n".join(map(read, DOCUMENTS))
    for command, entry in get_command(app).commands.items():
        assert f"earmark {command}" in text
        for parameter in entry.params:
            if parameter.opts[0].startswith("--"):
                assert parameter.opts[0] in text, f"earmark {command} {parameter.opts[0]}"


def test_the_first_two_commands_are_those_that_ci_runs() -> None:
    location = ROOT / ".ci" / "readme_command.py"
    spec = importlib.util.spec_from_file_location("readme_command", location)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, second = module.commands(read(ROOT / "README.md"))[:2]
    assert first.count("\n") == second.count("\n") == 0
    assert first.startswith("python3 -m venv .venv && ")
    assert first.endswith(f"/earmark tag {EXAMPLE.relative_to(ROOT)}")
    assert re.fullmatch(r"\.venv/bin/pip install .*-e '\.\[[a-z,]+\]' && \.venv/bin/pytest", second)


def test_example_recording_is_what_its_script_makes() -> None:
    samples, sample_rate = soundfile.read(EXAMPLE, dtype="float64")
    made = make_siren_and_bell.recording() / 32768
    assert sample_rate == make_siren_and_bell.RATE
    assert samples.shape == made.shape
    assert EXAMPLE.stat().st_size < 300_000
    shipped = ROOT / "earmark" / "hub" / "shipped" / EXAMPLE.name
    assert shipped.read_bytes() == EXAMPLE.read_bytes(), "exports are verified on it where there is no clone"
    assert np.sqrt(np.mean((samples - made) ** 2)) < 0.05 * np.sqrt(np.mean(made**2)), (
        "more than Vorbis loses"
    )


def train_page_recipe(folder: Path) -> Path:
    recipe, *_ = refresh.fences(read(ROOT / "docs" / "train.md"), "toml")
    path = folder / "my_sounds.toml"
    path.write_text(recipe, encoding="utf-8")
    return path


def test_recipe_of_the_training_page_is_valid(tmp_path: Path) -> None:
    path = train_page_recipe(tmp_path)
    assert load_recipe(path).data.folds == (1, 2)
    _, *parts = refresh.fences(read(ROOT / "docs" / "train.md"), "toml")
    [derived] = [part for part in parts if part.startswith("extends")]
    parts.remove(derived)
    assert parts
    path.write_text(path.read_text(encoding="utf-8") + "".join(parts), encoding="utf-8")
    assert load_recipe(path).teacher
    (tmp_path / "derived.toml").write_text(derived, encoding="utf-8")
    assert load_recipe(tmp_path / "derived.toml").optimizer.learning_rate == 2e-3


@pytest.mark.slow
def test_training_page_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = train_page_recipe(tmp_path)
    [manifest] = [
        text for text in refresh.fences(read(ROOT / "docs" / "train.md"), "text") if text.startswith("path,")
    ]
    (tmp_path / "clips.csv").write_text(manifest, encoding="utf-8")
    (tmp_path / "clips").mkdir()
    random = np.random.default_rng(0)
    for line in manifest.splitlines()[1:]:
        soundfile.write(line.split(",")[0], 0.1 * random.standard_normal(64_000), 32_000)
    main_code(["train", str(recipe), "--set", "optimizer.epochs=1", "--quiet"])
    folder = tmp_path / "runs" / "my_sounds"
    left = set(
        re.findall(r"[a-z]+\.(?:onnx|json|jsonl|safetensors|npy|md)\b", read(ROOT / "docs" / "train.md"))
    )
    for path in (
        "my_sounds.onnx",
        "card.md",
        *(f"fold1/{file}" for file in ("recipe.json", "log.jsonl", "scores.npy")),
    ):
        assert (folder / path).is_file()
        assert Path(path).name.replace("my_sounds", "NAME") in read(ROOT / "docs" / "train.md")
    assert {path.name for path in (folder / "fold1").iterdir()} <= left
    main_code(["tag", "clips/gate-1.wav", "--model", "runs/my_sounds/my_sounds.onnx"])
    assert "kettle" in capsys.readouterr().out


def main_code(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, f"earmark {' '.join(arguments)}"
