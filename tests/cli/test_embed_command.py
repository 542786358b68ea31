"""``earmark embed`` and what it writes; Tagger.embed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import earmark
from earmark.inference.embeddings import file_writer
from earmark.inference.stages import load_stages
from earmark.model_file.info import ModelInfo
from earmark.models import Network
from earmark.models.checkpoint import save_checkpoint

RATE = 8000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, toy_model: Path) -> Run:
    """Runs ``earmark embed``, with the toy model by default."""

    def call(*arguments: object, model: Path | None = toy_model) -> tuple[int, str, str]:
        chosen = [] if model is None else ["--model", str(model)]
        return run("embed", *arguments, *chosen)

    return call


def write(path: Path, seconds: float, seed: int = 0) -> Path:
    noise = 0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, noise, RATE)
    return path


def stored_in(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


@pytest.fixture
def recordings(tmp_path: Path) -> list[Path]:
    return [write(tmp_path / "a.wav", 1.2, 1), write(tmp_path / "ö.wav", 0.3, 2)]


def test_tagger_embeds_as_it_tags(toy_model: Path, recordings: list[Path]) -> None:
    tagger = earmark.load(toy_model)
    found, result = tagger.embed(recordings[0], hop_s=0.25), tagger.tag(recordings[0], hop_s=0.25)
    np.testing.assert_array_equal(found.windows, [window.embedding for window in result.windows])
    np.testing.assert_array_equal(found.clip, result.embedding)
    assert found.start_s.tolist() == [window.start_s for window in result.windows]
    assert found.end_s.tolist() == [window.end_s for window in result.windows]
    assert (found.path, found.model) == (str(recordings[0]), "toy")


def test_chosen_windows_are_those_of_the_timeline(toy_model: Path) -> None:
    tagger = earmark.load(toy_model)
    waveform = np.random.default_rng(3).standard_normal(8000).astype(np.float32) * np.float32(0.1)
    chosen = tagger.embed_windows(waveform, [0, 4000], 4000)
    np.testing.assert_allclose(chosen, tagger.embed(waveform, RATE).windows, atol=1e-5)


def test_a_row_for_each_recording(run: Run, toy_model: Path, recordings: list[Path], tmp_path: Path) -> None:
    code, out, err = run(*recordings, "--output", tmp_path / "x.npz")
    assert (code, out, err) == (0, "", "")
    stored = stored_in(tmp_path / "x.npz")
    tagger = earmark.load(toy_model)
    assert stored["path"].tolist() == list(map(str, recordings))
    assert str(stored["model"]) == "toy"
    assert stored["start_s"].tolist() == [0, 0]
    assert stored["end_s"].tolist() == pytest.approx([1.2, 0.3])
    assert stored["embedding"].dtype == np.float32
    wanted = [tagger.embed(path).clip for path in recordings]
    np.testing.assert_allclose(stored["embedding"], wanted, atol=1e-5)


def test_a_row_for_each_window(run: Run, toy_model: Path, recordings: list[Path], tmp_path: Path) -> None:
    code, _, _ = run(*recordings, "-o", tmp_path / "x.npz", "--by-window", "--window", 0.4, "--hop", 0.4)
    assert code == 0
    stored = stored_in(tmp_path / "x.npz")
    assert stored["path"].tolist() == [str(recordings[0])] * 3 + [str(recordings[1])]
    assert stored["start_s"].tolist() == pytest.approx([0, 0.4, 0.8, 0])
    assert stored["end_s"].tolist() == pytest.approx([0.4, 0.8, 1.2, 0.3])
    tagger = earmark.load(toy_model)
    wanted = [tagger.embed(path, window_s=0.4, hop_s=0.4).windows for path in recordings]
    np.testing.assert_allclose(stored["embedding"], np.concatenate(wanted), atol=1e-5)


def test_parquet_holds_the_same(run: Run, recordings: list[Path], tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")
    for name in ("x.npz", "x.parquet"):
        assert run(*recordings, "-o", tmp_path / name, "--by-window")[0] == 0
    stored, table = stored_in(tmp_path / "x.npz"), parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["path", "start_s", "end_s", "embedding"]
    assert table.schema.metadata[b"model"] == b"toy"
    assert table["path"].to_pylist() == stored["path"].tolist()
    np.testing.assert_array_equal(table["end_s"].to_numpy(), stored["end_s"])
    np.testing.assert_array_equal(np.stack(table["embedding"].to_numpy()), stored["embedding"])


def test_inner_stages(
    run: Run, exported: tuple[Network, Path], info: ModelInfo, recordings: list[Path], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "toy.safetensors"
    save_checkpoint(checkpoint, exported[0], info)
    options = ("-o", tmp_path / "x.npz", "--stage", "b5", "--stage", "mel_avgs", "--pool", "max")
    assert run(*recordings, *options, model=checkpoint) == (0, "", "")
    stored = stored_in(tmp_path / "x.npz")["embedding"]
    wanted = [load_stages(checkpoint, ["b5", "mel_avgs"], "max").embed(path).clip for path in recordings]
    np.testing.assert_allclose(stored, wanted, atol=1e-5)
    assert run(*recordings, *options[:2], "--stage", "best", model=checkpoint)[0] == 0
    code, _, err = run(*recordings, *options[:2], "--stage", "b5", "--stage", "b99", model=checkpoint)
    assert code == 2
    assert "b99" in err
    assert run(*recordings, *options, model=None)[0] == 2


def test_bad_files_do_not_end_the_run(run: Run, recordings: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    code, out, err = run(bad, *recordings, tmp_path / "missing.wav", "-o", tmp_path / "x.npz")
    assert (code, out) == (1, "")
    assert err.count("\n") == 2
    assert "bad.wav" in err
    assert "missing.wav" in err
    assert stored_in(tmp_path / "x.npz")["path"].tolist() == list(map(str, recordings))


def test_nothing_is_written_of_nothing(run: Run, tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "missing.wav", "-o", tmp_path / "x.npz")
    assert code == 2
    assert err.count("\n") == 1
    assert not (tmp_path / "x.npz").exists()


def test_a_name_of_no_format_is_refused_first(run: Run, recordings: list[Path], tmp_path: Path) -> None:
    code, _, err = run(*recordings, "-o", tmp_path / "x.csv")
    assert code == 2
    assert "x.csv" in err
    assert run(*recordings)[0] == 2


def test_parquet_without_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(earmark.MissingExtraError, match=r"earmark\[parquet\]"):
        file_writer(tmp_path / "x.parquet")
