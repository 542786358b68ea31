"""The rules of the house: who may import whom, what an import may change, what a public name owes."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import earmark

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "earmark"
MODULES = sorted(PACKAGE.rglob("*.py"))

LAYERS = (
    ("errors", "version"),
    ("audio", "features"),
    ("model_file",),
    ("events",),
    ("models", "data"),
    ("hub",),
    ("inference", "plots"),
    ("evaluation", "batch"),
    ("search", "integrations", "export"),
    ("training", "serve"),
    ("custom",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Rooms from the bottom up; a room imports itself and rooms of lower layers only."""
LAYER = {room: number for number, layer in enumerate(LAYERS) for room in layer}
PACKAGES = {
    "audio": {"numpy", "soundfile", "soxr", "av", "sounddevice", "fsspec"},
    "features": {"numpy"},
    "model_file": {"numpy", "onnxruntime"},
    "models": {"msgpack", "numpy", "torch", "safetensors", "onnx", "onnxscript"},
    "data": {"numpy", "torch", "h5py", "PIL"},
    "events": {"numpy", "paho", "pyarrow"},
    "hub": {"numpy", "torch"},
    "inference": {"numpy", "openvino", "pyarrow", "torch"},
    "batch": {"numpy", "pyarrow", "fsspec", "ray"},
    "search": {"numpy", "pyarrow", "fsspec", "usearch"},
    "custom": {"numpy", "scipy", "cleanlab", "torch"},
    "integrations": {"numpy", "torch"},
    "plots": {"numpy", "matplotlib", "PIL"},
    "evaluation": {"numpy", "torch", "scipy"},
    "export": {
        "numpy",
        "torch",
        "onnx",
        "onnxruntime",
        "openvino",
        "nncf",
        "litert_torch",
        "ai_edge_litert",
        "tomli_w",
    },
    "training": {
        "numpy",
        "torch",
        "safetensors",
        "pydantic",
        "tomli_w",
        "ai_edge_litert",
        "transformers",
        "wandb",
    },
    "serve": {
        "numpy",
        "fastapi",
        "starlette",
        "uvicorn",
        "pydantic",
        "prometheus_client",
        "python_multipart",
    },
    "cli": {"typer", "rich", "torch"},
}
"""Room -> packages of others that it may import."""
BASE_PACKAGES = {"numpy", "soundfile", "_soundfile", "_soundfile_data", "soxr", "_cffi_backend"}
BASE_PACKAGES |= {"cffi", "typing_extensions"}  # what those need
EAGER_IN_CLI = {"audio", "cli", "errors", "events", "features", "inference", "model_file", "version"}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported in a tree, whether at once, later, or for the type checker only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module
            if node.module == "earmark":
                yield from (f"earmark.{alias.name}" for alias in node.names)
            else:
                yield node.module


def rooms_and_packages(tree: ast.AST) -> tuple[set[str], set[str]]:
    found = {tuple(name.split(".")) for name in imports(tree)}
    rooms = {parts[1] for parts in found if parts[0] == "earmark" and len(parts) > 1}
    packages = {parts[0] for parts in found} - {"earmark"} - set(sys.stdlib_module_names)
    return rooms, packages


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_room_has_a_layer() -> None:
    assert {room(path) for path in MODULES} == set(LAYER)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports(path: Path) -> None:
    here = room(path)
    rooms, packages = rooms_and_packages(parsed(path))
    upward = {one for one in rooms - {here} if LAYER[one] >= LAYER[here]}
    assert not upward, f"{here} must not import {upward}"
    extra = packages - PACKAGES.get(here, set())
    assert not extra, f"{here} must not import {extra}"


def test_onnx_runtime_is_imported_in_one_place() -> None:
    """Its telemetry is off only there; the tools of its quantisation come after it."""
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in MODULES
        if "onnxruntime" in set(imports(parsed(path)))
    }
    assert found == {"model_file/onnx_runtime.py"}


def test_commands_import_what_they_need_themselves() -> None:
    for path in (PACKAGE / "cli").glob("*.py"):
        eager = [
            node
            for node in parsed(path).body
            if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
            and not isinstance(node, ast.FunctionDef)
        ]
        rooms, packages = rooms_and_packages(ast.Module(eager, []))
        assert rooms <= EAGER_IN_CLI, path.name
        assert packages <= {"typer"}, path.name


