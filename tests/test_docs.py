"""Documentation is true: examples run, tables and links are right, what is cited exists."""

import ast
import csv
import importlib.util
import json
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import make_farm
import make_siren_and_bell
import numpy as np
import pytest
import refresh
import soundfile
from toy_model import toy_content
from typer.main import get_command

from earmark.cli import app, main
from earmark.training.config.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = refresh.documents()
EXAMPLE = ROOT / "examples" / "siren_and_bell.ogg"
NUMBER = re.compile(r"\d+\.\d+")
BAR = re.compile("█*[█▏▎▍▌▋▊▉] *")
SCORE_TOLERANCE = 0.02  # processors differ in the last digits


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def examples(kind: str) -> list:
    return [pytest.param(path, id=name(path)) for path in DOCUMENTS if refresh.fences(read(path), kind)]


PAGES = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]
"""Documents of the present; the changelog names what is gone too."""
every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name)
every_page = pytest.mark.parametrize("path", PAGES, ids=name)


@pytest.mark.parametrize("path", examples("python"))
def test_python_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, example in enumerate(refresh.fences(read(path), "python"), start=1):
        exec(compile(example, f"{name(path)}, example {number}", "exec"), names)


@pytest.mark.parametrize("path", examples("console"))
def test_console_examples_are_current(path: Path) -> None:
    for example in refresh.fences(read(path), "console"):
        printed = refresh.run(example)
        shapes = [NUMBER.sub("#", BAR.sub("=", text)) for text in (printed, example)]
        assert shapes[0] == shapes[1], "run python docs/refresh.py"
        written = [float(number) for number in NUMBER.findall(example)]
        assert [float(number) for number in NUMBER.findall(printed)] == pytest.approx(
            written, abs=SCORE_TOLERANCE
        )


@every_document
def test_generated_tables_are_current(path: Path) -> None:
    assert refresh.with_tables(read(path)) == read(path), "run python docs/refresh.py"


def table(title: str) -> list[list[str]]:
    """The rows of a committed generated table, without its head."""
    [text] = [
        found[3]
        for path in DOCUMENTS
        for found in refresh.GENERATED.finditer(read(path))
        if found[2] == title
    ]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines()]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def test_table_of_published_models_repeats_the_registry() -> None:
    registry = tomllib.loads(read(ROOT / "earmark" / "hub" / "registry.toml"))
    rows = {row[0].strip("`"): row for row in table("published")}
    assert list(rows) == list(registry["models"])
    assert sum(int(row[1]) for row in table("published summary")) == len(rows)
    assert rows["mn10_as"][4:7] == ["4.88", "0.541", "mAP 0.471"]
    for model, entry in registry["models"].items():
        for metric, score in entry.get("scores", {}).items():
            assert f"{metric} {score:g}" in rows[model][6]


def test_table_of_front_ends_has_the_published_constants() -> None:
    rows = {row[0].strip("`"): row[1:] for row in table("front ends")}
    assert rows["sample_rate"] == ["32000", "44100", "44100", "16000"]
    assert rows["n_mels"] == ["128", "256", "64", "64"]
    assert rows["hop_length"][0] == "320"
    assert set(rows) == {row[0].strip("`") for row in table("front end fields")}


FREE_KEYS = ("extends", "without", "front_end.", "model.arguments.", "data.sources.columns.")
FREE_KEYS += ("data.sources.train_filter.", "evaluation.negative_filter.")
"""Keys of recipes that another table lists, or whose names are the user's."""


def test_table_of_recipe_keys_has_every_key_in_use() -> None:
    rows = {row[0].strip("`"): row[1].strip("`") for row in table("recipe")}
    for path in refresh.recipes().values():
        used = flat(tomllib.loads(read(path)))
        assert {key for key in used if not key.startswith(FREE_KEYS)} <= set(rows), path.name
    assert rows["optimizer.batch_size"] == "32"
    assert rows["optimizer.learning_rate"] == "required"
    assert rows["augment.mixup_alpha"] == "0.0"


def flat(values: dict, prefix: str = "") -> set[str]:
    """The dotted keys of a recipe, those of lists of tables without their position."""
    keys = set()
    for key, value in values.items():
        inner = [part for part in (value if isinstance(value, list) else [value]) if isinstance(part, dict)]
        keys |= set().union(*(flat(part, f"{prefix}{key}.") for part in inner)) if inner else {prefix + key}
    return keys


def test_table_of_recipes_lists_each_recipe_once() -> None:
    files = {path.relative_to(ROOT / "recipes").as_posix() for path in (ROOT / "recipes").rglob("*.toml")}
    links = [re.search(r"\(\.\./recipes/(.*)\)", row[0])[1] for row in table("shipped recipes")]
    assert sorted(links) == sorted(files)


def test_table_of_corpora_has_every_corpus_in_use() -> None:
    names = {row[0].strip("`") for row in table("corpora")}
    used = set(re.findall(r'^corpus = "(\w+)"', "\n".join(map(read, refresh.recipes().values())), re.M))
    assert used
    assert used <= names


def test_table_of_rooms_is_the_package() -> None:
    rooms = [row[1].strip("`") for row in table("rooms")]
    folders = {path.parent.name for path in (ROOT / "earmark").glob("*/__init__.py")}
    files = {path.stem for path in (ROOT / "earmark").glob("*.py") if not path.stem.startswith("__")}
    assert sorted(rooms) == sorted(folders | files)
    assert all(row[2] for row in table("rooms"))


def test_table_of_metadata_has_what_a_model_file_stores() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(toy_content())
    [stored] = [json.loads(entry.value) for entry in model.metadata_props if entry.key == "earmark.record"]
    assert {row[0].strip("`") for row in table("model info")} == set(stored) - {"version"}


