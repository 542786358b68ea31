"""Folders are searched for regular files, each once; what cannot be listed is named."""

import os
import socket
from pathlib import Path

import pytest

from earmark.audio.find import SUFFIXES, find_recordings
from earmark.audio.formats import ALLOWED, FORMATS
from earmark.errors import AudioError


def names(folder, recursive=True):
    return [
        item if isinstance(item, AudioError) else os.path.relpath(item, folder)
        for item in find_recordings([folder], recursive)
    ]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_recordings_of_every_suffix_in_order(tmp_path):
    wanted = ["f.eac3", "film.m4v", "film.wmv", "memo.3gp", "ok.m4a", "ring.m4r", "x.WAV"]
    touch(*(tmp_path / name for name in [*wanted, "notes.txt", ".hidden.wav", "r.gsm", "r.vox"]))
    assert names(tmp_path) == wanted


def test_every_suffix_is_of_a_format_that_the_decoder_has():
    av = pytest.importorskip("av")
    assert set(FORMATS) == SUFFIXES
    known = {name for form in av.formats_available for name in form.split(",")}
    assert set(FORMATS.values()) <= known
    assert set(FORMATS.values()) <= set(ALLOWED.split(","))


def test_subfolders(tmp_path):
    touch(tmp_path / "b" / "2.wav", tmp_path / "a.wav", tmp_path / ".cache" / "3.wav")
    assert names(tmp_path) == ["a.wav", os.path.join("b", "2.wav")]
    assert names(tmp_path, recursive=False) == ["a.wav"]
    (found,) = find_recordings([tmp_path / "b" / ".."], recursive=False)
    assert str(found).endswith("a.wav")
    empty = tmp_path / "empty"
    empty.mkdir()
    (error,) = find_recordings([empty])
    assert str(error).startswith(f"{empty}: no recordings")


def test_a_folder_is_listed_once_however_it_is_reached(tmp_path):
    touch(tmp_path / "a" / "1.wav")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert names(tmp_path) == [os.path.join("a", "1.wav")]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_and_sockets_are_named_and_not_opened(tmp_path, monkeypatch):
    touch(tmp_path / "b.wav")
    os.mkfifo(tmp_path / "a.wav")
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("c.wav")
        pipe, file, other = names(tmp_path)
    assert file == "b.wav"
    assert str(pipe).startswith(f"{tmp_path / 'a.wav'}: ")
    assert str(other).startswith(f"{tmp_path / 'c.wav'}: ")


def test_a_folder_that_cannot_be_read_is_an_item(tmp_path, monkeypatch):
    touch(tmp_path / "a" / "1.wav", tmp_path / "b" / "2.wav", tmp_path / "c.wav")
    listdir = os.listdir

    def refuse(folder):
        if Path(folder).name == "a":
            raise PermissionError(13, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refuse)
    error, *found = names(tmp_path)
    assert str(error) == f"{tmp_path / 'a'}: cannot be read (permission denied)"
    assert found == [os.path.join("b", "2.wav"), "c.wav"]


def test_a_broken_link_is_listed_for_its_error(tmp_path):
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nothing")
    assert names(tmp_path) == ["gone.wav"]


def test_lists_hold_files_folders_and_patterns(tmp_path: Path) -> None:
    folder = tmp_path / "yard"
    folder.mkdir()
    for name in ("b.wav", "a.ogg", "notes.csv"):
        (folder / name).touch()
    listed = tmp_path / "list.txt"
    listed.write_bytes(f"{folder}\n\n{folder}/*.wav\r\nodd\xff.mp3\n{tmp_path}/none*.wav".encode("latin-1"))
    found = list(find_recordings([listed, "one.flac"]))
    assert found[:4] == [f"{folder}/a.ogg", f"{folder}/b.wav", f"{folder}/b.wav", "odd\udcff.mp3"]
    assert str(found[4]) == f"{tmp_path}/none*.wav: no recording matches this pattern"
    assert found[5:] == ["one.flac"]


def test_a_recording_is_no_list_whatever_its_name(tmp_path: Path) -> None:
    path = tmp_path / "sound.txt"
    path.write_bytes(b"RIFF\x24\0\0\0WAVE")
    assert list(find_recordings([path])) == [str(path)]


def test_patterns_find_recordings_only(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep.wav").mkdir(parents=True)
    for name in ("in/a.wav", "in/deep.wav/b.ogg", "in/c.csv", "[x].wav"):
        (tmp_path / name).touch()
    assert sorted(find_recordings([tmp_path / "**"])) == [
        str(tmp_path / name) for name in ("[x].wav", "in/a.wav", "in/deep.wav/b.ogg")
    ]
    assert list(find_recordings([tmp_path / "[x].wav"])) == [str(tmp_path / "[x].wav")]


def test_a_list_is_read_as_its_paths_are_needed(tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("first.wav\n" + "x.wav\n" * 100_000)
    found = find_recordings([listed])
    assert next(found) == "first.wav"
    listed.write_text("")
    assert sum(1 for _ in found) < 100_000
