"""``earmark tag`` and ``earmark embed`` with a folder of tables as their output."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pyarrow import parquet
from toy import SAMPLE_RATE, sound

Run = Callable[..., tuple[int, str, str]]

CLIPS = 5


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of clips and one file that is none."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    for number in range(CLIPS):
        soundfile.write(
            folder / f"{number}.wav", sound(("tone", "noise")[number % 2], generator), SAMPLE_RATE
        )
    (folder / "broken.wav").write_bytes(b"RIFF" + b"x" * 100)
    return folder


def table(folder: Path, name: str) -> list[dict]:
    return parquet.read_table(folder / name).to_pylist()


def test_tables_hold_what_text_does(run: Run, clips: Path, toy_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "results"
    code, text, err = run("tag", clips, "-m", toy_model, "-o", out, "--workers", 2, "--ordered")
    assert code == 1
    assert not text
    assert f"earmark: {clips}/broken.wav: " in err
    assert f"{CLIPS} files (" in err
    assert "1 failed" in err
    files = {row["path"]: row for row in table(out, "files")}
    assert list(files) == sorted(files)
    assert len(files) == CLIPS + 1
    broken = files.pop(f"{clips}/broken.wav")
    assert broken["status"] == "failed"
    assert broken["size"] == 104
    assert broken["duration_s"] is None
    assert broken["error"].startswith(f"{clips}/broken.wav: ")
    for path, row in files.items():
        assert row["status"] == "ok"
        assert row["duration_s"] == pytest.approx(soundfile.info(path).duration)
        assert row["mtime"].timestamp() == pytest.approx(os.stat(path).st_mtime, abs=1e-5)
    _, text, _ = run("tag", clips, "-m", toy_model, "-f", "csv")
    expected = [(row["path"], row["label"], float(row["score"])) for row in csv.DictReader(io.StringIO(text))]
    assert [(row["path"], row["label"], round(row["score"], 4)) for row in table(out, "tags")] == [
        (path, label, pytest.approx(score, abs=1e-4)) for path, label, score in expected
    ]
    settings = json.loads(parquet.read_schema(out / "tags/part-00000.parquet").metadata[b"settings"])
    assert settings["window_s"] == 0.5


def test_processes_write_the_same_text(run: Run, clips: Path, toy_model: Path) -> None:
    options = ("-m", toy_model, "-f", "jsonl")
    assert run("tag", clips, *options, "--workers", 2)[1] == run("tag", clips, *options, "--threads", 1)[1]


def test_events(run: Run, clips: Path, toy_model: Path, tmp_path: Path) -> None:
    options = ("-m", toy_model, "--events", "--hop", 0.1)
    run("tag", clips / "0.wav", *options, "-o", tmp_path / "out", "--workers", 1)
    _, text, _ = run("tag", clips / "0.wav", *options, "-f", "csv", "--threads", 1)
    expected = list(csv.DictReader(io.StringIO(text)))
    found = table(tmp_path / "out", "events")
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert expected


def test_only_the_same_run_is_resumed(run: Run, clips: Path, toy_model: Path, tmp_path: Path) -> None:
    command = ("tag", clips / "1.wav", "-m", toy_model, "-o", tmp_path / "out", "--workers", 1)
    assert run(*command)[0] == 0
    code, _, err = run(*command)
    assert code == 2
    assert "holds the tables of an earlier run" in err
    code, _, err = run(*command, "--resume", "--top", 1)
    assert code == 2
    assert "top was 10, is now 1" in err
    more = ("tag", clips / "1.wav", clips / "2.wav", *command[2:], "--resume")
    code, _, err = run(*more)
    assert code == 0
    assert "1 files (" in err
    assert "1 done earlier" in err
    assert len(table(tmp_path / "out", "files")) == 2
    assert run(*command, "--force")[0] == 0
    assert len(table(tmp_path / "out", "files")) == 1


@pytest.mark.parametrize("option", ["--resume", "--force"])
def test_options_of_folders(run: Run, clips: Path, option: str, tmp_path: Path) -> None:
    code, _, err = run("tag", clips, "-o", tmp_path / "tags.csv", option)
    assert code == 2
    assert "needs an --output that is a folder" in err


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_run_loses_and_repeats_nothing(clips: Path, toy_model: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    names = []
    for number in range(600):
        names.append(tmp_path / f"{number}.wav")
        names[-1].symlink_to(clips / f"{number % CLIPS}.wav")
    listed.write_text("".join(f"{name}\n" for name in names))
    out = tmp_path / "results"
    command = [sys.executable, "-m", "earmark", "tag", str(listed), "-m", str(toy_model), "-o", str(out)]
    command += ["--workers", "2", "--resume"]
    for part in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stream = out / ".unfinished" / f"{part:05}.files.arrows"
        while process.poll() is None and not (stream.exists() and stream.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = subprocess.run(command, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr
    numbers = re.fullmatch(r"(\d+) files .+, (\d+) done earlier", last.stderr.splitlines()[-1])
    assert numbers
    done, earlier = map(int, numbers.groups())
    assert done + earlier == len(names)
    assert earlier > 0
    assert sorted(row["path"] for row in table(out, "files")) == sorted(map(str, names))
    assert len(table(out, "tags")) == 2 * len(names)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_full_disk_is_one_line_and_what_was_done_is_kept(
    clips: Path, toy_model: Path, tmp_path: Path
) -> None:
    names = [tmp_path / f"{number}.wav" for number in range(300)]
    for number, name in enumerate(names):
        name.symlink_to(clips / f"{number % CLIPS}.wav")
    out = tmp_path / "results"
    command = f"{sys.executable} -m earmark tag {tmp_path} -m {toy_model} -o {out} --workers 2"
    full = subprocess.run(["bash", "-c", f"ulimit -f 16; {command}"], capture_output=True, text=True)
    assert full.returncode == 2
    assert full.stderr.count("\n") == 1
    assert "cannot be written (File too large): what was done is kept" in full.stderr
    more = subprocess.run([*command.split(), "--resume"], capture_output=True, text=True)
    assert more.returncode == 0, more.stderr
    assert "done earlier" in more.stderr
    assert len(table(out, "files")) == len(names)


@pytest.mark.parametrize("by_window", [False, True])
def test_embeddings(run: Run, clips: Path, toy_model: Path, tmp_path: Path, by_window: bool) -> None:
    command = ("embed", clips / "0.wav", clips / "1.wav", "-m", toy_model, "--hop", 0.1)
    options = ("--by-window",) if by_window else ()
    assert run(*command, *options, "-o", tmp_path / "out", "--workers", 1)[0] == 0
    run(*command, *options, "-o", tmp_path / "e.parquet", "--threads", 1)
    found, expected = (
        parquet.read_table(path) for path in (tmp_path / "out/embeddings", tmp_path / "e.parquet")
    )
    assert found.drop(["embedding"]).to_pylist() == expected.drop(["embedding"]).to_pylist()
    one, other = (np.array(table.column("embedding").to_pylist()) for table in (found, expected))
    assert one == pytest.approx(other, abs=1e-5)
    assert len(table(tmp_path / "out", "files")) == 2
