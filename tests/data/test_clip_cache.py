"""Decoded clips on disk: each clip is decoded once; what is stale or damaged is noticed."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import toy
from torch.utils.data import DataLoader

from earmark.data import clip_cache
from earmark.data.clip_cache import CachedClips, ClipCache
from earmark.data.dataset import ClipDataset
from earmark.data.manifest import Clip
from earmark.errors import DataError, EarmarkError

RATE = 8000
LIMIT = 10**7
STEP = 0.51 / 32767


@pytest.fixture
def clips(tmp_path) -> list[Clip]:
    """Three clips of 0.2 to 1.4 s, at 16 kHz."""
    generator = np.random.default_rng(0)
    found = []
    for number, seconds in enumerate((0.2, 0.5, 1.4)):
        path = tmp_path / "audio" / f"{number}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, generator.uniform(-0.4, 0.4, round(seconds * 2 * RATE)), 2 * RATE)
        found.append(Clip(path, ("noise",)))
    return found


@pytest.fixture
def decoded(tmp_path, monkeypatch) -> "Decodes":
    return Decodes(tmp_path / "decodes", monkeypatch)


class Decodes:
    """Counts decoded clips, in this process and in those that it forks."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, read = path, clip_cache.read_clip
        path.touch()

        def counted(clip, sample_rate):
            with path.open("a") as stream:
                stream.write("+")
            return read(clip, sample_rate)

        monkeypatch.setattr(clip_cache, "read_clip", counted)

    def __call__(self) -> int:
        """Decodes since the last call."""
        count = self.path.stat().st_size
        os.truncate(self.path, 0)
        return count


def cached(clips, folder, limit=LIMIT) -> CachedClips:
    return CachedClips(clips, RATE, ClipCache(folder, limit))


def entries(folder: Path) -> list[Path]:
    return [entry.path for entry in ClipCache(folder, LIMIT).entries()]


def test_cached_clips_are_those_of_the_files_in_16_bit(clips, tmp_path):
    plain, kept = CachedClips(clips, RATE, None), cached(clips, tmp_path / "kept")
    for index in range(3):
        for _ in range(2):
            np.testing.assert_allclose(kept.read(index), plain.read(index), rtol=0, atol=STEP)
        for start in (0, 700):
            piece = kept.read_piece(index, 4000, lambda excess, start=start: min(start, excess))
            first = start if index == 2 else 0
            np.testing.assert_array_equal(piece, kept.read(index)[first : first + 4000])


def test_clips_above_full_scale_are_clipped(tmp_path):
    loud = np.array([1.5, -1.5, 0.5] * 100, np.float32)
    soundfile.write(tmp_path / "loud.wav", loud, RATE, subtype="FLOAT")
    found = cached([Clip(tmp_path / "loud.wav", ())], tmp_path / "kept").read(0)
    np.testing.assert_allclose(found[:3], [1, -1, 0.5], atol=STEP)


def test_a_dataset_returns_copies(clips, tmp_path):
    cache = ClipCache(tmp_path / "kept", LIMIT)
    data = ClipDataset(clips, ("noise",), sample_rate=RATE, length=4000, padding="zero", cache=cache)
    data[1, 0][0].zero_()
    assert data[1, 0][0].abs().max() > 0.3


def test_each_clip_is_decoded_once_by_whichever_process(clips, tmp_path, decoded):
    cache = ClipCache(tmp_path / "kept", LIMIT)
    data = ClipDataset(clips, ("noise",), sample_rate=RATE, length=4000, padding="zero", cache=cache)
    loader = DataLoader(
        data, batch_sampler=[[(0, 0)], [(1, 0)], [(2, 0)]], num_workers=2, multiprocessing_context="fork"
    )
    epochs = [[batch[0].numpy() for batch in loader]]
    for clip in clips:
        clip.path.unlink()  # from the second epoch on the entries alone are read, by any process
    epochs += [[batch[0].numpy() for batch in loader] for _ in range(2)]
    assert decoded() == 3
    for later in epochs[1:]:
        for one, another in zip(epochs[0], later, strict=True):
            np.testing.assert_array_equal(one, another)


def test_a_later_run_decodes_nothing_and_a_moved_clip_is_found(clips, tmp_path, decoded):
    first = cached(clips, tmp_path / "kept")
    before = [first.read(index) for index in range(3)]
    moved = [Clip(tmp_path / f"moved{number}.wav", ()) for number in range(3)]
    for clip, other in zip(clips, moved, strict=True):
        shutil.copy(clip.path, other.path)
    assert decoded() == 3
    for again in (cached(clips, tmp_path / "kept"), cached(moved, tmp_path / "kept")):
        for index in range(3):
            np.testing.assert_array_equal(again.read(index), before[index])
    assert decoded() == 0


