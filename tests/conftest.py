# ruff: noqa: E402 - matrix threads are counted when NumPy and PyTorch are loaded
import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # else parallel test processes wait for each other's cores

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import toy

from earmark.cli import main
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import attach_info

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
    """The record of a small network with two labels; make variants of it with ``record.changed``."""
    return ModelInfo(
        name="toy",
        labels=("tone", "noise"),
        front_end=toy.FRONT_END,
        task="multi_label",
        architecture="mn01",
        arguments={"norm_momentum": 0.2},
        window_s=0.5,
        padding="repeat",
        embedding_size=96,
        threshold=0.5,
        description="tones and noise",
        license="MIT",
        source="a test",
        metrics={"accuracy": 0.75, "per_class": {"tone": 1}},
        provenance={"seed": 0},
        card="# toy\n\nhört Töne\n",
    )


@pytest.fixture(scope="session")
def exported(info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> tuple["Network", Path]:
    """A network whose answers depend on what it hears, and the model file that was exported from it."""
    from earmark.export.export import export_model

    network = toy.lively_network(info)
    path = tmp_path_factory.mktemp("exported") / "toy.onnx"
    export_model(network, info, path)
    return network, path


@pytest.fixture(scope="session")
def toy_model(exported: tuple["Network", Path]) -> Path:
    """The path of a model file whose labels may co-occur."""
    return exported[1]


@pytest.fixture(scope="session")
def toy_single_label_model(exported: tuple["Network", Path], info: ModelInfo) -> Path:
    """The path of a model file with the same graph, whose classes exclude each other."""
    import onnx

    model = onnx.load(exported[1])
    del model.metadata_props[:]
    path = exported[1].with_name("single.onnx")
    path.write_bytes(attach_info(model.SerializeToString(), info.changed(name="single", task="single_label")))
    return path