def test_no_module_acts_when_it_is_imported() -> None:
    forbidden = re.compile(
        r"\b(print|open|urlopen|set_num_threads|simplefilter|filterwarnings|basicConfig)\("
    )
    for path in MODULES:
        for node in parsed(path).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if isinstance(node, (ast.Expr, ast.Assign, ast.AnnAssign)) and not is_text:
                assert not forbidden.search(ast.unparse(node)), f"{path.name}, line {node.lineno}"


PROBE = """
import json, os, sys, threading, warnings

def threads():
    folder = "/proc/self/task"
    return len(os.listdir(folder)) if os.path.isdir(folder) else threading.active_count()

def packages():
    return sorted({name.split(".")[0] for name in sys.modules} - set(sys.stdlib_module_names))

before = packages(), dict(os.environ), list(warnings.filters), threads()
import earmark
after = packages(), dict(os.environ), list(warnings.filters), threads()
for name in set(earmark.__all__) - {"train", "evaluate", "Evaluation", "EvaluationOptions"}:
    getattr(earmark, name)
print(json.dumps({
    "new": sorted(set(after[0]) - set(before[0])),
    "same": [before[i] == after[i] for i in (1, 2, 3)],
    "all": sorted(set(packages()) - set(before[0])),
    "environment": dict(os.environ) == before[1],
}))
"""


def test_importing_earmark_loads_and_changes_nothing() -> None:
    # A bare environment: earmark is imported here already, and what it may have set would be inherited.
    environment = {"PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    reported = json.loads(done.stdout)
    assert reported["new"] == ["earmark"]
    assert reported["same"] == [True, True, True], "environment, warning filters, threads"
    assert set(reported["all"]) - {"earmark"} <= BASE_PACKAGES, (
        "looking up every public name loads more than it needs"
    )
    assert reported["environment"]


def test_the_command_line_comes_before_numpy() -> None:
    # A command decides how many threads NumPy's matrix library takes, which counts only before it is loaded.
    probe = "import sys, earmark.cli; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", sorted(set(earmark.__all__) - {"__version__"}))
def test_public_names_are_documented(name: str) -> None:
    public = getattr(earmark, name)
    assert public.__doc__
    assert not public.__doc__.startswith(f"{name}("), "this docstring was written by a machine"
    if not inspect.isclass(public):
        return
    for member, value in vars(public).items():
        if not member.startswith("_") and (inspect.isroutine(value) or isinstance(value, property)):
            assert inspect.getdoc(value), f"{name}.{member} has no docstring"


def test_exported_members() -> None:
    """Type checkers see the names that are looked up at run time, each where it is defined."""
    checked = next(node for node in parsed(PACKAGE / "__init__.py").body if isinstance(node, ast.If))
    imported = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imported for alias in node.names}
    assert sorted({*homes, "__version__"}) == earmark.__all__ == dir(earmark)
    for name, home in homes.items():
        assert getattr(earmark, name).__module__ == home
    with pytest.raises(AttributeError, match="no attribute 'shout'"):
        _ = earmark.shout


def test_a_name_that_needs_pytorch_names_its_extra() -> None:
    probe = "import sys; sys.modules['torch'] = None; import earmark; earmark.train"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert "earmark.train needs" in done.stderr
    assert "pip install 'earmark[train]'" in done.stderr


def test_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == earmark.__version__


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert all("+" not in version for version in pins.values()), "a local version is on no index"
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = project()["optional-dependencies"].values()
    for text in [*project()["dependencies"], *(text for extra in extras for text in extra)]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text


def test_extras_that_are_named_exist() -> None:
    sources = [*MODULES, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    named = set(re.findall(r"earmark\[(\w+)\]", text))
    named |= set(re.findall(r"""(?:MissingExtraError|\bextra)\([^()]*, "(\w+)"\)""", text))
    assert {"train", "parquet"} <= named <= set(project()["optional-dependencies"])


def test_names_of_test_files_are_unique() -> None:
    """Pytest imports test files by their names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
