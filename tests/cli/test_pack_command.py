"""``earmark pack``: what it writes, skips and refuses."""

from collections.abc import Callable
from pathlib import Path

import corpora_toys
import pytest
import toy
from one_line import assert_one_line

from earmark.data.manifest import read_manifest
from earmark.data.shards.pack import load_pack

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=2, quiet=1)


@pytest.mark.parametrize("form", ["shards", "hdf5", "memmap"])
def test_a_model_is_evaluated_on_a_pack_as_on_its_manifest(
    run: Run, clips: Path, toy_model: Path, tmp_path: Path, form: str
) -> None:
    pack = tmp_path / "p"
    arguments = ("pack", clips, "--output", pack, "--format", form, "--sample-rate", 8000, "--workers", 1)
    code, out, err = run(*arguments)
    assert (code, out) == (0, "")
    assert "5 of 5 clips" in err.splitlines()[-1]
    assert run(*arguments, "--quiet") == (0, "", "")
    found = [run("evaluate", table, "-m", toy_model, "--threads", 1, "--quiet") for table in (clips, pack)]
    numbers = [text.partition("\n")[2] for _, text, _ in found]
    assert found[1][0] == 0
    assert "map_macro" in numbers[1]
    if form != "hdf5":
        assert numbers[0] == numbers[1]


def test_bad_clips_are_skipped_and_the_code_is_1(run: Run, clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"path,labels\n{clips.parent}/quiet_0.wav,\nnone.wav,dog\n", encoding="utf-8")
    for _ in range(2):
        code, _, err = run("pack", table, "--output", tmp_path / "p", "--quiet", "--workers", 1)
        assert code == 1
        assert f"skipped 1 clips, see {tmp_path}/p/bad.csv" in err.splitlines()[-1]
    assert "none.wav" in (tmp_path / "p" / "bad.csv").read_text(encoding="utf-8")


def test_packs_and_corpora_can_be_packed_too(run: Run, clips: Path, tmp_path: Path) -> None:
    rate = ("--sample-rate", 8000, "--workers", 1, "--quiet")
    assert run("pack", clips, "--output", tmp_path / "a", *rate)[0] == 0
    assert run("pack", tmp_path / "a", "--output", tmp_path / "b", "--format", "memmap", *rate)[0] == 0
    assert [c.labels for c in load_pack(tmp_path / "b")[1]] == [c.labels for c in read_manifest(clips)]
    corpora_toys.make_tau2020(tmp_path / "tau")
    corpus = ("--corpus", "tau2020", "--split", "train", "--output", tmp_path / "c")
    assert run("pack", tmp_path / "tau", *corpus, *rate)[0] == 0
    assert len(load_pack(tmp_path / "c")[0].labels) == 10
    corpora_toys.make_fsd50k_hdf5(tmp_path / "fsd")
    corpus = ("--corpus", "fsd50k_hdf5", "--split", "val", "--output", tmp_path / "d", "--format", "hdf5")
    assert run("pack", tmp_path / "fsd", *corpus, *rate)[0] == 0
    assert load_pack(tmp_path / "d")[0].labels[:2] == ("Accelerating_and_revving_and_vroom", "Accordion")


def test_labels_may_be_listed(run: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("tone\nbell\nnoise\n", encoding="utf-8")
    arguments = ("pack", clips, "--workers", 1, "--quiet", "--labels")
    assert run(*arguments, tmp_path / "labels.txt", "--output", tmp_path / "p")[0] == 0
    assert load_pack(tmp_path / "p")[0].labels == ("tone", "bell", "noise")
    for labels in ("audioset", tmp_path / "no.txt", "audioste"):
        assert run(*arguments, labels, "--output", tmp_path / "q")[0] == 2


def test_mistakes_are_one_line(run: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("path,labels\nnone.wav,\n", encoding="utf-8")
    (tmp_path / "file").touch()
    for arguments in (
        (clips, "--codec", "wav"),
        (clips, "--format", "hdf5", "--codec", "flac"),
        (clips, "--split", "train"),
        (clips, "--corpus", "esc50", "--audio", "x"),
        (tmp_path / "none.csv",),
        (tmp_path / "bad.csv",),
        (tmp_path,),
        (clips, "--output", tmp_path / "file"),
    ):
        code, _, err = run("pack", "--output", tmp_path / "p", *arguments, "--workers", 1)
        assert code == 2, arguments
        assert_one_line(err.splitlines()[-1] + "\n")
