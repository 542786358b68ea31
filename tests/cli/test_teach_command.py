"""``earmark teach``: stored predictions, continued runs and errors."""

import csv
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import corpora_toys
import numpy as np
import pytest
import refresh
import soundfile
import toy
from one_line import assert_one_line

import earmark
from earmark.data.corpora import load_corpus
from earmark.data.manifest import Clip, clips_hash
from earmark.model_file.info import ModelInfo
from earmark.models.checkpoint import save_checkpoint
from earmark.training.config.learning import Teacher
from earmark.training.distill import precompute as teaching
from earmark.training.distill.stored_predictions import StoredPredictions

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_clips(tmp_path_factory.mktemp("clips"), clips_per_fold=2, quiet=1)


@pytest.fixture
def teach(run: Run, clips: Path, toy_model: Path, tmp_path: Path) -> Run:
    """Runs ``earmark teach`` on the toy clips, with the toy model by default."""

    def call(*arguments: object, model: tuple[object, ...] = (toy_model,), manifest: Path = clips) -> tuple:
        chosen = [part for one in model for part in ("--model", one)]
        return run("teach", manifest, *chosen, "--threads", 1, *arguments)

    return call


def ids_of(manifest: Path) -> list[str]:
    with manifest.open(newline="", encoding="utf-8") as stream:
        return [Path(row["path"]).stem for row in csv.DictReader(stream)]


def with_a_bad_clip(manifest: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in manifest.parent.glob("*.wav"):
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "fold1_1_noise.wav").write_bytes(b"no sound")
    (folder / "clips.csv").write_bytes(manifest.read_bytes())
    return folder / "clips.csv"


@pytest.mark.parametrize("option", [[], ["--logits"], ["--scores"]])
def test_the_predictions_for_each_clip_are_stored(
    teach: Run, clips: Path, toy_model: Path, tmp_path: Path, option: list[str]
) -> None:
    code, out, err = teach("--output", tmp_path / "a.npz", *option)
    assert (code, out) == (0, "")
    assert "5 of 5 clips" in err.splitlines()[-1]
    outputs = StoredPredictions(tmp_path / "a.npz")
    assert outputs.header.labels == ("tone", "noise")
    assert outputs.header.kind == ("scores" if option == ["--scores"] else "logits")
    assert (outputs.header.task, len(outputs.header.manifests[0])) == ("multi_label", 64)
    assert outputs.header.teachers[0]["name"] == "toy"
    ids = ids_of(clips)
    stored = outputs.read(outputs.find(ids))
    scores = stored if option == ["--scores"] else 1 / (1 + np.exp(-stored))
    tagger = earmark.load(toy_model)
    for name, row in zip(ids, scores, strict=True):
        path = clips.parent / f"{name}.wav"
        if soundfile.info(path).duration <= tagger.info.window_s:  # the tagger takes the maximum of several
            np.testing.assert_allclose(row, tagger.tag(path).scores, atol=2e-3)


