"""A pack is the same however often its writing was interrupted, and lists skipped clips."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from pack_clips import FORMATS, RATE, Deadly, sound

from earmark.audio.encode import encode
from earmark.data.corpora import load_corpus
from earmark.data.hdf5 import read_member
from earmark.data.manifest import Clip
from earmark.data.read_clip import read_clip
from earmark.data.shards import writer
from earmark.data.shards.index import find_index
from earmark.data.shards.pack import load_pack, require_same_labels
from earmark.data.shards.writer import PackOptions, pack
from earmark.errors import AudioError, DataError
from earmark.model_file.labels import label_set
from earmark.model_file.lock import locked_folder

every_format = pytest.mark.parametrize("form", FORMATS)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


@every_format
def test_several_processes_are_deterministic(made, clips, tmp_path, form):
    heading = pack(clips, tmp_path, PackOptions(form, sample_rate=RATE, shard_clips=4), workers=2)
    assert content(tmp_path) == content(made[form])
    assert heading.seconds == pytest.approx(sum(len(sound(number)) for number in range(10)) / RATE, abs=1e-3)


def test_opus_is_deterministic(clips, tmp_path):
    for name in "ab":
        pack(clips, tmp_path / name, PackOptions(codec="opus", sample_rate=RATE))
    assert content(tmp_path / "a") == content(tmp_path / "b")


@every_format
def test_an_interrupted_call_continues(made, clips, tmp_path, form, monkeypatch):
    packing, begun = PackOptions(form, sample_rate=RATE, shard_clips=4), []
    whole = writer.write_shard

    def killed(part):
        begun.append(part.first)
        if len(begun) == 2:
            (tmp_path / ".000001.tar.x.partial").write_bytes(b"half")
            raise KeyboardInterrupt
        return whole(part)

    monkeypatch.setattr(writer, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        pack(clips, tmp_path, packing)
    with pytest.raises(DataError, match="the pack is not finished"):
        load_pack(tmp_path)
    pack(clips, tmp_path, packing)
    assert begun == [0, 4, 4, 8]
    assert content(tmp_path) == content(made[form])
    pack(clips, tmp_path, packing)
    assert begun == [0, 4, 4, 8]


def test_a_killed_process_is_continued(manifest, made, tmp_path):
    command = [sys.executable, "-m", "earmark", "pack", str(manifest), "--output", str(tmp_path / "p")]
    command += ["--sample-rate", str(RATE), "--shard-clips", "4", "--workers", "1", "--quiet"]
    for delay in (0.5, 0.8, 1.0, 1.1):
        process = subprocess.Popen(command)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert subprocess.run(command, check=False).returncode == 0
    assert content(tmp_path / "p") == content(made["shards"])


def test_a_missing_or_truncated_shard_is_made_again(clips, tmp_path, made):
    packing = PackOptions(sample_rate=RATE, shard_clips=4)
    pack(clips, tmp_path, packing)
    (tmp_path / "000000.tar").unlink()
    (tmp_path / "000001.index.json").unlink()
    os.truncate(tmp_path / "000002.tar", 5000)
    pack(clips, tmp_path, packing)
    assert content(tmp_path) == content(made["shards"])


def test_another_pack_is_not_overwritten(clips, tmp_path):
    pack(clips, tmp_path, PackOptions(sample_rate=RATE, shard_clips=4))
    (tmp_path / "file").touch()
    before = content(tmp_path)
    for others in (
        (clips[1:], PackOptions(sample_rate=RATE, shard_clips=4)),
        (clips, PackOptions(sample_rate=16000, shard_clips=4)),
        (clips, PackOptions(sample_rate=RATE, shard_clips=5)),
        (clips, PackOptions("memmap", sample_rate=RATE, shard_clips=4)),
    ):
        with pytest.raises(DataError, match="pack of other clips or options"):
            pack(others[0], tmp_path, others[1])
    assert content(tmp_path) == before
    (tmp_path / "pack.json").unlink()
    with pytest.raises(DataError):
        pack(clips[1:], tmp_path, PackOptions(sample_rate=RATE, shard_clips=4))
    with pytest.raises(DataError):
        pack(clips, tmp_path / "file", PackOptions())


@pytest.fixture
def hostile(clips, tmp_path) -> list[Clip]:
    folder = tmp_path / "hostile"
    folder.mkdir()
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("no sound")
    soundfile.write(folder / "none.wav", np.zeros(0), RATE)
    soundfile.write(folder / "nan.wav", np.array([0, np.nan, 0], np.float32), RATE, subtype="FLOAT")
    soundfile.write(folder / "cut.wav", sound(3), RATE)
    os.truncate(folder / "cut.wav", 3000)
    names = ("empty", "text", "none", "nan", "cut", "missing")
    return [clips[0], *(Clip(folder / f"{name}.wav", ("dog",)) for name in names), clips[1]]


@every_format
def test_unreadable_clips_are_skipped_and_listed(hostile, tmp_path, form):
    complaints: list[str] = []
    heading = pack(hostile, tmp_path / "p", PackOptions(form, sample_rate=RATE), on_error=complaints.append)
    assert (heading.clips, heading.bad) == (2, 6)
    with (tmp_path / "p" / "bad.csv").open(encoding="utf-8", newline="") as stream:
        bad = list(csv.DictReader(stream))
    assert [row["path"] for row in bad] == [str(clip.path) for clip in hostile[1:-1]]
    assert [row["reason"] for row in bad] == complaints
    for reason, message in zip(
        complaints, ("0 bytes", "not a format", "no samples", "NaN", "cut off", "no such file"), strict=True
    ):
        assert message in reason
    assert [clip.id for clip in load_pack(tmp_path / "p")[1]] == [hostile[0].id, hostile[-1].id]


def test_a_clip_that_kills_its_process_is_left_out_and_named(clips, tmp_path):
    deadly = [Clip(Deadly(tmp_path / f"x.{name}.wav"), ("dog",)) for name in ("SIGSEGV", "SIGABRT")]
    chosen = [deadly[0], *clips[:3], deadly[1], *clips[3:5]]
    complaints: list[str] = []
    packing = PackOptions(sample_rate=RATE, shard_clips=5)
    heading = pack(chosen, tmp_path / "p", packing, workers=2, on_error=complaints.append)
    assert (heading.clips, heading.bad) == (5, 2)
    for clip, complaint in zip(deadly, complaints, strict=True):
        assert complaint == f"{clip.path}: left out: the process that read it died ({clip.path.stem[2:]})"
    assert [clip.id for clip in load_pack(tmp_path / "p")[1]] == [clip.id for clip in clips[:5]]
    assert not list((tmp_path / "p").glob(".*"))
    pack(chosen, tmp_path / "p", packing)  # in this process, which would die if it met them again
    (tmp_path / "p" / "pack.json").unlink()
    pack(chosen, tmp_path / "p", packing)


def test_a_process_that_is_killed_from_outside_ends_the_call(clips, tmp_path):
    chosen = [*clips[:2], Clip(Deadly(tmp_path / "x.SIGKILL.wav"), ("dog",))]
    with pytest.raises(
        DataError, match=r"a worker process was killed \(SIGKILL; out of memory\?\): run the same"
    ):
        pack(chosen, tmp_path / "p", PackOptions(sample_rate=RATE), workers=1)
    assert os.listdir(tmp_path / "p") == []


def test_a_folder_that_is_being_packed_is_refused(clips, tmp_path):
    with locked_folder(tmp_path), pytest.raises(DataError, match=f"is in use by process {os.getpid()} on"):
        pack(clips, tmp_path, PackOptions(sample_rate=RATE))


@pytest.mark.parametrize("workers", [-1, 100_000])
def test_numbers_of_processes_are_bounded(clips, tmp_path, workers):
    with pytest.raises(DataError, match="workers must be between"):
        pack(clips, tmp_path / "p", PackOptions(), workers=workers)


def test_no_readable_clip_is_an_error(hostile, tmp_path):
    with pytest.raises(DataError, match="none of the 6 clips"):
        pack(hostile[1:-1], tmp_path / "p", PackOptions())
    assert not (tmp_path / "p" / "pack.json").exists()


def test_a_full_disk_is_a_one_line_error(clips, tmp_path):
    packing = PackOptions("memmap", sample_rate=RATE, shard_clips=4)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, before[1]))  # the second shard is larger
    try:
        with pytest.raises(
            DataError, match=r"cannot be written .*: free some space and run the same command again"
        ):
            pack(clips, tmp_path, packing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(content(tmp_path)) == ["000000.index.json", "000000.npy"]
    pack(clips, tmp_path, packing)
    assert load_pack(tmp_path)[0].clips == 10


def test_a_codec_that_does_not_reproduce_a_clip_is_an_error(clips, tmp_path, monkeypatch):
    shorter = lambda samples, rate, codec: encode(samples[:-1], rate, codec)  # noqa: E731
    monkeypatch.setattr("earmark.data.shards.shard_job.encode", shorter)
    with pytest.raises(DataError, match="flac does not reproduce"):
        pack(clips[:1], tmp_path, PackOptions(sample_rate=RATE))


@pytest.mark.parametrize(("codec", "rate"), [("opus", 32000), ("mp3", 10000)])
def test_a_rate_that_the_codec_does_not_support_is_refused(clips, tmp_path, codec, rate):
    with pytest.raises(AudioError):
        pack(clips, tmp_path / "p", PackOptions(codec=codec, sample_rate=rate))
    assert not (tmp_path / "p").exists()


def test_a_codec_of_another_format_is_refused(clips, tmp_path):
    with pytest.raises(DataError):
        pack(clips, tmp_path, PackOptions("memmap", "mp3"))


def test_labels_that_are_not_listed_are_refused(clips, tmp_path):
    with pytest.raises(DataError):
        pack(clips, tmp_path, PackOptions(sample_rate=RATE, labels=("dog",)))


def test_clips_with_the_same_name(clips, tmp_path):
    pack(clips[:2] + clips[:1], tmp_path, PackOptions(sample_rate=RATE))
    packed = load_pack(tmp_path)[1]
    assert [clip.id for clip in packed] == [clips[0].id, clips[1].id, clips[0].id]
    assert len(find_index(tmp_path / "000000.tar").rows) == 3


def test_encoded_files_are_copied(clips, tmp_path):
    pack(clips, tmp_path / "one", PackOptions("hdf5", sample_rate=RATE))
    mp3 = load_pack(tmp_path / "one")[1]
    pack(mp3, tmp_path / "two", PackOptions(codec="mp3", sample_rate=RATE))
    for one, other in zip(mp3, load_pack(tmp_path / "two")[1], strict=True):
        np.testing.assert_array_equal(read_clip(one, RATE), read_clip(other, RATE))


class TestHdf5:
    @pytest.mark.parametrize(
        ("corpus", "split", "name"),
        [
            ("audioset_hdf5", "balanced_train", "balanced_train_segments_mp3.hdf"),
            ("fsd50k_hdf5", "eval", "FSD50K.eval_mp3.hdf"),
        ],
    )
    def test_the_file_is_that_of_efficientat(self, shared, tmp_path, corpus, split, name):
        golden = shared / "golden" / "efficientat" / "hdf5"
        clips = load_corpus(corpus, golden, split)
        pack(clips, tmp_path, PackOptions("hdf5", labels=label_set(corpus.removesuffix("_hdf5"))))
        (tmp_path / "clips_mp3.hdf").rename(tmp_path / name)
        files = (h5py.File(folder / name, locking=False) for folder in (tmp_path, golden))
        with next(files) as ours, next(files) as theirs:
            assert list(ours) == list(theirs)
            for part in theirs:
                assert (ours[part].dtype, ours[part].shape) == (theirs[part].dtype, theirs[part].shape)
                assert h5py.check_vlen_dtype(ours[part].dtype) == h5py.check_vlen_dtype(theirs[part].dtype)
                assert ours[part].chunks is theirs[part].chunks is None
            for part in ("audio_name", "target"):
                np.testing.assert_array_equal(ours[part][:], theirs[part][:])
        for row, clip in enumerate(clips):
            assert read_member(tmp_path / name, row) == read_member(clip.path, row)
        assert [clip.labels for clip in load_corpus(corpus, tmp_path, split)] == [
            clip.labels for clip in clips
        ]

    def test_unknown_labels_in_hdf5(self, shared, tmp_path):
        golden = shared / "golden" / "efficientat" / "hdf5"
        clips = load_corpus("openmic_hdf5", golden, "test")
        pack(clips, tmp_path, PackOptions("hdf5", labels=label_set("openmic")))
        (tmp_path / "clips_mp3.hdf").rename(tmp_path / "openmic_test.csv_mp3.hdf")
        found = load_corpus("openmic_hdf5", tmp_path, "test")
        assert [(c.id, c.labels, c.unknown) for c in found] == [(c.id, c.labels, c.unknown) for c in clips]


def test_packs_of_other_labels_are_refused(clips, tmp_path):
    packs = []
    for name, chosen, labels in (
        ("all", clips, None),
        ("more", clips, ("dog", "rain", "snow", "wind")),
        ("none", [clips[2]], None),
    ):
        packs.append(
            (tmp_path / name, pack(chosen, tmp_path / name, PackOptions(sample_rate=RATE, labels=labels)))
        )
    require_same_labels([packs[0], packs[2]])
    with pytest.raises(
        DataError, match=r"more: its 4 labels are not the 3 of .*all, it has also snow: pack both"
    ):
        require_same_labels(packs)
    with pytest.raises(DataError):
        require_same_labels(packs[1::-1])
    assert json.loads((tmp_path / "more" / "pack.json").read_text())["labels"] == [
        "dog",
        "rain",
        "snow",
        "wind",
    ]
