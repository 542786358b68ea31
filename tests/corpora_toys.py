"""Toy copies of published corpora, in the very layout that they were published in: a function for each.

``make_<corpus>(folder)`` fills the folder; every split has a few clips of 0.3 to 1 s, and where a corpus
comes with a list of its classes, the clips of a split carry all of them.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from earmark.model_file.labels import label_set
from earmark.model_file.ontology import audioset_ontology

YOUTUBE_IDS = ("--4gqARaEJE", "-0RWZT-miFs", "Y0abcDEFghi", "_A1b2C3d4E5")
"""As awkward as the real ones: leading minus signs, underscores, a Y that belongs to the id."""


def waveform(number: int, sample_rate: int) -> np.ndarray:
    """A tone in noise, float32 (time,), of another pitch and length for each number."""
    time = np.arange(round(sample_rate * (0.3 + 0.7 * (number % 4) / 3))) / sample_rate
    tone = 0.4 * np.sin(2 * np.pi * 220 * 2 ** ((number % 24) / 8) * time)
    noise = 0.05 * np.random.default_rng(number).standard_normal(len(time))
    return (tone + noise).astype(np.float32)


def write_clip(path: Path, number: int = 0, sample_rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, waveform(number, sample_rate), sample_rate)
    return path


def write_table(path: Path, rows: Iterable[Sequence[object]], delimiter: str = ",") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return path


def mp3(number: int, sample_rate: int = 32000) -> np.ndarray:
    """The bytes of an mp3, uint8 (byte,)."""
    stream = io.BytesIO()
    soundfile.write(stream, waveform(number, sample_rate), sample_rate, format="MP3")
    return np.frombuffer(stream.getvalue(), np.uint8)


def write_hdf5(path: Path, names: Sequence[str], target: np.ndarray) -> Path:
    import h5py

    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset("audio_name", data=np.array(names, "S20"))
        recordings = file.create_dataset("mp3", (len(names),), h5py.vlen_dtype(np.uint8))
        for row in range(len(names)):
            recordings[row] = mp3(row)
        file.create_dataset("target", data=target)
    return path


def dealt(classes: Sequence[str], clips: int) -> list[tuple[str, ...]]:
    """The classes, dealt to so many clips."""
    return [tuple(classes[number::clips]) for number in range(clips)]


def packed(labels: Sequence[tuple[str, ...]], classes: Sequence[str]) -> np.ndarray:
    """Bits, packed into bytes: uint8 (clip, byte)."""
    return np.packbits([[name in row for name in classes] for row in labels], axis=-1)


def make_audioset_hdf5(folder: Path) -> None:
    classes = label_set("audioset")
    target = packed(dealt(classes, 4), classes)
    for split in ("balanced_train", "unbalanced_train", "eval"):
        prefix = "04/Y" if split == "unbalanced_train" else "Y"
        names = [f"{prefix}{id_}.mp3" for id_ in YOUTUBE_IDS]
        write_hdf5(folder / f"{split}_segments_mp3.hdf", names, target)


def make_audioset(folder: Path) -> None:
    classes, ids = label_set("audioset"), audioset_ontology().ids
    names = {
        "balanced_train": "Y{}.wav",
        "unbalanced_train": "04/{}_30.000.flac",
        "eval": "{}_30000_40000.ogg",
    }
    for split, name in names.items():
        head = f"# Segments csv created\n# num_ytids=4, num_unique_labels={len(classes)}\n"
        lines = [f"{head}# YTID, start_seconds, end_seconds, positive_labels"]
        for number, (id_, labels) in enumerate(zip(YOUTUBE_IDS, dealt(classes, 4), strict=True)):
            mids = ",".join(ids[label] for label in labels)
            lines.append(f'{id_}, 30.000, 40.000, "{mids}"')
            write_clip(folder / "audio" / f"{split}_segments" / name.format(id_), number)
        (folder / f"{split}_segments.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def make_fsd50k_hdf5(folder: Path) -> None:
    classes = label_set("fsd50k")
    target = packed(dealt(classes, 4), classes)
    for split in ("train", "val", "eval"):
        names = [f"{number + 64760}.mp3" for number in range(4)]
        write_hdf5(folder / f"FSD50K.{split}_mp3.hdf", names, target)


def make_fsd50k(folder: Path) -> None:
    classes = label_set("fsd50k")
    dev, evaluated = [("fname", "labels", "mids", "split")], [("fname", "labels", "mids")]
    for number, labels in enumerate(dealt(classes, 4)):
        names = ",".join(labels)
        dev += [(10 + number, names, "/m/x", "train"), (20 + number, names, "/m/x", "val")]
        evaluated.append((30 + number, names, "/m/x"))
    for rows, part in ((dev, "dev"), (evaluated, "eval")):
        write_table(folder / "FSD50K.ground_truth" / f"{part}.csv", rows)
        for fname, *_ in rows[1:]:
            write_clip(folder / f"FSD50K.{part}_audio" / f"{fname}.wav", fname, 44100)
    vocabulary = [(index, name, "/m/x") for index, name in enumerate(classes)]
    write_table(folder / "FSD50K.ground_truth" / "vocabulary.csv", vocabulary)


def make_esc50(folder: Path) -> None:
    rows = [("filename", "fold", "target", "category", "esc10", "src_file", "take")]
    categories = ((0, "dog", True), (10, "rain", True), (37, "clock_alarm", False))
    for fold in range(1, 6):
        for target, category, is_esc10 in categories:
            name = f"{fold}-{1000 + target}-A-{target}.wav"
            rows.append((name, fold, target, category, is_esc10, 1000 + target, "A"))
            write_clip(folder / "audio" / name, target, 44100)
    write_table(folder / "meta" / "esc50.csv", rows)


make_esc10 = make_esc50


def make_openmic_hdf5(folder: Path) -> None:
    count = len(label_set("openmic"))
    probability = np.where(np.arange(count) % 4 == np.arange(4)[:, None], 0.9, 0.2)
    asked = np.arange(count) % 5 != np.arange(4)[:, None]
    target = np.concatenate([probability, asked], 1).astype(np.float32)
    names = [f"00004{number}_3840.mp3" for number in range(4)]
    for split in ("train", "test"):
        write_hdf5(folder / f"openmic_{split}.csv_mp3.hdf", names, target)


def make_openmic(folder: Path) -> None:
    classes = label_set("openmic")
    rows: list[Sequence[object]] = [("sample_key", "instrument", "relevance", "num_responses")]
    for split, first in (("train", 46), ("test", 135046)):
        keys = [f"{first + number:06d}_3840" for number in range(4)]
        for number, key in enumerate(keys):
            write_clip(folder / "audio" / key[:3] / f"{key}.ogg", number, 44100)
            rows += [
                (key, label, 0.9 if index % 4 == number else 0.2, 3)
                for index, label in enumerate(classes)
                if index % 5 != number
            ]
        write_table(folder / "partitions" / f"split01_{split}.csv", [(key,) for key in keys])
    write_table(folder / "openmic-2018-aggregated-labels.csv", rows)
    indices = {name: index for index, name in enumerate(classes)}
    (folder / "class-map.json").write_text(json.dumps(indices), encoding="utf-8")


def make_tau(folder: Path, part: str) -> None:
    """``part`` stands in the names of the clips of 2022 only."""
    meta = [("filename", "scene_label", "identifier", "source_label")]
    setup = {"train": [("filename", "scene_label")], "evaluate": [("filename", "scene_label")]}
    test = [("filename",)]
    for number, scene in enumerate(label_set("tau_scenes")):
        for split, city, device in (("train", "lisbon", "a"), ("evaluate", "vienna", f"s{1 + number % 6}")):
            name = f"audio/{scene}-{city}-{number}-{number + 40}{part}-{device}.wav"
            write_clip(folder / name, number, 44100)
            meta.append((name, scene, f"{city}-{number}", device))
            setup[split].append((name, scene))
            if split == "evaluate":
                test.append((name,))
    write_table(folder / "meta.csv", meta, "\t")
    for split, rows in {**setup, "test": test}.items():
        write_table(folder / "evaluation_setup" / f"fold1_{split}.csv", rows, "\t")


def make_tau2020(folder: Path) -> None:
    make_tau(folder, "")


make_tau2021 = make_tau2020


def make_tau2022(folder: Path) -> None:
    make_tau(folder, "-0")


def make_fsdkaggle2018(folder: Path) -> None:
    classes = ("Acoustic_guitar", "Bark", "Hi-hat")
    tables = {
        "train": ("train_post_competition.csv", ("manually_verified", "freesound_id", "license")),
        "test": ("test_post_competition_scoring_clips.csv", ("usage", "freesound_id", "license")),
    }
    for split, (table, columns) in tables.items():
        rows: list[Sequence[object]] = [("fname", "label", *columns)]
        for number in range(15 if split == "train" else 6):
            name = f"{number:03d}{split[:2]}a.wav"
            verified = number % 2 if split == "train" else "Public"
            rows.append((name, classes[number % 3], verified, 1000 + number, "Attribution"))
            write_clip(folder / f"FSDKaggle2018.audio_{split}" / name, number % 3, 44100)
        write_table(folder / "FSDKaggle2018.meta" / table, rows)


def make_fsdkaggle2019(folder: Path) -> None:
    classes = ("Accordion", "Bark", "Hi-hat", "Zipper_(clothing)")
    columns = {
        "train_curated": ("freesound_id", "license"),
        "train_noisy": ("flickr_video_URL", "license"),
        "test": ("usage", "freesound_id", "license"),
    }
    for split, names in columns.items():
        rows: list[Sequence[object]] = [("fname", "labels", *names)]
        for number in range(10):
            name = f"{number:03d}{split[-2:]}.wav"
            labels = classes[number % 4 : number % 4 + 1 + number % 2]
            rows.append((name, ",".join(labels), *range(len(names))))
            write_clip(folder / f"FSDKaggle2019.audio_{split}" / name, number % 4, 44100)
        write_table(folder / "FSDKaggle2019.meta" / f"{split}_post_competition.csv", rows)
    write_table(folder / "FSDKaggle2019.meta" / "vocabulary.csv", enumerate(classes))


def make_speech_commands(folder: Path) -> None:
    lists: dict[str, list[Sequence[str]]] = {"validation": [], "testing": []}
    for number, word in enumerate(label_set("speech_commands")):
        for split in ("train", "validation", "testing"):
            name = f"{word}/0a7c2a8d_nohash_{len(split)}.wav"
            write_clip(folder / name, number)
            if split in lists:
                lists[split].append((name,))
    for split, rows in lists.items():
        write_table(folder / f"{split}_list.txt", rows)
    write_clip(folder / "_background_noise_" / "white_noise.wav")
    (folder / "README.md").write_text("# Speech Commands Data Set v0.02\n", encoding="utf-8")


def make_folders(folder: Path) -> None:
    for number in range(8):
        write_clip(folder / ("dog", "rain")[number % 2] / f"clip {number}.wav", number)


def make_images(folder: Path) -> None:
    from PIL import Image

    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(4):
            wnid = ("n01440764", "n01443537")[number % 2]
            path = folder / split / wnid / f"{wnid}_{number}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (60 + 10 * number, 90, 3), np.uint8)
            Image.fromarray(pixels // (1 + number % 2)).save(path)