def test_the_predictions_of_an_ensemble_are_averaged(
    teach: Run, exported: tuple, info: ModelInfo, toy_model: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "toy.safetensors"
    save_checkpoint(checkpoint, exported[0], info)
    paths = [tmp_path / f"{number}.npz" for number in range(2)]
    assert teach("--output", paths[0], "--quiet") == (0, "", "")
    assert teach("--output", paths[1], "--quiet", model=(checkpoint, toy_model))[0] == 0
    one, both = (StoredPredictions(path) for path in paths)
    assert both.header.teachers[0]["name"] == "toy+toy"
    np.testing.assert_allclose(both.read(np.arange(5)), one.read(np.arange(5)), atol=5e-3)


def test_a_bad_clip_is_skipped(teach: Run, clips: Path, tmp_path: Path) -> None:
    manifest = with_a_bad_clip(clips, tmp_path / "bad")
    code, _, err = teach("--output", tmp_path / "a.npz", manifest=manifest)
    assert code == 1
    assert "fold1_1_noise.wav" in err
    assert "4 of 5 clips" in err.splitlines()[-1]
    assert StoredPredictions(tmp_path / "a.npz").find(ids_of(clips)).tolist().count(-1) == 1


def test_an_interrupted_run_is_continued(
    teach: Run, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = with_a_bad_clip(clips, tmp_path / "bad")
    folder, arguments = tmp_path / "teacher", ("--shard-clips", 2, "--quiet", "--output")
    read_ids: list[str] = []
    read = teaching.read_clip

    def interrupted(clip: Clip, rate: int) -> np.ndarray:
        read_ids.append(clip.id)
        if len(read_ids) == 4:
            raise KeyboardInterrupt
        return read(clip, rate)

    monkeypatch.setattr(teaching, "read_clip", interrupted)
    assert teach(*arguments, folder, manifest=manifest)[0] == 130
    assert [path.name for path in folder.iterdir()] == ["shard_00000.npz"]
    begun = (folder / "shard_00000.npz").read_bytes()
    assert teach(*arguments, folder, manifest=manifest)[0] == 1
    assert read_ids == (ids := ids_of(clips))[:4] + ids[2:]
    assert (folder / "shard_00000.npz").read_bytes() == begun
    assert [path.name for path in sorted(folder.iterdir())] == [f"shard_0000{n}.npz" for n in range(3)]
    assert StoredPredictions(folder).find(ids).tolist() == [0, -1, 1, 2, 3]
    # complete: nothing is read again, and the skipped clip still counts
    assert teach(*arguments, folder, manifest=manifest)[0] == 1
    assert len(read_ids) == 7


def test_rows_of_an_hdf5_file(teach: Run, clips: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="earmark[hdf5] is not installed")
    sounds = [clips.parent / f"{name}.wav" for name in ids_of(clips)[:2]]
    with h5py.File(tmp_path / "c.hdf", "w") as file:
        kind = h5py.special_dtype(vlen=np.dtype("uint8"))
        rows = file.create_dataset("mp3", (2,), kind)
        for row, sound in enumerate(sounds):
            rows[row] = np.frombuffer(sound.read_bytes(), np.uint8)
    manifest = tmp_path / "rows.csv"
    manifest.write_text("path,labels,member,id\nc.hdf,,0,first\nc.hdf,,1,second\n", encoding="utf-8")
    assert teach("--output", tmp_path / "a.npz", "--quiet")[0] == 0
    assert teach("--output", tmp_path / "b.npz", "--quiet", manifest=manifest)[0] == 0
    files, members = (StoredPredictions(tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(
        members.read(members.find(["first", "second"])), files.read(files.find(ids_of(clips)[:2]))
    )


def test_predictions_of_another_run_are_not_mixed_in(teach: Run, clips: Path, tmp_path: Path) -> None:
    assert teach("--output", tmp_path / "t", "--quiet")[0] == 0
    for changes in (["--scores"], ["--shard-clips", 3]):
        code, _, err = teach("--output", tmp_path / "t", *changes)
        assert code == 2
        assert "shard_00000.npz" in err


def test_mistakes_are_one_line(
    teach: Run, clips: Path, tmp_path: Path, toy_single_label_model: Path, toy_model: Path
) -> None:
    twice = tmp_path / "twice.csv"
    twice.write_text(f"path,labels\n{clips.parent}/quiet_0.wav,\na/quiet_0.wav,\n", encoding="utf-8")
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("path,labels\nnone.wav,\n", encoding="utf-8")
    a_file = tmp_path / "file"
    a_file.write_bytes(b"")
    for arguments, options in (
        ([], {"manifest": twice}),
        ([], {"manifest": nothing}),
        ([], {"manifest": tmp_path / "none.csv"}),
        ([], {"model": ("mn10_az",)}),
        ([], {"model": (toy_model, toy_single_label_model)}),
        (["--sample-rate", 16000], {}),
        (["--device", "tpu"], {}),
        ([], {"model": ("x.tflite",)}),
        (["--output", a_file], {}),
    ):
        code, _, err = teach("--output", tmp_path / "a.npz", *arguments, **options)
        assert code == 2, (arguments, options)
        assert_one_line(err.splitlines()[-1] + "\n")
    assert not (tmp_path / "a.npz").exists()


def test_a_litert_teacher_needs_the_kind_of_its_outputs(teach: Run, shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="earmark[litert] is not installed")
    yamnet = shared / "teachers" / "yamnet_int8.tflite"
    arguments = ["--sample-rate", 16000, "--labels", shared / "teachers" / "yamnet_521_labels.txt"]
    assert teach("--output", tmp_path / "a.npz", *arguments, model=(yamnet,))[0] == 2
    code, _, _ = teach("--output", tmp_path / "a.npz", *arguments, "--scores", model=(yamnet,))
    assert code == 0
    outputs = StoredPredictions(tmp_path / "a.npz")
    assert outputs.header.kind == "scores"
    assert "Speech" in outputs.header.labels
    assert 0 <= outputs.read(np.arange(5)).min() <= outputs.read(np.arange(5)).max() <= 1


def test_without_pytorch_the_extra_is_named(teach: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = teach("--output", "a.npz")
    assert code == 2
    assert_one_line(err, "pip install 'earmark[train]'")


def test_the_sections_of_the_page_are_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "teach.md").read_text(encoding="utf-8")
    sections = [tomllib.loads(text)["teacher"] for text in refresh.fences(page, "toml")]
    assert len(sections) == 5
    for section in sections:
        Teacher.model_validate(section)


def test_a_corpus_is_learned_from(run: Run, toy_model: Path, tmp_path: Path) -> None:
    corpora_toys.make_folders(tmp_path / "corpus")
    chosen = ("--corpus", "folders", "--model", toy_model, "--threads", 1)
    code, out, err = run("teach", tmp_path / "corpus", *chosen, "--output", tmp_path / "a.npz")
    assert (code, out) == (0, "")
    assert "8 of 8 clips" in err.splitlines()[-1]
    clips = load_corpus("folders", tmp_path / "corpus")
    stored = StoredPredictions(tmp_path / "a.npz")
    assert len(stored.find([clip.id for clip in clips])) == 8
    assert stored.header.manifests == (clips_hash(clips),)
