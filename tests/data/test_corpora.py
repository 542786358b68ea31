"""Every published corpus is read in its own layout, and refused with the place where it is not that."""

import shutil
from pathlib import Path

import corpora_toys
import h5py
import numpy as np
import pytest

from earmark.data.corpora import CORPORA, load_corpus
from earmark.data.manifest import Clip, label_set, targets
from earmark.data.read_clip import read_clip
from earmark.errors import DataError
from earmark.model_file.labels import label_set as published_labels

SPLITS = {name: corpus.splits or ("",) for name, corpus in CORPORA.items()}
SPLITS["images"] = ("train", "val")
EVERY_SPLIT = [(name, split) for name, splits in SPLITS.items() for split in splits]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory):
    """The folder of a corpus's toy copy, made when first asked for; not to be changed."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            getattr(corpora_toys, f"make_{name}")(made[name])
        return made[name]

    return folder


@pytest.fixture
def own(toy, tmp_path):
    """A copy of a toy that a test may change."""
    return lambda name: Path(shutil.copytree(toy(name), tmp_path / name))


def test_there_is_a_toy_for_every_corpus():
    assert all(hasattr(corpora_toys, f"make_{name}") for name in CORPORA)
    assert len(CORPORA) == 16


@pytest.mark.parametrize(("name", "split"), EVERY_SPLIT)
def test_clips_of_every_split_have_ids_labels_and_sound(toy, name, split):
    clips = load_corpus(name, toy(name), split)
    assert len(clips) >= 4
    assert len({clip.id for clip in clips}) == len(clips)
    if split == "test" and name.startswith("tau"):
        assert not any(clip.labelled or clip.labels for clip in clips)
    else:
        assert len(label_set(clips)) > 1
        assert all(clip.labels for clip in clips)
    if not CORPORA[name].is_images:
        for clip in clips[:4]:
            assert np.abs(read_clip(clip, 16000)).max() > 0.1


@pytest.mark.parametrize("name", [name for name, splits in SPLITS.items() if len(splits) > 1])
def test_splits_share_no_clip(toy, name):
    if name.startswith("tau"):
        return  # its test list holds the clips of its evaluate list, without their labels
    places = [{(clip.path, clip.member) for clip in load_corpus(name, toy(name), s)} for s in SPLITS[name]]
    assert not set.intersection(*places)


@pytest.mark.parametrize(
    ("name", "count"), [("audioset", 527), ("fsd50k", 200), ("openmic", 20), ("speech_commands", 35)]
)
def test_folders_and_hdf5_have_the_same_clips(toy, name, count):
    for split in SPLITS[name]:
        clips = load_corpus(name, toy(name), split)
        assert label_set(clips) == tuple(sorted(published_labels(name)))
        assert len(label_set(clips)) == count
        if f"{name}_hdf5" not in CORPORA:
            continue
        packed = load_corpus(f"{name}_hdf5", toy(f"{name}_hdf5"), split)
        classes = published_labels(name)
        np.testing.assert_array_equal(targets(clips, classes), targets(packed, classes))
        for one, other in zip(clips, packed, strict=True):
            assert one.labels == other.labels
            if name == "audioset":
                assert one.id == other.id


def test_audioset_has_youtube_ids_and_display_names(toy):
    for name, split in EVERY_SPLIT[:6]:
        clips = load_corpus(name, toy(name), split)
        assert [clip.id for clip in clips] == list(corpora_toys.YOUTUBE_IDS)
        assert clips[0].labels[:2] == ("Speech", "Conversation")
    assert clips[0].extra["start_s"] == "30"
    assert clips[0].path.name == "--4gqARaEJE_30000_40000.ogg"


def test_missing_files_of_audioset_are_a_warning(own):
    folder = own("audioset")
    next((folder / "audio" / "eval_segments").glob("_A1b*")).unlink()
    with pytest.warns(UserWarning, match=r"eval_segments\.csv: 1 of its 4 segments have no file"):
        clips = load_corpus("audioset", folder, "eval")
    assert [clip.id for clip in clips] == list(corpora_toys.YOUTUBE_IDS[:3])


def test_openmic_has_unknown_labels(toy):
    for name in ("openmic", "openmic_hdf5"):
        table = targets(load_corpus(name, toy(name), "train"), published_labels("openmic"))
        np.testing.assert_array_equal(table[0, :10], [np.nan, 0, 0, 0, 1, np.nan, 0, 0, 1, 0])
        np.testing.assert_array_equal(table[1, :7], [0, np.nan, 0, 0, 0, 1, np.nan])


def test_duplicate_rows_of_openmic(own):
    folder = own("openmic")
    with (folder / "openmic-2018-aggregated-labels.csv").open("a") as table:
        table.write("000046_3840,banjo,0.50001,3\n")
    assert "banjo" in load_corpus("openmic", folder, "train")[0].labels


def test_esc50_and_esc10(toy):
    clips = load_corpus("esc50", toy("esc50"))
    assert [clip.fold for clip in clips] == [fold for fold in range(1, 6) for _ in range(3)]
    assert clips[0].extra == {"target": "0", "esc10": "True", "src_file": "1000", "take": "A"}
    ten = load_corpus("esc10", toy("esc10"))
    assert {clip.labels for clip in ten} == {("dog",), ("rain",)}
    assert len(ten) == 10


def test_esc_may_lie_in_the_folder_of_efficientat_or_of_a_subset(own):
    folder = own("esc50")
    (folder / "audio").rename(folder / "audio_32k")
    shutil.move(folder / "meta" / "esc50.csv", folder / "meta.csv")
    assert load_corpus("esc50", folder)[0].path.parent.name == "audio_32k"


def test_the_subset_of_esc50_that_the_default_model_is_made_of(shared):
    clips = load_corpus("esc50", shared / "data" / "esc18")
    assert len(clips) == 576
    assert {clip.fold for clip in clips} == {1, 2, 3, 4}
    assert len(label_set(clips)) == 18
    assert clips[0].extra["license"] == "CC0"


@pytest.mark.parametrize("name", ["tau2020", "tau2021", "tau2022"])
def test_tau_has_device_and_city(toy, name):
    train, evaluate, test = (load_corpus(name, toy(name), split) for split in SPLITS[name])
    assert label_set(train) == label_set(evaluate) == published_labels("tau_scenes")
    assert {(clip.extra["device"], clip.extra["city"]) for clip in train} == {("a", "lisbon")}
    assert [clip.extra for clip in test] == [clip.extra for clip in evaluate]
    assert evaluate[1].extra == {"device": "s2", "city": "vienna"}


def test_an_evaluation_set_of_tau_has_no_devices(own):
    folder = own("tau2021")
    (folder / "meta.csv").unlink()
    clips = load_corpus("tau2021", folder, "test")
    assert {clip.extra["device"] for clip in clips} == {"unknown"}
    with pytest.raises(DataError, match=r"meta\.csv:"):
        load_corpus("tau2021", folder, "evaluate")


def test_another_year_of_tau_is_refused(toy):
    with pytest.raises(DataError, match=r"airport-lisbon-0-40-0-a\.wav is not a clip of TAU 2020"):
        load_corpus("tau2020", toy("tau2022"), "train")
    with pytest.raises(DataError):
        load_corpus("tau2022", toy("tau2020"), "evaluate")


def test_kaggle_tables_keep_their_columns(toy):
    clips = load_corpus("fsdkaggle2018", toy("fsdkaggle2018"), "train")
    assert clips[1].extra == {"manually_verified": "1", "freesound_id": "1001", "license": "Attribution"}
    noisy = load_corpus("fsdkaggle2019", toy("fsdkaggle2019"), "train_noisy")
    assert noisy[1].labels == ("Bark", "Hi-hat")
    assert "flickr_video_URL" in noisy[1].extra


def test_speech_commands_have_no_noise_and_ids_with_their_word(toy):
    clips = load_corpus("speech_commands", toy("speech_commands"), "train")
    assert len(clips) == 35
    assert clips[0].id == "backward/0a7c2a8d_nohash_5"


def test_folders_may_lie_in_a_split(toy):
    folder = toy("folders")
    clips = load_corpus("folders", folder)
    assert [clip.labels[0] for clip in clips] == ["dog"] * 4 + ["rain"] * 4
    assert load_corpus("folders", folder.parent, folder.name) == clips


def test_images_are_found_by_their_class(toy):
    clips = load_corpus("images", toy("images"), "val")
    assert [(clip.labels, clip.path.suffix) for clip in clips[:1]] == [(("n01440764",), ".JPEG")]


# --- what is wrong


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("esc51", "", "unknown corpus 'esc51': choose from audioset_hdf5, audioset, "),
        ("fsd50k", "", "corpus 'fsd50k' has several splits: choose one of train, val, eval"),
        ("fsd50k", "dev", "corpus 'fsd50k' has no split 'dev': choose one of train, val, eval"),
        ("esc50", "train", "corpus 'esc50' has no splits, got 'train'"),
        ("esc50", "", "none: is not a folder"),
    ],
)
def test_a_wrong_name_is_refused(name, split, message, tmp_path):
    with pytest.raises(DataError, match=message):
        load_corpus(name, tmp_path / "none", split)


@pytest.mark.parametrize(
    ("name", "split", "lost", "message"),
    [
        ("audioset_hdf5", "eval", "eval_segments_mp3.hdf", "has no eval_segments_mp3.hdf"),
        ("audioset", "eval", "eval_segments.csv", "eval_segments.csv"),
        ("audioset", "eval", "audio", "has no eval_segments"),
        ("fsd50k_hdf5", "val", "FSD50K.val_mp3.hdf", "FSD50K.val_mp3.hdf"),
        ("fsd50k", "val", "FSD50K.ground_truth/dev.csv", "dev.csv"),
        ("fsd50k", "val", "FSD50K.ground_truth/vocabulary.csv", "vocabulary.csv"),
        ("fsd50k", "eval", "FSD50K.eval_audio", "FSD50K.eval_audio"),
        (
            "fsd50k",
            "eval",
            "FSD50K.eval_audio/31.wav",
            "eval.csv: 1 of its 4 clips are missing, the first is",
        ),
        ("esc50", "", "meta", "has no meta/esc50.csv or meta.csv"),
        ("esc50", "", "audio", "has no audio or audio_32k"),
        ("esc10", "", "audio/1-1000-A-0.wav", "esc50.csv: 1 of its 15 clips are missing"),
        ("openmic_hdf5", "test", "openmic_test.csv_mp3.hdf", "openmic_test.csv_mp3.hdf"),
        ("openmic", "test", "audio", "audio"),
        ("openmic", "test", "class-map.json", "class-map.json"),
        ("openmic", "test", "partitions", "split01_test.csv"),
        ("openmic", "test", "openmic-2018-aggregated-labels.csv", "aggregated-labels.csv"),
        ("openmic", "train", "audio/000", "split01_train.csv: 4 of its 4 clips are missing"),
        ("tau2020", "train", "evaluation_setup", "fold1_train.csv"),
        ("tau2020", "train", "audio", "audio"),
        ("fsdkaggle2018", "test", "FSDKaggle2018.meta", "scoring_clips.csv"),
        ("fsdkaggle2018", "test", "FSDKaggle2018.audio_test", "FSDKaggle2018.audio_test"),
        ("fsdkaggle2019", "test", "FSDKaggle2019.meta/vocabulary.csv", "vocabulary.csv"),
        ("fsdkaggle2019", "train_noisy", "FSDKaggle2019.audio_train_noisy", "audio_train_noisy"),
        ("speech_commands", "train", "testing_list.txt", "testing_list.txt"),
        ("speech_commands", "train", "bed", "lacks the folder 'bed'"),
        (
            "speech_commands",
            "train",
            "bed/0a7c2a8d_nohash_7.wav",
            "is missing, though testing_list.txt names",
        ),
        ("images", "val", "val", "val"),
    ],
)
def test_missing_files_are_named(own, name, split, lost, message):
    folder = own(name)
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DataError) as caught:
        load_corpus(name, folder, split)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "split", "path", "old", "new", "message"),
    [
        ("audioset", "eval", "eval_segments.csv", "# YTID", "# ID", "one of the first three lines must be"),
        ("audioset", "eval", "eval_segments.csv", "30.000, 40.000", "30.000", "is not a row of '# YTID"),
        (
            "audioset",
            "eval",
            "eval_segments.csv",
            "/m/09x0r",
            "/m/none",
            "label '/m/none' is not one of the 527",
        ),
        ("fsd50k", "val", "FSD50K.ground_truth/dev.csv", ",split", ",part", "lacks the column split"),
        ("fsd50k", "val", "FSD50K.ground_truth/dev.csv", "Animal", "Anim", "21: label 'Anim' is not"),
        ("fsd50k", "val", "FSD50K.ground_truth/dev.csv", ",val", ",test", "split 'val' of corpus 'fsd50k'"),
        (
            "esc50",
            "",
            "meta/esc50.csv",
            "fold",
            "part",
            "lacks the column fold",
        ),
        ("esc50", "", "meta/esc50.csv", "wav,1,", "wav,one,", "fold 'one' is not an integer"),
        ("esc50", "", "meta/esc50.csv", "1-1000-A-0.wav,", ",", "line 2: filename is empty"),
        (
            "esc50",
            "",
            "meta/esc50.csv",
            "1-1000-A-0.wav,",
            '"1-1000-A-0.wav,',
            "line 16: the table cannot be read",
        ),
        ("esc10", "", "meta/esc50.csv", "True", "False", "no clip has esc10 = True"),
        ("openmic", "test", "class-map.json", "{", "", "is not a JSON object"),
        ("openmic", "test", "class-map.json", "banjo", "bass drum", "label 'banjo' is not one of"),
        ("openmic", "test", "openmic-2018-aggregated-labels.csv", "0.9", "much", "got 'much'"),
        ("openmic", "test", "partitions/split01_test.csv", "135046", "135056", "'135056_3840' has no row in"),
        ("tau2020", "train", "meta.csv", "source_label", "device", "lacks the column source_label"),
        (
            "tau2020",
            "train",
            "meta.csv",
            "audio/bus-",
            "audio/b-",
            "fold1_train.csv: clip audio/bus-lisbon-1",
        ),
        ("tau2020", "train", "evaluation_setup/fold1_train.csv", "\tbus", "\tcar", "label 'car' is not"),
        (
            "fsdkaggle2018",
            "train",
            "FSDKaggle2018.meta/train_post_competition.csv",
            "label",
            "x",
            "lacks the column label",
        ),
        (
            "fsdkaggle2019",
            "test",
            "FSDKaggle2019.meta/vocabulary.csv",
            "Bark",
            "Bork",
            "label 'Bark' is not",
        ),
    ],
)
def test_a_damaged_table_is_refused(own, name, split, path, old, new, message):
    folder = own(name)
    text = (folder / path).read_text(encoding="utf-8")
    assert old in text
    (folder / path).write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_corpus(name, folder, split)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_copy_of_audioset_without_any_recording_is_refused(own):
    folder = own("audioset")
    for path in (folder / "audio" / "eval_segments").iterdir():
        path.rename(path.with_stem(f"clip {path.stem}"))
    with pytest.raises(DataError, match="none of its 4 segments"):
        load_corpus("audioset", folder, "eval")


def test_tables_that_are_not_text_are_refused(own):
    folder = own("esc50")
    (folder / "meta" / "esc50.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError):
        load_corpus("esc50", folder)


def test_another_word_is_refused(own):
    folder = own("speech_commands")
    corpora_toys.write_clip(folder / "hello" / "a.wav")
    with pytest.raises(DataError, match="hello: is not one of the 35 words"):
        load_corpus("speech_commands", folder, "train")


def test_a_folder_that_holds_no_classes_is_refused(tmp_path):
    with pytest.raises(DataError):
        load_corpus("folders", tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError):
        load_corpus("folders", tmp_path)


def test_the_hdf5_file_of_another_corpus_is_refused(own):
    folder = own("fsd50k_hdf5")
    (folder / "FSD50K.val_mp3.hdf").rename(folder / "eval_segments_mp3.hdf")
    with pytest.raises(DataError, match="uint8 of 4 x 66, got uint8 of 4 x 25"):
        load_corpus("audioset_hdf5", folder, "eval")


@pytest.mark.parametrize(
    ("part", "rows", "message"),
    [
        ("mp3", None, "lacks the dataset 'mp3': of audio_name, mp3, target"),
        ("target", 3, "must have the same length, got 4 of audio_name, 4 of mp3, 3 of target"),
    ],
)
def test_an_hdf5_file_of_another_layout_is_refused(own, part, rows, message):
    folder = own("audioset_hdf5")
    with h5py.File(folder / "eval_segments_mp3.hdf", "r+") as file:
        kept = file[part][:rows] if rows else None
        del file[part]
        if rows:
            file[part] = kept
    with pytest.raises(DataError, match=message):
        load_corpus("audioset_hdf5", folder, "eval")


def test_a_name_that_is_no_youtube_id_is_refused(own):
    folder = own("audioset_hdf5")
    with h5py.File(folder / "eval_segments_mp3.hdf", "r+") as file:
        file["audio_name"][2] = b"64760.mp3"
    with pytest.raises(DataError):
        load_corpus("audioset_hdf5", folder, "eval")


def test_corpus_functions(toy):
    from earmark.data.corpora.freesound import esc50

    clip = esc50(toy("esc50"))[0]
    assert clip == Clip(toy("esc50") / "audio" / "1-1000-A-0.wav", ("dog",), 1, clip.extra)
