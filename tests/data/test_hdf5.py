"""Recordings in HDF5 files are the reference's, in every worker, and a wrong row is refused."""

import json
import os
from pathlib import Path

import corpora_toys
import h5py
import numpy as np
import pytest
import soundfile
from torch.utils.data import DataLoader

from earmark.audio import load_audio
from earmark.data.corpora import load_corpus
from earmark.data.dataset import ClipDataset
from earmark.data.hdf5 import read_member, read_table
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.errors import AudioError, DataError, MissingExtraError
from earmark.evaluation.network_predictions import clip_windows
from earmark.model_file.labels import label_set

RATE = 32000
ROLL = 2000
"""The reference's pipeline had rolled the waveforms by so much when their first samples were noted."""


@pytest.fixture(scope="module")
def golden(shared) -> Path:
    return shared / "golden" / "efficientat" / "hdf5"


@pytest.fixture(scope="module")
def index(golden) -> dict:
    return json.loads((golden / "index.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def train(golden) -> list[Clip]:
    return [
        clip
        for split in ("balanced_train", "unbalanced_train")
        for clip in load_corpus("audioset_hdf5", golden, split)
    ]


def positions(clip, name="audioset") -> list[int]:
    return [label_set(name).index(label) for label in clip.labels]


def test_ids_and_labels_are_the_references(index, golden, train):
    assert [(clip.id, positions(clip)) for clip in train] == [
        (item["name"], item["labels"]) for item in index["train_items"]
    ]
    evaluated = load_corpus("audioset_hdf5", golden, "eval")
    assert [clip.id for clip in evaluated] == index["eval_names"]
    assert [positions(clip) for clip in train + evaluated] == index["labels"]
    clips = load_corpus("fsd50k_hdf5", golden, "eval")
    wanted = [(item["name"], item["labels"]) for item in index["fsd50k"]]
    assert [(f"{clip.id}.mp3", positions(clip, "fsd50k")) for clip in clips] == wanted


def test_instruments_are_the_references(golden):
    with h5py.File(golden / "openmic_test.csv_mp3.hdf", "r", locking=False) as file:
        target = file["target"][:]
    for clip, row in zip(load_corpus("openmic_hdf5", golden, "test"), target, strict=True):
        known = np.flatnonzero(row[20:])
        assert positions(clip, "openmic") == [column for column in known if row[column] > 0.5]
        assert len(clip.unknown) == 20 - len(known)
        assert not set(clip.unknown) & set(clip.labels)


def test_decoded_samples_are_the_references(golden, index, train):
    wanted = np.load(golden / "decoded_item0.npy")
    np.testing.assert_allclose(read_clip(train[0], RATE), wanted, rtol=0, atol=2e-6)
    for clip, item in zip(train, index["train_items"], strict=True):
        waveform = read_clip(clip, RATE)
        assert len(waveform) == item["decoded_len"]
        assert waveform.sum(dtype=np.float64) == pytest.approx(item["sum"], abs=0.05)
        assert np.square(waveform, dtype=np.float64).sum() == pytest.approx(item["energy"], rel=1e-5)
        np.testing.assert_allclose(waveform[ROLL : ROLL + 6], item["first"], rtol=0, atol=2e-6)


def test_stereo_mp3_is_ffmpegs(tmp_path):
    av = pytest.importorskip("av")
    samples = np.stack([corpora_toys.waveform(number, RATE)[:9600] for number in (1, 5)], 1)
    soundfile.write(tmp_path / "two.mp3", samples, RATE, format="MP3")
    with av.open(tmp_path / "two.mp3") as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    wanted = np.concatenate(frames, 1).mean(0)
    np.testing.assert_allclose(load_audio((tmp_path / "two.mp3").read_bytes(), RATE)[0], wanted, atol=2e-6)
    assert np.abs(wanted - samples.mean(1)).max() < 0.1


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    corpora_toys.make_fsd50k_hdf5(folder)
    return folder


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_every_worker_opens_the_file_itself(packed):
    clips = load_corpus("fsd50k_hdf5", packed, "train")
    read_clip(clips[0], RATE)  # a handle in this process, which workers must not use
    data = ClipDataset(clips, label_set("fsd50k"), sample_rate=RATE, length=RATE, padding="zero")
    keys = [[(index, 0)] for index in range(4)] * 3
    alone, shared = (
        [waveform[0] for waveform, _ in DataLoader(data, batch_sampler=keys, num_workers=workers)]
        for workers in (0, 2)
    )
    assert len(alone) == 12
    for one, other in zip(alone, shared, strict=True):
        assert one.equal(other)
    assert alone[0].abs().max() > 0.2
    assert not alone[0].equal(alone[1])


def test_a_handle_belongs_to_a_process_and_a_state_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "clips.hdf"
    corpora_toys.write_hdf5(path, ["1.mp3"], np.zeros((1, 25), np.uint8))
    opened, open_file = [], h5py.File
    monkeypatch.setattr(h5py, "File", lambda *given, **how: opened.append(given) or open_file(*given, **how))
    assert read_member(path, 0) == corpora_toys.mp3(0).tobytes()
    read_member(path, 0)
    assert len(opened) == 1
    other = tmp_path / "other.hdf"
    corpora_toys.write_hdf5(other, ["1.mp3", "2.mp3"], np.zeros((2, 25), np.uint8))
    os.utime(other, (1, 1))
    other.replace(path)
    assert read_member(path, 1) == corpora_toys.mp3(1).tobytes()


def test_windows_of_rows_and_files(packed, tmp_path):
    clips = load_corpus("fsd50k_hdf5", packed, "train")
    files = []
    for clip in clips:
        path = tmp_path / f"{clip.id}.mp3"
        path.write_bytes(read_member(clip.path, clip.member))
        files.append(Clip(path, clip.labels))
    for one, other in zip(
        clip_windows(clips, 16000, 8000, "zero"), clip_windows(files, 16000, 8000, "zero"), strict=True
    ):
        assert one[0] == other[0]
        np.testing.assert_array_equal(one[1], other[1])


def test_a_row_out_of_range_is_refused(packed):
    path = packed / "FSD50K.val_mp3.hdf"
    for member in (-1, 4):
        with pytest.raises(DataError, match=f"member must be 0 to 3, got {member}"):
            read_clip(Clip(path, (), member=member), RATE)


def test_a_damaged_recording_is_named(packed, tmp_path):
    path = tmp_path / "damaged.hdf"
    path.write_bytes((packed / "FSD50K.val_mp3.hdf").read_bytes())
    with h5py.File(path, "r+") as file:
        file["mp3"][1] = np.zeros(0, np.uint8)
        file["mp3"][2] = np.arange(200, dtype=np.uint8)
    clip = Clip(path, (), extra={"id": "64761"}, member=1)
    with pytest.raises(AudioError, match=r"damaged\.hdf, row 1 \(64761\): the file is empty"):
        read_clip(clip, RATE)
    with pytest.raises(AudioError, match=r"damaged\.hdf, row 2 \(damaged\)"):
        read_clip(Clip(path, (), member=2), RATE)


def test_not_an_hdf5_file(tmp_path):
    with pytest.raises(DataError):
        read_table(tmp_path / "none.hdf", 25, "uint8")
    (tmp_path / "text.hdf").write_text("audio")
    with pytest.raises(DataError, match="not an HDF5 file"):
        read_member(tmp_path / "text.hdf", 0)
    with h5py.File(tmp_path / "empty.hdf", "w"):
        pass
    with pytest.raises(DataError):
        read_member(tmp_path / "empty.hdf", 0)


def small(path: Path) -> h5py.File:
    """A file of two clips, to be changed."""
    file = h5py.File(path, "w")
    file["audio_name"] = np.array([b"a", b"b"])
    file["target"] = np.zeros((2, 3), np.float32)
    recordings = file.create_dataset("mp3", (2,), h5py.vlen_dtype(np.uint8))
    for row in range(2):
        recordings[row] = np.arange(5, dtype=np.uint8)
    return file


def test_values_in_other_files_are_refused(tmp_path):
    with small(tmp_path / "other.hdf"):
        pass
    for name, put in {
        "external link": lambda file: h5py.ExternalLink("other.hdf", "/mp3"),
        "soft link": lambda file: h5py.SoftLink("/target"),
        "group": lambda file: file.create_group("g"),
    }.items():
        with small(tmp_path / f"{name}.hdf") as file:
            del file["mp3"]
            file["mp3"] = put(file)
    with small(tmp_path / "external.hdf") as file:
        del file["mp3"]
        file.create_dataset("mp3", (4,), np.uint8, external=[("/etc/passwd", 0, 4)])
    with small(tmp_path / "virtual.hdf") as file:
        del file["mp3"]
        layout = h5py.VirtualLayout((2,), np.uint8)
        layout[:] = h5py.VirtualSource("other.hdf", "audio_name", (2,))
        file.create_virtual_dataset("mp3", layout)
    for name in ("external link", "soft link", "group", "external", "virtual"):
        with pytest.raises(DataError, match="lacks the dataset 'mp3'"):
            read_member(tmp_path / f"{name}.hdf", 0)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("audio_name", np.array([1, 2])),
        ("audio_name", np.array([b"\xff", b"b"])),
        ("audio_name", np.float32(1)),
        ("target", np.full((2, 3), np.nan, np.float32)),
        ("target", np.zeros((1, 3), np.float32)),
    ],
)
def test_tables_of_another_layout_are_refused(tmp_path, part, values):
    with small(tmp_path / "a.hdf") as file:
        del file[part]
        file[part] = values
    with pytest.raises(DataError, match=r"a\.hdf: ") as caught:
        read_table(tmp_path / "a.hdf", 3, "float32")
    assert "\n" not in str(caught.value)


def test_a_dataset_that_cannot_be_in_the_file_is_not_read(tmp_path):
    with small(tmp_path / "a.hdf") as file:
        for part in ("audio_name", "mp3", "target"):
            del file[part]
        file.create_dataset("audio_name", (10**12,), "S20", chunks=(1000,))
        file.create_dataset("mp3", (10**12,), h5py.vlen_dtype(np.uint8), chunks=(1000,))
        file.create_dataset("target", (10**12, 3), np.float32, chunks=(1000, 3))
    with pytest.raises(DataError, match="more than the file can hold"):
        read_table(tmp_path / "a.hdf", 3, "float32")


def test_rows_that_are_no_bytes_are_refused(tmp_path):
    with small(tmp_path / "a.hdf") as file:
        del file["mp3"]
        file["mp3"] = np.arange(4.0)
    with pytest.raises(DataError, match="list of bytes"):
        read_member(tmp_path / "a.hdf", 0)


def test_without_h5py_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.hdf").touch()
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingExtraError, match=r"earmark\[hdf5\]"):
        read_member(tmp_path / "a.hdf", 0)