MESSAGE_LENGTH = 17  # of the text around values: enough to tell messages apart


def messages() -> list[re.Pattern]:
    """Patterns of the longer strings in the package, with any text in the place of a value."""
    found = set()
    for path in (ROOT / "earmark").rglob("*.py"):
        for node in ast.walk(ast.parse(read(path))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "" for part in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                parts = [node.value]
            else:
                continue
            if sum(map(len, parts)) >= MESSAGE_LENGTH:
                found.add(".+".join(re.escape(part) for part in parts if part))
    return [re.compile(pattern) for pattern in found]


def test_quoted_errors_exist() -> None:
    patterns = messages()
    for path in DOCUMENTS:
        for line in "".join(refresh.fences(read(path), "error")).splitlines():
            assert any(pattern.search(line) for pattern in patterns), line


REFERENCE = re.compile(r":(?:func|mod|class|meth|attr|data):`~?((?:earmark|benchmarks)\.[\w.]+)`")


def test_names_in_docstrings_exist() -> None:
    folders = (ROOT / "earmark", ROOT / "benchmarks")
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    references = {(found, path) for path in paths for found in REFERENCE.findall(read(path))}
    assert references
    for reference, path in sorted(references):
        try:
            pkgutil.resolve_name(reference)
        except (AttributeError, ModuleNotFoundError) as error:
            pytest.fail(f"{name(path)}: {error}")


@every_page
def test_recipe_keys_exist(path: Path) -> None:
    known = {row[0].strip("`") for row in table("recipe")}
    sections = {key.split(".")[0] for key in known if "." in key} - {"model"}
    for key in re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_.]+)\b(?![(/])", read(path)):
        assert key in known or any(name.startswith(f"{key}.") for name in known), key


def test_every_table_is_used() -> None:
    used = {found[2] for path in DOCUMENTS for found in refresh.GENERATED.finditer(read(path))}
    assert used == set(refresh.TABLES)


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", read(path), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_links_have_targets(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if not target.startswith(("https://", "http://")):
            file, _, anchor = target.partition("#")
            page = path.parent / file if file else path
            assert page.exists(), target
            assert not anchor or anchor in anchors(page), target


def commands(text: str) -> list[list[str]]:
    """Every ``earmark ...`` in fences and in line, as words."""
    fenced = "\n".join(refresh.fences(text, "sh") + refresh.fences(text, "console")).replace("\\\n", " ")
    fenced = re.sub(r"\n[ \t]+", " ", fenced)  # a command that goes on in the next line
    inline = re.findall(r"`(earmark [^`]+)`", text)
    found = re.findall(r"(?<![\w/'-])(?:\.venv/bin/)?(earmark [a-z][^\n&|;]*)", fenced)
    return [shlex.split(command.replace("[", " ").replace("]", " ")) for command in found + inline]


def test_install_page_lists_every_extra() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|.*\| ([^|]+) \|$", read(ROOT / "docs" / "install.md"), re.M)
    listed = [name for names, _ in rows for name in re.findall(r"`(\w+)`", names)]
    assert sorted(listed) == sorted(project["optional-dependencies"])


@every_page
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
    assert first.endswith("/earmark tag examples/farm.ogg")
    assert re.fullmatch(
        r"\.venv/bin/pip install .*-e '\.\[[a-z,]+\]' && \.venv/bin/pytest -n 2 --dist loadfile", second
    )


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


def test_recording_of_the_readme_is_what_its_script_makes_of_free_sounds(shared: Path) -> None:
    example = ROOT / "examples" / "farm.ogg"
    clips = shared / "data" / "esc18"
    samples, sample_rate = soundfile.read(example, dtype="float32")
    made = make_farm.recording(clips / "audio")
    assert sample_rate == make_farm.RATE
    assert samples.shape == made.shape
    assert example.stat().st_size < 150_000
    assert np.corrcoef(samples, made)[0, 1] > 0.9
    with (clips / "meta.csv").open(encoding="utf-8", newline="") as lines:
        table = {row["filename"].removesuffix(".ogg"): row for row in csv.DictReader(lines)}
    names = read(ROOT / "examples" / "README.md")
    for name in [clip[0] for scene in make_farm.SCENES for clip in scene]:
        assert table[name]["license"] == "CC0"
        assert f"/{table[name]['author']}/sounds/{table[name]['src_file']}/" in names


def train_page_recipe(folder: Path) -> Path:
    recipe, *_ = refresh.fences(read(ROOT / "docs" / "train.md"), "toml")
    path = folder / "my_sounds.toml"
    path.write_text(recipe, encoding="utf-8")
    return path


def test_recipe_of_the_training_page_is_valid(tmp_path: Path) -> None:
    path = train_page_recipe(tmp_path)
    assert load_recipe(path).data.folds == (1, 2)
    _, *parts = refresh.fences(read(ROOT / "docs" / "train.md"), "toml")
    derived = []
    for part in [part for part in parts if part.startswith("extends")]:
        parts.remove(part)
        (tmp_path / "derived.toml").write_text(part, encoding="utf-8")
        derived.append(load_recipe(tmp_path / "derived.toml"))
    wide, pretraining, probe = derived
    assert wide.optimizer.learning_rate == 2e-3
    assert pretraining.contrastive
    assert probe.optimizer.backbone_lr_scale == 0
    assert parts
    path.write_text(path.read_text(encoding="utf-8") + "".join(parts), encoding="utf-8")
    assert load_recipe(path).teacher


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
    [program] = refresh.fences(read(ROOT / "docs" / "train.md"), "py")
    exec(program.replace("epochs=60", "epochs=1"), {})
    main_code(["train", str(recipe), "--set", "optimizer.epochs=1", "--quiet"])  # which is complete
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
