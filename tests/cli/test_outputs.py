"""What commands write to: never an input, never half a file, never in place of a pipe or a device."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from one_line import assert_one_line

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", 0.2 * np.random.default_rng(0).standard_normal(4000), 8000)
    return tmp_path / "a.wav"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=2, quiet=1)


@pytest.fixture
def refused(run: Run) -> Callable[..., None]:
    """Runs a command that must refuse to overwrite a file, which stays."""

    def call(path: Path, *arguments: object) -> None:
        before = path.read_bytes()
        code, out, err = run(*arguments)
        assert (code, out) == (2, ""), arguments
        assert_one_line(err, "the output is the input", "choose another output")
        assert path.read_bytes() == before

    return call


def test_tag_never_overwrites_what_it_reads(refused, clip: Path, toy_model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to(clip)
    (tmp_path / "hard.csv").hardlink_to(clip)
    for output in (clip, tmp_path / "link.csv", tmp_path / "hard.csv"):
        refused(clip, "tag", clip, "-m", toy_model, "-o", output)
    refused(clip, "tag", tmp_path, "-m", toy_model, "-o", clip)  # found in a folder
    refused(toy_model, "tag", clip, "-m", toy_model, "-o", toy_model)


def test_nor_do_the_others(refused, clips: Path, toy_model: Path, tmp_path: Path) -> None:
    refused(toy_model, "export", toy_model, "-o", toy_model)
    refused(toy_model, "calibrate", clips, "-m", toy_model, "-o", toy_model)
    refused(clips, "pack", clips, "-o", clips.parent)
    table = tmp_path / "scores.csv"
    table.write_bytes(clips.read_bytes())
    refused(table, "evaluate", table, "--audio", clips.parent, "-m", toy_model, "-o", tmp_path)
    table = table.rename(tmp_path / "report.json")
    refused(table, "report", toy_model, "--dataset", table, "--audio", clips.parent, "-o", tmp_path)
    refused(table, "teach", table, "-m", toy_model, "-o", table)
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    arguments = ("--architecture", "mn04", "--argument", "num_classes=2", "--task", "multi_label")
    refused(weights, "convert", weights, *arguments, "-o", tmp_path / "w.onnx")


def test_a_failed_command_replaces_nothing(run: Run, clip: Path, toy_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "tags.csv"
    output.write_text("before")
    for arguments in (["missing.wav"], [clip, "--label", "cat"], [clip, "--window", "1e9"]):
        assert run("tag", *arguments, "-m", toy_model, "-o", output)[0] == 2
        assert output.read_text() == "before"
    assert run("tag", "missing.wav", clip, "-m", toy_model, "-f", "csv", "-o", output)[0] == 1
    assert output.read_text().count(str(clip)) == 2
    assert run("embed", "missing.wav", "-m", toy_model, "-o", tmp_path / "e.npz")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.wav", "tags.csv"]


def test_links_are_followed_and_devices_stay(run: Run, clip: Path, toy_model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("real.csv")
    for output in (tmp_path / "link.csv", "/dev/null"):
        assert run("tag", clip, "-m", toy_model, "-f", "csv", "-o", output) == (0, "", "")
    assert (tmp_path / "link.csv").is_symlink()
    assert len((tmp_path / "real.csv").read_text().splitlines()) == 3
    assert not Path("/dev/null").is_file()


def test_a_shell_goes_on_writing_where_a_command_has(clip: Path, toy_model: Path, tmp_path: Path) -> None:
    tag = f"{sys.executable} -m earmark tag {clip} -m {toy_model} --threads 1 -f csv"
    command = f"(echo before; {tag} -o /dev/stdout; echo after) > out.csv; {tag} -o /dev/stdout | wc -l"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("before", 5, "after")
    assert (done.stdout.strip(), done.stderr) == ("3", "")


def test_warnings_of_a_run_name_their_file(run: Run, clip: Path, toy_model: Path, tmp_path: Path) -> None:
    cut, table = tmp_path / "cut.wav", tmp_path / "clips.csv"
    cut.write_bytes(clip.read_bytes()[:-2001])
    table.write_text("path,labels\na.wav,tone\ncut.wav,noise\n")
    for arguments in (
        ["tag", clip, cut, clip],
        ["embed", clip, cut, "-o", tmp_path / "e.npz"],
        ["evaluate", table],
    ):
        code, _, err = run(*arguments, "-m", toy_model)
        assert code == 0
        assert_one_line(err, f"earmark: warning: {cut}: ")
        assert err.count("cut.wav") == 1
        assert run(*arguments, "-m", toy_model, "--quiet")[2] == ""


def test_errors_of_the_system_name_the_file(run: Run, clip: Path, toy_model: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    code, _, err = run("tag", clip, "-m", toy_model, "-f", "csv", "-o", tmp_path / "folder")
    assert code == 2
    assert_one_line(err, f"{tmp_path}/folder: Is a directory")
    code, _, err = run("embed", clip, "-m", toy_model, "-o", clip / "e.npz")
    assert code == 2
    assert_one_line(err, str(clip))
    if os.path.exists("/dev/full"):
        code, _, err = run("tag", clip, "-m", toy_model, "-o", "/dev/full")
        assert code == 2
        assert_one_line(err, "/dev/full: No space left on device")
