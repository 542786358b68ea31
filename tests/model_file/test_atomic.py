"""Files are written whole or not at all."""

import os
import stat

import pytest

from earmark.model_file.atomic import PARTIAL, remove_partial, write_atomically


@pytest.mark.parametrize(
    ("content", "stored"), [(b"\x00\xff\r\n", b"\x00\xff\r\n"), ("hört\n", b"h\xc3\xb6rt\n"), ("", b"")]
)
def test_content_is_written_as_it_is(tmp_path, content, stored):
    path = tmp_path / "new" / "folder" / "file.bin"
    write_atomically(path, content)
    assert path.read_bytes() == stored
    assert os.listdir(path.parent) == ["file.bin"]


def test_a_previous_file_is_replaced_and_not_written_into(tmp_path):
    path = tmp_path / "file"
    path.write_text("previous, and longer than the new one")
    with path.open() as reader:
        write_atomically(str(path), "new")
        assert reader.read() == "previous, and longer than the new one"
    assert path.read_text() == "new"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failure_leaves_the_previous_file_and_nothing_else(tmp_path, monkeypatch, step):
    path = tmp_path / "file"
    path.write_text("previous")

    def fail(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "previous"
    assert os.listdir(tmp_path) == ["file"]


def test_an_interruption_leaves_the_previous_file_too(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("previous")

    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert os.listdir(tmp_path) == ["file"]


def test_content_is_on_the_disk_before_the_name_is(tmp_path, monkeypatch):
    order = []
    real = {"fsync": os.fsync, "replace": os.replace}
    for name, function in real.items():
        monkeypatch.setattr(os, name, lambda *a, n=name, f=function: (order.append(n), f(*a))[1])
    write_atomically(tmp_path / "file", "new")
    assert order == ["fsync", "replace"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_others_may_read_what_the_umask_lets_them(tmp_path, mask, mode):
    previous = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "new")
        assert os.umask(mask) == mask
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    for name in (f".state.x1{PARTIAL}", f"notes{PARTIAL}", ".hidden", "state"):
        (tmp_path / name).write_text("")
    remove_partial(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".hidden", f"notes{PARTIAL}", "state"]
