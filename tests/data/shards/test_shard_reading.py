"""Clips of a pack are those of the manifest, whole and in pieces, in every process."""

import json
import os
import shutil
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile
from pack_clips import FORMATS, RATE, sound
from torch.utils.data import DataLoader

from earmark.data.dataset import ClipDataset
from earmark.data.manifest import clips_hash, read_manifest
from earmark.data.read_clip import read_clip, read_piece
from earmark.data.shards.index import find_index, index_path
from earmark.data.shards.pack import check, load_pack, manifest_of, read_pack_info
from earmark.data.shards.shard_files import read_array
from earmark.data.shards.writer import PackOptions, pack
from earmark.errors import AudioError, DataError

every_format = pytest.mark.parametrize("form", FORMATS)
LOSSY = 0.3
"""mp3 loses most of what is above its band; the sounds are half noise there."""


@every_format
def test_a_pack_keeps_all_columns_of_the_manifest(made, clips, form):
    heading, packed = load_pack(made[form])
    assert (heading.format, heading.sample_rate, heading.clips, heading.bad) == (form, RATE, 10, 0)
    assert heading.labels == ("dog", "rain", "wind")
    assert clips_hash(packed) == clips_hash(clips)
    for one, other in zip(packed, clips, strict=True):
        assert {key: value for key, value in one.extra.items() if key != "id"} == other.extra
    assert read_manifest(manifest_of(made[form])) == packed
    assert [clip.labelled for clip in packed].index(False) == 5


@every_format
def test_clips_are_those_that_were_packed(made, clips, form):
    for one, other in zip(load_pack(made[form])[1], clips, strict=True):
        wanted = read_clip(other, RATE)
        tolerance = LOSSY if form == "hdf5" else 0
        np.testing.assert_allclose(read_clip(one, RATE), wanted, rtol=0, atol=tolerance)
        assert one.path.parent == made[form]


@pytest.mark.parametrize("codec", ["mp3", "opus"])
def test_lossy_shards_keep_length_and_sound(clips, tmp_path, codec):
    pack(clips, tmp_path, PackOptions(codec=codec, sample_rate=RATE))
    for one, other in zip(load_pack(tmp_path)[1], clips, strict=True):
        received, wanted = read_clip(one, RATE), read_clip(other, RATE)
        assert received.shape == wanted.shape
        assert np.corrcoef(received, wanted)[0, 1] > 0.98


