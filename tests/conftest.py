# ruff: noqa: E402 - matrix threads are counted when NumPy and PyTorch are loaded
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # else parallel test processes wait for each other's cores

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_model import INFO, toy_content, toy_network

import earmark.model_file.onnx_runtime  # noqa: F401 - before a test imports it with its telemetry
from earmark.cli import main
from earmark.model_file.info import ModelInfo

if TYPE_CHECKING:
    from earmark.models import Network

Run = Callable[..., tuple[int, str, str]]

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recordings and goldens that lies beside the project and is never committed."""
    if not SHARED.is_dir():
        pytest.skip("no folder 'shared' beside the project: its recordings and goldens are not committed")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is fetched, so that no test sees or changes the user's."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("EARMARK_CACHE", str(folder))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process; returns exit code, standard output and standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(map(str, arguments)))
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def info() -> ModelInfo:
    """The record of a small network with two labels; make variants of it with ``info.changed``."""
    return INFO


@pytest.fixture(scope="session")
def toy_model(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of a model file whose labels may co-occur."""
    path = tmp_path_factory.mktemp("exported") / "toy.onnx"
    path.write_bytes(toy_content(info))
    return path


@pytest.fixture(scope="session")
def toy_single_label_model(toy_model: Path, info: ModelInfo) -> Path:
    """The path of a model file with the same graph, whose classes exclude each other."""
    path = toy_model.with_name("single.onnx")
    path.write_bytes(toy_content(info.changed(name="single", task="single_label")))
    return path


@pytest.fixture(scope="session")
def exported(toy_model: Path) -> tuple["Network", Path]:
    """A network whose answers depend on what it hears, and the model file that was exported from it."""
    return toy_network(), toy_model
