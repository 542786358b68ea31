from pathlib import Path

import pytest
import toy

from earmark.data.manifest import Clip
from earmark.export.calibration_set import CalibrationSet, collect, find_clips
from earmark.export.source import onnx_session
from earmark.model_file.info import ModelInfo


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones and noises, and two clips of neither."""
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=10, quiet=2)


@pytest.fixture(scope="session")
def clips(manifest: Path, info: ModelInfo) -> list[Clip]:
    return find_clips([manifest], info)


@pytest.fixture(scope="session")
def clip_set(toy_model: Path, info: ModelInfo, clips: list[Clip]) -> CalibrationSet:
    return collect(onnx_session(toy_model.read_bytes()), info, clips)
