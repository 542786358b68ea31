"""Files are written completely or not at all."""

import os
import stat

import pytest

from earmark.model_file.atomic import PARTIAL, remove_partial, write_all_atomically, write_atomically


@pytest.mark.parametrize(
    ("content", "stored"), [(b"\x00\xff\r\n", b"\x00\xff\r\n"), ("hört\n", b"h\xc3\xb6rt\n"), ("", b"")]
)
def test_content_is_written_unchanged(tmp_path, content, stored):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, content)
    assert path.read_bytes() == stored
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_reader_of_the_previous_file_is_not_disturbed(tmp_path):
    path = tmp_path / "file"
    path.write_text("previous, and longer than the new one")
    with path.open() as reader:
        write_atomically(str(path), "new")
        assert reader.read() == "previous, and longer than the new one"
    assert path.read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_only_the_previous_file(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_text("previous")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "previous"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interruption_leaves_no_partial_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("previous")

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    order = []
    real = {"fsync": os.fsync, "replace": os.replace}
    for name, function in real.items():
        monkeypatch.setattr(os, name, lambda *a, n=name, f=function: (order.append(n), f(*a))[1])
    write_atomically(tmp_path / "file", "new")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_file_mode_follows_the_umask(tmp_path, mask, mode):
    previous = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "new")
        assert os.umask(mask) == mask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_only_partial_files_are_removed(tmp_path):
    for name in (f".state.x1{PARTIAL}", f"notes{PARTIAL}", ".hidden", "state"):
        (tmp_path / name).write_text("")
    remove_partial(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", f"notes{PARTIAL}", "state"]


def test_files_that_belong_together_are_written_together(tmp_path):
    write_all_atomically({tmp_path / "a": "a", tmp_path / "b": b"b"})
    assert (tmp_path / "a").read_text() + (tmp_path / "b").read_text() == "ab"
    with pytest.raises(OSError):  # noqa: PT011 - its errno differs between systems
        write_all_atomically({tmp_path / "a": "new", tmp_path / "a" / "c": "new"})
    assert (tmp_path / "a").read_text() == "a"