def test_a_changed_clip_another_rate_and_another_version_are_decoded(clips, tmp_path, decoded, monkeypatch):
    cached(clips, tmp_path / "kept").read(0)
    state = clips[0].path.stat()
    content = clips[0].path.read_bytes()
    clips[0].path.write_bytes(content[:-2] + b"\x12\x34")
    os.utime(clips[0].path, ns=(state.st_atime_ns, state.st_mtime_ns))  # size and time are the same
    assert decoded() == 1
    assert cached(clips, tmp_path / "kept").read(0)[-1] != 0
    assert decoded() == 1
    CachedClips(clips, 2 * RATE, ClipCache(tmp_path / "kept", LIMIT)).read(0)
    assert decoded() == 1
    monkeypatch.setattr(clip_cache, "__version__", "next")
    cached(clips, tmp_path / "kept").read(0)
    assert decoded() == 1


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "longer"])
def test_a_damaged_entry_is_replaced(clips, tmp_path, decoded, damage):
    before = cached(clips, tmp_path / "kept").read(1)
    [path] = entries(tmp_path / "kept")
    content = bytearray(path.read_bytes())
    whole = bytes(content)
    if damage == "flip":
        content[-1] ^= 1
    damaged = {"cut": content[:-2], "empty": b"", "longer": content + b"xy"}.get(damage, content)
    path.write_bytes(damaged)
    assert decoded() == 1
    np.testing.assert_array_equal(cached(clips, tmp_path / "kept").read(1), before)
    assert decoded() == 1
    assert path.read_bytes() == whole


def test_an_entry_that_disappears_during_a_run_is_made_again(clips, tmp_path, decoded):
    kept = cached(clips, tmp_path / "kept")
    before = kept.read(1)
    for path in entries(tmp_path / "kept"):
        path.unlink()
    np.testing.assert_array_equal(kept.read(1), before)
    assert decoded() == 2


def test_a_run_that_is_killed_leaves_whole_entries(clips, tmp_path, decoded):
    folder = tmp_path / "kept"
    process = os.fork()
    if process == 0:
        while True:
            kept = cached(clips, folder)
            for index in range(3):
                kept.read(index)
            for path in entries(folder):
                path.unlink(missing_ok=True)
    deadline = time.monotonic() + 60
    while not any(folder.glob("??/*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    cache = ClipCache(folder, LIMIT)
    for path in entries(folder):
        assert path.suffix == ".partial" or cache.read(path.name) is not None
    kept = cached(clips, folder)
    for index in range(3):
        assert len(kept.read(index)) > 0


def test_the_folder_stays_below_its_limit(clips, tmp_path, decoded):
    folder, limit = tmp_path / "kept", 10_000  # two of 3.2, 8 and 22 kB do not fit
    kept = cached(clips, folder, limit)
    for _ in range(2):
        for index in range(3):
            assert len(kept.read(index)) == [1600, 4000, 11200][index]
    assert decoded() == 1 + 2 + 2
    assert sum(entry.size for entry in ClipCache(folder, limit).entries()) <= limit


def test_a_full_folder_drops_what_no_run_uses_any_more(clips, tmp_path, decoded):
    folder, limit = tmp_path / "kept", 10_000
    cached(clips, folder, limit).read(0)
    [old] = entries(folder)
    os.utime(old, (1, 1))
    later = cached(clips, folder, limit)
    later.read(1)
    assert old not in entries(folder)
    assert len(entries(folder)) == 1
    assert decoded() == 2
    later.read(1)
    assert decoded() == 0


def test_entries_that_a_run_reads_are_kept_for_it(clips, tmp_path, decoded):
    folder, limit = tmp_path / "kept", 10_000
    cached(clips, folder, limit).read(0)
    for path in entries(folder):
        os.utime(path, (1, 1))
    later = cached(clips, folder, limit)
    later.read(0)  # now it is in use
    later.read(1)
    later.read(0)
    assert decoded() == 2


def test_a_wrong_total_is_counted_again(clips, tmp_path, decoded):
    for text in ("9999999", "?", ""):
        folder = tmp_path / f"kept{text.strip('?')}"
        folder.mkdir(exist_ok=True)
        (folder / "total").write_text(text)
        cached(clips, folder).read(0)
        cached(clips, folder).read(0)
    assert decoded() == 2  # the folder of the last two is the same


def test_a_folder_that_cannot_be_written_to_is_no_end(clips, tmp_path, decoded, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(clip_cache, "write_atomically", full)
    kept = cached(clips, tmp_path / "kept")
    assert len(kept.read(0)) == len(kept.read(0)) == 1600
    assert decoded() == 2


def test_a_folder_that_cannot_be_made_and_a_missing_clip_are_errors(clips, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file"):
        ClipCache(tmp_path / "file" / "kept", LIMIT)
    with pytest.raises(EarmarkError, match=r"none\.wav"):
        cached([Clip(tmp_path / "none.wav", ())], tmp_path / "kept").read(0)


def test_trainings_decode_each_clip_once(tmp_path, decoded):
    from earmark.training.trainer import train_network as train

    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=4, quiet=2)
    options = {"workers": 2, "cache_folder": str(tmp_path / "kept")}
    recipe = toy.toy_recipe(
        manifest, data=options, optimizer={"epochs": 3, "batch_size": 2}, evaluation={"every_epochs": 1}
    )
    train(recipe, tmp_path / "first", 1)
    assert decoded() == 10
    train(recipe, tmp_path / "second", 1)
    assert decoded() == 0
    scores = [np.load(tmp_path / name / "scores.npy") for name in ("first", "second")]
    np.testing.assert_array_equal(*scores)
