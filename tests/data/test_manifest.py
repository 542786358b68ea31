"""A manifest is read row by row, and a damaged one is refused with its place."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from earmark.data.manifest import Clip, clips_hash, file_hash, label_set, read_manifest, select, targets
from earmark.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "clips.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_rows_become_clips_in_their_order(write, tmp_path):
    text = (
        "license,path,fold,labels,title\n"
        "CC0,dog.wav,2,dog,\n"
        'CC-BY,sub/städt.ogg,1,rain;dog,"one, ""two"""\n'
        "CC0,/elsewhere/quiet.flac,,,three\n"
    )
    assert read_manifest(write(text)) == [
        Clip(tmp_path / "dog.wav", ("dog",), 2, {"license": "CC0", "title": ""}),
        Clip(tmp_path / "sub/städt.ogg", ("rain", "dog"), 1, {"license": "CC-BY", "title": 'one, "two"'}),
        Clip(Path("/elsewhere/quiet.flac"), (), 0, {"license": "CC0", "title": "three"}),
    ]


def test_relative_paths_may_start_elsewhere(write, tmp_path):
    clips = read_manifest(write("path,labels\ndog.wav,dog\n/root/cat.wav,cat\n"), tmp_path / "audio")
    assert [str(clip.path) for clip in clips] == [str(tmp_path / "audio" / "dog.wav"), "/root/cat.wav"]


@pytest.mark.parametrize(("encoding", "end"), [("utf-8-sig", "\n"), ("utf-8", "\r\n")])
def test_csv_of_spreadsheets(write, encoding, end):
    (clip,) = read_manifest(write(f"path,labels{end}größe.wav,dog{end}", encoding))
    assert (clip.path.name, clip.labels, clip.extra) == ("größe.wav", ("dog",), {})


def test_empty_labels_between_separators_are_none(write):
    (clip,) = read_manifest(write("path,labels\ndog.wav,;dog;;cat;\n"))
    assert clip.labels == ("dog", "cat")


def test_blanks_around_labels_and_repeated_labels_are_dropped(write):
    (clip,) = read_manifest(write("path, labels ,fold,unknown\na.wav, dog ; big cat;dog, 2 ,; rain\n"))
    assert (clip.labels, clip.fold, clip.unknown) == (("dog", "big cat"), 2, ("rain",))


def test_rows_of_one_file_are_clips_of_their_own_members(write):
    assert [clip.member for clip in read_manifest(write("path,labels,member\na.hdf,,0\na.hdf,,1\n"))] == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the column labels, path: it has none"),
        ("path,labels\n", "has no clips"),
        ("path,label\na.wav,dog\n", "lacks the column labels: it has path, label"),
        ("file,class\na.wav,dog\n", "lacks the column labels, path: it has file, class"),
        ("path,labels,fold\na.wav,dog,1\nb.wav,dog,one\n", "line 3: fold 'one' is not an integer"),
        ("path,labels,member\na.hdf,dog,x\n", "line 2: member 'x' is not an integer"),
        ("path,labels,fold\na.wav,dog,1.5\n", "line 2: fold '1.5' is not an integer"),
        ("path,labels\na.wav,dog\n,dog\n", "line 3: path is empty"),
        ('path,labels\n"a.wav,dog\n', "cannot be read"),
        ("path,labels\na.wav,dog,cat\n", "line 2: must have 2 fields (path, labels), got 3"),
        ("path,labels,fold\na.wav,dog,1\nb.wav,do", "line 3: must have 3 fields"),
        ("path,labels\na.wav,dog\nb.wav,", "line 3: the last row ends without labels"),
        ("path,labels,labels\na.wav,dog,cat\n", "has the column 'labels' twice"),
        ("path,labels\na.wav,dog\nb.wav,\na.wav,cat\n", "line 4: 'a.wav' is on line 2 too"),
        ("path,labels,unknown\na.wav,dog,cat; dog\n", "line 2: 'dog' is among labels and unknown"),
        ("path,labels,labelled\na.wav,dog,maybe\n", "line 2: labelled must be yes, no or empty, got 'maybe'"),
        ("path,labels,member\na.hdf,dog,-1\n", "line 2: member '-1' is not an integer"),
    ],
)
def test_a_damaged_manifest_is_refused(write, text, message):
    path = write(text)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_manifest_and_one_that_is_not_utf8_are_refused(write, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(DataError):
        read_manifest(write("path,labels\ngröße.wav,dog\n", "latin-1"))


def clip(name, *labels, **extra) -> Clip:
    return Clip(Path(name), labels, 0, extra)


def test_labels_are_every_one_once_in_alphabetical_order():
    assert label_set([clip("a", "rain", "dog"), clip("b"), clip("c", "dog", "cat")]) == ("cat", "dog", "rain")
    assert label_set([]) == ()


def test_targets_have_a_one_where_a_label_is_set():
    table = targets([clip("a", "rain", "dog"), clip("b"), clip("c", "cat")], ("cat", "dog", "rain"))
    np.testing.assert_array_equal(table, [[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    assert table.dtype == np.float32


def test_unknown_targets_are_nan(write):
    text = "path,labels,unknown\na.wav,dog,cat;rain\nb.wav,rain,\n"
    clips = read_manifest(write(text))
    assert label_set(clips) == ("cat", "dog", "rain")
    np.testing.assert_array_equal(targets(clips, label_set(clips)), [[np.nan, 1, np.nan], [0, 0, 1]])


def test_clip_id(write):
    clips = read_manifest(write("path,labels,id,member\nall.hdf,dog,-0RWZT-miFs,3\na/b.wav,dog,,\n"))
    assert [(clip.id, clip.member) for clip in clips] == [("-0RWZT-miFs", 3), ("b", None)]


def test_an_unknown_label_is_refused():
    with pytest.raises(DataError, match="label 'cow' is not one of the 2 labels"):
        targets([clip("a.wav", "cow")], ("cat", "dog"))


def test_select_by_columns():
    clips = [
        clip("a", license="CC0", kind="x"),
        clip("b", license="CC-BY", kind="y"),
        clip("c", license="CC-BY-NC", kind="x"),
    ]
    assert select(clips, {}) == clips
    assert select(clips, {"license": ["CC0", "CC-BY"]}) == clips[:2]
    assert select(clips, {"license": ["CC0", "CC-BY"], "kind": ["y"]}) == clips[1:2]
    assert select(clips, {"license": ["none"]}) == []


def test_selecting_by_a_missing_column_is_refused():
    with pytest.raises(DataError):
        select([clip("a.wav", kind="x")], {"license": ["CC0"]})


def test_file_hash(write):
    path = write("path,labels\n")
    assert file_hash(path) == hashlib.sha256(b"path,labels\n").hexdigest()


def test_clips_hash():
    clips = [clip("a.wav", "dog"), clip("b.wav")]
    elsewhere = [clip("x/a.flac", "dog"), clip("y/b.wav", license="CC0")]
    assert clips_hash(clips) == clips_hash(elsewhere)
    others = [clips[::-1], clips[:1], [clip("a.wav", "cat"), clips[1]], [replace(clips[0], fold=1), clips[1]]]
    assert len({clips_hash(clips), *map(clips_hash, others)}) == 5