@pytest.mark.parametrize("rate", [RATE, 5000, 11025, 16000])
@pytest.mark.parametrize("form", [*FORMATS, "opus", "wav"])
def test_a_piece_equals_that_of_the_whole_clip(made, clips, tmp_path, form, rate):
    if form == "opus":
        pack(clips, tmp_path, PackOptions(codec="opus", sample_rate=RATE))
    packed = clips if form == "wav" else load_pack(tmp_path if form == "opus" else made[form])[1]
    length = rate // 3
    for clip in (packed[0], packed[9]):
        whole = read_clip(clip, rate)
        excess = len(whole) - length
        for first in (0, 1, excess // 2, excess - 1, excess):
            piece = read_piece(clip, rate, length, {excess: first}.__getitem__)
            exact = rate == RATE and form in ("shards", "memmap", "wav")
            np.testing.assert_allclose(piece, whole[first:][:length], rtol=0, atol=0 if exact else 2e-6)


@every_format
def test_a_piece_of_a_short_clip(made, form):
    clip = load_pack(made[form])[1][0]
    np.testing.assert_allclose(read_piece(clip, RATE, 10**6, None), read_clip(clip, RATE), rtol=0, atol=2e-6)


@every_format
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine with one core
def test_workers_read_what_this_process_reads(made, form):
    clips = load_pack(made[form])[1]
    read_clip(clips[0], RATE)  # an open handle, which workers must not use
    labels = ("dog", "rain", "wind")
    data = ClipDataset(clips, labels, sample_rate=RATE, length=3000, padding="zero")
    keys = [[(index, 7 * index)] for index in range(10)]
    alone, shared = (
        [waveform[0] for waveform, _ in DataLoader(data, batch_sampler=keys, num_workers=workers)]
        for workers in (0, 2)
    )
    assert all(one.equal(other) for one, other in zip(alone, shared, strict=True))
    assert not alone[0].equal(alone[1])


def test_shards_are_plain_tar_files_in_webdatasets_layout(made, clips, tmp_path):
    samples: dict[str, dict[str, bytes]] = {}
    for shard in sorted(made["shards"].glob("*.tar")):
        with tarfile.open(shard) as tar:
            for entry in tar:
                key, _, suffix = entry.name.partition(".")
                samples.setdefault(key, {})[suffix] = tar.extractfile(entry).read()
    assert list(samples) == [f"a_clip_{number}" for number in range(10)]
    for number, sample in enumerate(samples.values()):
        assert list(sample) == ["flac", "json"]
        facts = json.loads(sample["json"])
        assert (facts["id"], facts["fold"], facts["samples"]) == (
            clips[number].id,
            number % 3,
            len(sound(number)),
        )
        assert facts["extra"]["título"] == f"größer, {number}"
        (tmp_path / "a.flac").write_bytes(sample["flac"])
        np.testing.assert_array_equal(soundfile.read(tmp_path / "a.flac", dtype="int16")[0], sound(number))


def test_webdataset_reads_them(made):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    urls = [str(shard) for shard in sorted(made["shards"].glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [f"a_clip_{number}" for number in range(10)]


def test_arrays_can_be_mapped_into_memory(made):
    shard = made["memmap"] / "000001.npy"
    mapped, index = np.load(shard, mmap_mode="r"), find_index(shard)
    begins = (index.offsets - index.offsets[0]) // 2
    for place, number in enumerate(range(4, 8)):
        own = mapped[begins[place] :][: index.samples[place]]
        np.testing.assert_array_equal(own, sound(number))
    assert len(mapped) == index.samples.sum()


@pytest.fixture
def copied(made, tmp_path) -> dict[str, Path]:
    return {form: Path(shutil.copytree(made[form], tmp_path / form)) for form in FORMATS}


@every_format
def test_copies_may_have_other_times(copied, form):
    for path in copied[form].iterdir():  # copies may have any time
        os.utime(path, (10**9 * (2 if path.suffix in (".tar", ".npy") else 1),) * 2)
    assert load_pack(copied[form])[0].clips == 10


@pytest.mark.parametrize("form", ["shards", "memmap"])
@pytest.mark.parametrize("others", ["fewer", "more", "as many"])
def test_an_index_older_than_its_shard_is_refused(copied, clips, tmp_path, form, others):
    chosen = {"fewer": clips[8:], "more": [*clips, *clips], "as many": clips[4:8]}[others]
    pack(chosen, tmp_path / "other", PackOptions(form, sample_rate=RATE))
    shard = sorted(copied[form].glob("000000.[tn]*"))[0]
    (tmp_path / "other" / shard.name).replace(shard)
    message = r"does not belong to 000000\.index\.json.*run the same earmark pack command again"
    with pytest.raises(DataError, match=message):
        load_pack(copied[form])
    clip = read_manifest(copied[form] / "clips.csv")[0]
    with pytest.raises(DataError, match=message):
        read_clip(clip, RATE)


def test_an_hdf5_file_of_other_clips_is_refused(copied, clips, tmp_path):
    pack(clips[:7], tmp_path / "other", PackOptions("hdf5", sample_rate=RATE))
    (tmp_path / "other" / "clips_mp3.hdf").replace(copied["hdf5"] / "clips_mp3.hdf")
    with pytest.raises(DataError, match="other clips"):
        load_pack(copied["hdf5"])


@pytest.mark.parametrize("form", ["shards", "memmap"])
def test_a_truncated_shard(copied, clips, form):
    shard = sorted(copied[form].glob("000000.[tn]*"))[0]
    index = find_index(shard)
    with shard.open("r+b") as stream:
        stream.truncate(int(index.offsets[2]) + 600)
    packed = load_pack(copied[form])[1]
    np.testing.assert_array_equal(read_clip(packed[1], RATE), read_clip(clips[1], RATE))
    for clip in packed[2:4]:
        with pytest.raises(AudioError, match=r"clip [23]: the shard is cut off before the end of this clip"):
            read_clip(clip, RATE)


@pytest.mark.parametrize("codec", ["flac", "mp3", "opus"])
def test_a_damaged_clip_is_found_whatever_the_codec(clips, tmp_path, codec):
    pack(clips, tmp_path, PackOptions(codec=codec, sample_rate=RATE))
    shard = tmp_path / "000000.tar"
    index = find_index(shard)
    with shard.open("r+b") as stream:
        stream.seek(int(index.offsets[3] + index.sizes[3] // 2))
        stream.write(bytes(50))
    packed = load_pack(tmp_path)[1]
    with pytest.raises(AudioError, match=r"000000\.tar, clip 3: damaged"):
        read_clip(packed[3], RATE)
    assert len(read_clip(packed[4], RATE)) == len(sound(4))


def test_a_truncated_row_is_found_when_it_is_needed(copied, clips):
    with h5py.File(copied["hdf5"] / "clips_mp3.hdf", "r+") as file:
        recording = file["mp3"][9]
        file["mp3"][9] = recording[: len(recording) // 2]
    packed = load_pack(copied["hdf5"])[1]
    for read in (
        lambda clip: read_clip(clip, RATE),
        lambda clip: read_piece(clip, RATE, 3000, lambda excess: excess),
    ):
        with pytest.raises(AudioError, match=r"clips_mp3\.hdf, row 9 .*: the file is cut off"):
            read(packed[9])
        assert len(read(packed[8]))


def test_missing_files_of_a_pack(copied, tmp_path):
    for folder, name, message in (
        ("shards", "000001.tar", r"the pack lacks a shard.*earmark pack"),
        ("shards", "000001.index.json", r"the pack lacks an index.*earmark pack"),
        ("memmap", "000000.npy", "the pack lacks a shard"),
        ("hdf5", "clips_mp3.hdf", "cannot be read"),
        ("shards", "pack.json", "the pack is not finished: run the same earmark pack command again"),
        ("hdf5", "pack.json", "is not a pack"),
    ):
        (copied[folder] / name).unlink()
        with pytest.raises(DataError, match=message):
            load_pack(copied[folder])
    (copied["memmap"] / "pack.json").write_text("{}")
    with pytest.raises(DataError):
        read_pack_info(copied["memmap"])


@pytest.mark.parametrize(
    "changes",
    [
        {"clips": "10"},
        {"clips": -1},
        {"format": "zip"},
        {"labels": ["dog", 3]},
        {"files": ["../000000.tar"]},
        {"seconds": None},
    ],
)
def test_a_description_of_no_pack_is_refused(copied, changes):
    path = copied["shards"] / "pack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(DataError, match=r"pack\.json: is damaged"):
        read_pack_info(copied["shards"])


def test_damaged_index_and_manifest(copied):
    path = index_path(copied["shards"] / "000000.tar")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError):
        check(copied["shards"])
    table = copied["memmap"] / "clips.csv"
    table.write_text("\n".join(table.read_text(encoding="utf-8").splitlines()[:-1]), encoding="utf-8")
    with pytest.raises(DataError):
        load_pack(copied["memmap"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rows", [0, 1, 1, 3]),
        ("rows", [0, 1, 2]),
        ("offsets", [512, 1e3, 2e3, 3e3]),
        ("offsets", [512, 1024, 2048, 10**12]),
        ("sizes", [1, -1, 1, 1]),
        ("sizes", [1, 1, 1, 10**20]),
        ("samples", [[1], [2], [3], [4]]),
        ("samples", "1234"),
        ("checks", [1, 2, 3, None]),
        ("probes", [[0]]),
        ("probes", [[-5, 1]]),
        ("bad", [[1, 2]]),
        ("size", 1.5),
        ("sample_rate", 0),
        ("of", 7),
    ],
)
def test_an_index_that_describes_no_shard_is_refused(copied, column, value):
    path = index_path(copied["shards"] / "000000.tar")
    path.write_text(json.dumps(json.loads(path.read_text()) | {column: value}))
    with pytest.raises(DataError, match=r"000000\.index\.json: is not an index of a shard \("):
        find_index(copied["shards"] / "000000.tar")


@pytest.mark.parametrize(
    "text", ['{"version": 1, "size": NaN}', '{"version": 1, "size": 1, "size": 2}', "[" * 10**5]
)
def test_an_index_that_is_no_valid_json_is_refused(copied, text):
    index_path(copied["shards"] / "000000.tar").write_text(text)
    with pytest.raises(DataError, match=r"NaN|repeated|nested"):
        find_index(copied["shards"] / "000000.tar")


def test_more_samples_than_a_clip_has_are_not_taken_from_the_next(copied):
    shard = copied["memmap"] / "000000.npy"
    facts = json.loads(index_path(shard).read_text())
    facts["samples"][1] += 100
    index_path(shard).write_text(json.dumps(facts))
    with pytest.raises(AudioError, match="clip 1"):
        read_array(shard, 1, RATE)


@pytest.mark.parametrize("form", ["shards", "memmap"])
def test_a_member_out_of_range_is_refused(made, form):
    clip = load_pack(made[form])[1][0]
    for member in (-1, 4):
        with pytest.raises(DataError, match=f"member must be 0 to 3, got {member}"):
            read_clip(type(clip)(clip.path, (), member=member), RATE)
