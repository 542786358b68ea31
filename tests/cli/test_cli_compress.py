"""``earmark compress``: a model and what is to be done with it, to a smaller one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import toy

import earmark
from earmark.export import compress as room
from earmark.model_file.info import ModelInfo
from earmark.model_file.onnx_file import read_info
from earmark.models.checkpoint import load_checkpoint, save_checkpoint

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def checkpoint(exported, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "toy.safetensors"
    save_checkpoint(path, exported[0], info)
    return path


def scores(model: Path) -> np.ndarray:
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    return earmark.load(model).tag(noise, 8000).scores


def test_a_checkpoint_is_fused_and_halved(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    code, printed, err = run("compress", checkpoint, "--fuse", "--precision", "fp16", "--out", out)
    assert (code, err) == (0, "")
    network, info = load_checkpoint(out)
    assert info.arguments["fused"] is True
    assert info.precision == "fp16"
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"43 batch norms folded, {count:,} parameters instead of " in printed
    assert f"fp16: {count * 2 / 1024:,.2f} KiB of parameters" in printed
    assert f"wrote {out}, {out.stat().st_size:,} bytes" in printed
    assert out.stat().st_size < 0.55 * checkpoint.stat().st_size
    np.testing.assert_allclose(scores(out), scores(checkpoint), atol=1e-2)


def test_a_model_file_is_halved(run: Run, toy_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    code, printed, err = run("compress", toy_model, "--fuse", "--precision", "bf16", "--out", out)
    assert (code, err) == (0, "")
    assert "0 batch norms folded" in printed, "an export has folded them"
    assert read_info(out).precision == "bf16"
    np.testing.assert_allclose(scores(out), scores(toy_model), atol=5e-2)


def test_a_model_file_computes_in_8_bits(run: Run, toy_model: Path, tmp_path: Path) -> None:
    clips, out = toy.write_clips(tmp_path / "clips", clips_per_fold=8, quiet=0), tmp_path / "small.onnx"
    code, printed, err = run(
        "compress", toy_model, "--precision", "int8", "--clips", clips, "--bound", 0.5, "--out", out
    )
    assert (code, err) == (0, "")
    assert "60 of 60 layers in 8 bits" in printed
    assert "of mAP on 16 clips (allowed 0.5)" in printed
    assert read_info(out).precision == "int8"
    np.testing.assert_allclose(scores(out), scores(toy_model), atol=0.2)


@pytest.mark.slow
def test_a_checkpoint_becomes_a_model_file(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    assert run("compress", checkpoint, "--fuse", "--precision", "fp16", "--out", out)[0] == 0
    info = read_info(out)
    assert (info.precision, info.arguments["fused"]) == ("fp16", True)
    np.testing.assert_allclose(scores(out), scores(checkpoint), atol=1e-2)


def test_sp4ascs_way_says_that_it_is_not_exact(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.safetensors"
    code, printed, _ = run("compress", checkpoint, "--fuse", "--without-epsilon", "--out", out)
    assert code == 0
    assert "(fused without an epsilon)" in printed
    assert load_checkpoint(out)[1].provenance["fused"].endswith("an epsilon of 0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["toy.onnx", "--out", "a.onnx"], "name what to do: --fuse, --precision or --budget"),
        (["toy.onnx", "--precision", "fp16", "--without-epsilon", "--out", "a.onnx"], "goes with --fuse"),
        (["toy.onnx", "--precision", "fp16", "--out", "a.safetensors"], "a graph gives no checkpoint"),
        (["toy.onnx", "--precision", "fp8", "--out", "a.onnx"], "fp8"),
        (["mn99", "--fuse", "--out", "a.onnx"], "mn99"),
        (["toy.onnx", "--precision", "int8", "--out", "a.onnx"], "int8 and --budget need clips"),
        (["toy.onnx", "--precision", "fp16", "--clips", ".", "--out", "a.onnx"], "others do not"),
        (["toy.onnx", "--precision", "int8", "--clips", ".", "--out", "a.onnx"], "no recording"),
        (["toy.onnx", "--precision", "int8", "--clips", "b.csv", "--out", "a.onnx"], "b.csv"),
        (["toy.onnx", "--budget", "dcase2022", "--out", "a.toml"], "need clips"),
        (["toy.onnx", "--budget", "dcase2022", "--clips", ".", "--out", "a.onnx"], "name it *.toml"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    run: Run,
    toy_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.onnx").symlink_to(toy_model)
    code, printed, err = run("compress", *arguments)
    assert (code, printed) == (2, "")
    assert err.startswith("earmark: ")
    assert err.count("\n") == 1
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["toy.onnx"]


def test_answers_that_differ_too_much_are_not_written(
    run: Run, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "difference", lambda model, other: float("nan"))
    code, _, err = run("compress", toy_model, "--precision", "fp16", "--out", tmp_path / "a.onnx")
    assert code == 2
    assert "answers differ by nan once it is fp16" in err
    assert not list(tmp_path.iterdir())
