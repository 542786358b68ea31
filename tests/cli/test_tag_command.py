"""``earmark tag``: formats, options, and files that cannot be tagged."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from one_line import assert_one_line

RATE = 8000


def write(path: Path, seconds: float = 0.7, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.2 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, noise, RATE)
    return path


@pytest.fixture
def run(run: Callable[..., tuple[int, str, str]], toy_model: Path):
    """As in conftest.py; tags with the toy model by default."""

    def call(*arguments: object, model: bool = True) -> tuple[int, str, str]:
        chosen = ["--model", str(toy_model)] if model and arguments[0] == "tag" else []
        return run(*arguments, *chosen)

    return call


def test_table(run, tmp_path: Path) -> None:
    code, out, err = run("tag", write(tmp_path / "öl.wav"))
    assert (code, err) == (0, "")
    assert "öl.wav" in out
    assert out.count("0.") >= 2
    assert "tone" in out
    assert "noise" in out


def test_a_table_fits_the_terminal(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", 3)
    monkeypatch.chdir(tmp_path)
    tables = []
    for encoding in ("utf-8", "ascii"):
        monkeypatch.setenv("PYTHONIOENCODING", encoding)
        monkeypatch.setenv("COLUMNS", "50")
        tables.append(run("tag", path.name)[1])
        assert max(map(len, tables[-1].splitlines())) <= 50
    assert "\u2588" in tables[0]
    assert tables[1].isascii()
    assert "#" in tables[1]


def test_json_has_one_entry_a_file(run, tmp_path: Path) -> None:
    paths = [write(tmp_path / name, 1.2, seed) for seed, name in enumerate(("a.wav", "b.flac", "c.ogg"))]
    code, out, _ = run("tag", *paths, "--format", "json", "--top", 1)
    results = json.loads(out)
    assert code == 0
    assert [result["path"] for result in results] == [str(path) for path in paths]
    for result in results:
        head = {"path", "duration_s", "sample_rate", "model", "calibrated"}
        assert set(result) == head | {"tags", "windows", "warnings"}
        assert [set(tag) for tag in result["tags"]] == [{"label", "score", "start_s", "end_s"}]
        assert result["sample_rate"] == RATE
        assert result["duration_s"] == pytest.approx(1.2, abs=0.01)
        assert [window["start_s"] for window in result["windows"]] == pytest.approx([0.0, 0.5, 0.7], abs=0.01)


def test_jsonl_and_csv_hold_the_same(run, tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.wav", seed=1), write(tmp_path / "b.wav", seed=2)]
    _, lines, _ = run("tag", *paths, "--format", "jsonl")
    _, table, _ = run("tag", *paths, "--format", "csv")
    expected = [
        (a["path"], t["label"], t["score"]) for a in map(json.loads, lines.splitlines()) for t in a["tags"]
    ]
    rows = [(r["path"], r["label"], float(r["score"])) for r in csv.DictReader(io.StringIO(table))]
    assert rows == expected
    assert len(rows) == 4


def test_window_hop_and_threshold(run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 2.0)
    _, out, _ = run("tag", path, "--format", "json", "--window", 1.0, "--hop", 0.25)
    result = json.loads(out)[0]
    assert [window["start_s"] for window in result["windows"]] == [0.0, 0.25, 0.5, 0.75, 1.0]
    middle = sum(tag["score"] for tag in result["tags"]) / 2
    _, out, _ = run("tag", path, "--format", "json", "--window", 1.0, "--hop", 0.25, "--threshold", middle)
    assert len(json.loads(out)[0]["tags"]) == 1
    code, out, _ = run("tag", path, "--format", "json", "--threshold", "auto")
    assert code == 0
    assert all(tag["score"] >= 0.5 for tag in json.loads(out)[0]["tags"])


def test_output_is_written_whole(run, tmp_path: Path) -> None:
    target = tmp_path / "out" / "tags.csv"
    code, out, _ = run("tag", write(tmp_path / "a.wav"), "--format", "csv", "--output", target)
    assert (code, out) == (0, "")
    assert target.read_text().startswith("path,label,score,start_s,end_s,calibrated\n")
    assert [path.name for path in target.parent.iterdir()] == ["tags.csv"]


def test_folders(run, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    write(folder / "b.wav")
    write(folder / "a.flac")
    write(folder / "deep" / "c.wav")
    (folder / "notes.txt").write_text("no audio")
    _, out, _ = run("tag", folder, "--format", "jsonl")
    assert [Path(json.loads(line)["path"]).name for line in out.splitlines()] == ["a.flac", "b.wav"]
    _, out, _ = run("tag", folder, "--format", "jsonl", "--recursive")
    assert [Path(json.loads(line)["path"]).name for line in out.splitlines()] == ["a.flac", "b.wav", "c.wav"]


def test_bad_files_do_not_end_the_run(run, tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav")
    text, empty, nothing = tmp_path / "text.wav", tmp_path / "empty.wav", tmp_path / "nothing"
    text.write_text("this is not audio" * 100)
    empty.write_bytes(b"")
    nothing.mkdir()
    nan = tmp_path / "nan.wav"
    soundfile.write(nan, np.full(RATE, np.nan, np.float32), RATE, subtype="FLOAT")
    bad = [tmp_path / "missing.wav", text, empty, nothing, nan]
    code, out, err = run("tag", *bad, good, "--format", "json")
    assert code == 1
    assert [result["path"] for result in json.loads(out)] == [str(good)]
    lines = err.splitlines()
    assert len(lines) == len(bad)
    for line, path in zip(lines, bad, strict=True):
        assert_one_line(line + "\n", str(path))


def test_nothing_tagged_is_code_2(run, tmp_path: Path) -> None:
    code, out, err = run("tag", tmp_path / "missing.wav", "--format", "json")
    assert code == 2
    assert json.loads(out) == []
    assert_one_line(err, "missing.wav")


def test_damaged_model(run, toy_model: Path, tmp_path: Path) -> None:
    content = bytearray(toy_model.read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(bytes(content))
    code, _, err = run("tag", write(tmp_path / "a.wav"), "--model", damaged, model=False)
    assert code == 2
    assert_one_line(err, "damaged.onnx", "SHA-256")
