"""``earmark export``: targets, ensembles, precisions and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from one_line import assert_one_line

import earmark
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_info
from earmark.models.checkpoint import load_checkpoint, save_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(exported, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "toy.safetensors"
    save_checkpoint(path, exported[0], info)
    return path


def scores(model: Path) -> np.ndarray:
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    return earmark.load(model).tag(noise, 8000).scores


@pytest.mark.slow
def test_a_graph_of_waveforms_of_one_length(run: Run, toy_model: Path, tmp_path: Path) -> None:
    clip, output = tmp_path / "hum.wav", tmp_path / "out" / "toy.onnx"
    soundfile.write(clip, 0.1 * np.sin(np.arange(8000) / 5), 8000)
    options = ("--waveform", "--seconds", 0.75, "--recording", clip)
    code, out, err = run("export", toy_model, "-o", output, *options)
    assert (code, err) == (0, "")
    assert "hum.wav" in out
    assert str(output) in out.splitlines()[-1]
    assert read_info(output).fixed_window
    assert run("tag", clip, "--model", output)[0] == 0
    code, _, err = run("tag", clip, "--model", output, "--window", 0.5)
    assert code == 2
    assert_one_line(err)


def test_a_checkpoint_is_fused_and_halved(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "small.safetensors"
    code, _, err = run("export", "-m", checkpoint, "--fuse", "--precision", "fp16", "-o", output)
    assert (code, err) == (0, "")
    info = load_checkpoint(output)[1]
    assert (info.arguments["fused"], info.precision) == (True, "fp16")
    assert output.stat().st_size < 0.55 * checkpoint.stat().st_size
    np.testing.assert_allclose(scores(output), scores(checkpoint), atol=1e-2)


@pytest.mark.slow
def test_layers_compute_in_8_bits(run: Run, toy_model: Path, tmp_path: Path) -> None:
    clips, output = toy.write_clips(tmp_path / "clips", clips_per_fold=8, quiet=0), tmp_path / "small.onnx"
    options = ("--precision", "int8", "--calibration-set", clips, "--max-drop", 0.5)
    code, _, err = run("export", toy_model, *options, "-o", output)
    assert (code, err) == (0, "")
    assert read_info(output).precision == "int8"
    np.testing.assert_allclose(scores(output), scores(toy_model), atol=0.2)


@pytest.mark.slow
def test_several_models_become_one_file(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "both.onnx"
    code, _, err = run("export", checkpoint, "-m", checkpoint, "-o", output, "--name", "both")
    assert (code, err) == (0, "")
    assert read_info(output).name == "both"
    np.testing.assert_allclose(scores(output), scores(checkpoint), atol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        ("a.txt",),
        ("a.onnx", "--target", "openvino"),
        ("a.onnx", "--seconds", "many"),
        ("a.onnx", "--seconds", "0"),
        ("a.onnx", "--recording", "nowhere.wav"),
        ("a.pt2",),
        ("a.onnx", "--without-epsilon"),
        ("a.safetensors", "--precision", "fp16"),
        ("a.onnx", "--precision", "fp8"),
        ("a.onnx", "--precision", "int8"),
        ("a.onnx", "--precision", "int8", "--calibration-set", "."),
        ("a.onnx", "--precision", "int8", "--calibration-set", "none.csv"),
        ("a.onnx", "--precision", "fp16", "--calibration-set", "none.csv"),
        ("a.onnx", "-m", "mn04_im"),
        ("a.onnx", "-m", "none.safetensors"),
        ("a.onnx", "-m", "mn99"),
    ],
)
def test_bad_exports_are_one_line_and_nothing_is_written(
    run: Run, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = () if "-m" in options else ("-m", toy_model)
    code, out, err = run("export", *model, "-o", *options)
    assert (code, out) == (2, "")
    assert_one_line(err)
    assert list(tmp_path.iterdir()) == []
