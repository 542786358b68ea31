"""``earmark pack``: what it says and leaves, and what mistakes look like."""

from collections.abc import Callable
from pathlib import Path

import corpora_toys
import pytest
import toy

from earmark.data.manifest import read_manifest
from earmark.data.shards.pack import load_pack

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=2, quiet=1)


@pytest.mark.parametrize("form", ["shards", "hdf5", "memmap"])
def test_a_manifest_becomes_a_pack_that_a_model_is_judged_by(
    run: Run, clips: Path, toy_model: Path, tmp_path: Path, form: str
) -> None:
    out = tmp_path / "p"
    arguments = ("pack", clips, "--out", out, "--format", form, "--sample-rate", 8000, "--workers", 1)
    code, printed, said = run(*arguments)
    assert (code, printed) == (0, "")
    assert said.splitlines()[-1].startswith(f"wrote {out}: 5 of 5 clips, ")
    assert run(*arguments, "--quiet") == (0, "", "")
    found = [run("evaluate", toy_model, table, "--threads", 1, "--quiet") for table in (clips, out)]
    numbers = [text.partition("\n")[2] for _, text, _ in found]
    assert found[1][0] == 0
    assert "map_macro" in numbers[1]
    if form != "hdf5":
        assert numbers[0] == numbers[1]


def test_bad_clips_are_said_and_the_code_is_1(run: Run, clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "clips.csv"
    table.write_text(f"path,labels\n{clips.parent}/quiet_0.wav,\nnone.wav,dog\n", encoding="utf-8")
    for _ in range(2):
        code, _, said = run("pack", table, "--out", tmp_path / "p", "--quiet", "--workers", 1)
        assert code == 1
        assert said.splitlines()[-1] == f"earmark: 1 clips are left out: {tmp_path}/p/bad.csv says why"
    assert "none.wav: there is no such file" in (tmp_path / "p" / "bad.csv").read_text(encoding="utf-8")


def test_packs_and_corpora_can_be_packed_too(run: Run, clips: Path, tmp_path: Path) -> None:
    rate = ("--sample-rate", 8000, "--workers", 1, "--quiet")
    assert run("pack", clips, "--out", tmp_path / "a", *rate)[0] == 0
    assert run("pack", tmp_path / "a", "--out", tmp_path / "b", "--format", "memmap", *rate)[0] == 0
    assert [c.labels for c in load_pack(tmp_path / "b")[1]] == [c.labels for c in read_manifest(clips)]
    corpora_toys.make_tau2020(tmp_path / "tau")
    corpus = ("--corpus", "tau2020", "--split", "train", "--out", tmp_path / "c")
    assert run("pack", tmp_path / "tau", *corpus, *rate)[0] == 0
    assert len(load_pack(tmp_path / "c")[0].labels) == 10
    corpora_toys.make_fsd50k_hdf5(tmp_path / "fsd")
    corpus = ("--corpus", "fsd50k_hdf5", "--split", "val", "--out", tmp_path / "d", "--format", "hdf5")
    assert run("pack", tmp_path / "fsd", *corpus, *rate)[0] == 0
    assert load_pack(tmp_path / "d")[0].labels[:2] == ("Accelerating_and_revving_and_vroom", "Accordion")


def test_labels_may_be_listed(run: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("tone\nbell\nnoise\n", encoding="utf-8")
    arguments = ("pack", clips, "--workers", 1, "--quiet", "--labels")
    assert run(*arguments, tmp_path / "labels.txt", "--out", tmp_path / "p")[0] == 0
    assert load_pack(tmp_path / "p")[0].labels == ("tone", "bell", "noise")
    for labels, said in (
        ("audioset", "labels of clips, first 'noise', are not among those"),
        (tmp_path / "no.txt", "no.txt: cannot be read"),
        ("audioste", "there is no label set 'audioste'"),
    ):
        code, _, error = run(*arguments, labels, "--out", tmp_path / "q")
        assert (code, said in error) == (2, True)


def test_mistakes_are_one_line(run: Run, clips: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("path,labels\nnone.wav,\n", encoding="utf-8")
    (tmp_path / "file").touch()
    for arguments, expected in (
        ((clips, "--codec", "opus"), "opus does not support 32000 Hz: choose from 8000, 12000, 16000, 24000, 48000"),
        ((clips, "--format", "hdf5", "--codec", "flac"), "format hdf5 holds mp3"),
        ((clips, "--split", "train"), "--split is for --corpus"),
        ((clips, "--corpus", "esc50", "--audio", "x"), "--audio does not go with --corpus"),
        ((tmp_path / "none.csv",), "none.csv: the manifest cannot be read"),
        ((tmp_path / "bad.csv",), "not one of 1 clips could be packed"),
        ((tmp_path,), "is no pack (it has no pack.json)"),
        ((clips, "--out", tmp_path / "file"), "is a file: name a folder"),
    ):
        code, _, said = run("pack", "--out", tmp_path / "p", *arguments, "--workers", 1)
        assert code == 2, expected
        assert expected in said.splitlines()[-1]
        assert said.splitlines()[-1].startswith("earmark: ")
