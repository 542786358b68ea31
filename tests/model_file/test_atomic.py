"""Files are written completely or not at all."""

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import pytest

import earmark
from earmark.errors import DataError
from earmark.model_file.atomic import (
    PARTIAL,
    atomic_writer,
    remove_partial,
    require_other_files,
    write_all_atomically,
    write_atomically,
)

PACKAGE = Path(earmark.__file__).parent


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


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    (tmp_path / "file").touch(0o640)
    write_atomically(tmp_path / "file", "new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").write_text("previous")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("folder/later")
    for name in ("link", "dangling"):
        write_atomically(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "real").read_text() == "link"
    assert (tmp_path / "folder" / "later").read_text() == "dangling"


def test_a_pipe_is_written_into(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic_writer(tmp_path / "pipe") as stream:
            stream.write(b"xyz")
            stream.seek(0)
            stream.write(b"a")
        assert os.read(reader, 10) == b"ayz"
        with suppress(KeyError), atomic_writer(tmp_path / "pipe") as stream:
            stream.write(b"half")
            raise KeyError
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_device_is_written_into(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")
    for path in ("/dev/null", tmp_path / "null"):
        write_atomically(path, "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
            write_atomically("/dev/full", "too much")


def test_an_open_file_is_written_into_whatever_its_name(tmp_path):
    with (tmp_path / "out").open("w+b") as opened:
        opened.write(b"before ")
        opened.flush()
        (tmp_path / "link").symlink_to(f"/dev/fd/{opened.fileno()}")
        write_atomically(f"/dev/fd/{opened.fileno()}", "one ")
        write_atomically(tmp_path / "link", "two")
        assert (tmp_path / "out").read_bytes() == b"before one two"
        assert os.path.samestat(os.fstat(opened.fileno()), (tmp_path / "out").stat())


def test_errors_name_the_file(tmp_path):
    (tmp_path / "file").touch()
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for path in (tmp_path, loop):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - any number
            write_atomically(path, "new")
        assert caught.value.filename == str(path)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        write_atomically(tmp_path / "file" / "below", "new")
    assert str(tmp_path / "file") in caught.value.filename
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


def test_an_input_is_no_output(tmp_path):
    source = tmp_path / "source"
    source.touch()
    (tmp_path / "other").touch()
    (tmp_path / "link").symlink_to("source")
    (tmp_path / "hard").hardlink_to(source)
    for name in ("source", "./source", "link", "hard"):
        with pytest.raises(DataError, match="choose another output"):
            require_other_files([tmp_path / "new", tmp_path / name], [tmp_path / "other", source])
    require_other_files([tmp_path / "new", tmp_path / "other", "/dev/null"], [source, "/dev/null", "-"])


def test_no_module_writes_files_by_itself():
    """What is listed here is appended to, or lies in a temporary folder."""
    writes = re.compile(
        r"""\.(write_text|write_bytes)\(|savefig\((?!file\b)|\bopen\([^()]*["'][wax]b?\+?["']"""
    )
    found = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if writes.search(line) and path.name != "atomic.py"
    }
    assert {one.partition(":")[0] for one in found} == {
        "batch/resume.py",  # rows since the last table, which grow and are read up to where they are whole
        "custom/full.py",  # in a temporary folder
        "custom/full_recipe.py",  # likewise
        "export/targets.py",  # a converter that takes a path, in a temporary folder
        "hub/download.py",  # its own partial files, which it resumes
        "serve/static_page.py",  # in a folder beside, which then takes the place of the other
        "training/runtime/run_state.py",  # the log, which grows
    }, found
