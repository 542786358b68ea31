"""A folder has one writer, and a killed one leaves nothing behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from earmark.errors import DataError
from earmark.model_file.lock import LOCK_FILE, locked_folder

HOLDER = """
import os, sys, time
from pathlib import Path
from earmark.model_file.lock import locked_folder
with locked_folder(Path(sys.argv[1])):
    if "fork" in sys.argv:
        started, starts = os.pipe()
        if os.fork() == 0:
            os.write(starts, b"1")
            time.sleep(60)
        os.read(started, 1)  # the child runs, so it has let go of the lock
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(folder), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout
    with process.stdout:
        assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("options", [(), ("fork",)])
def test_the_second_process_is_told_who_holds_the_folder_and_a_kill_frees_it(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    process = holder(tmp_path / "new", *options)
    try:
        with pytest.raises(DataError) as caught, locked_folder(tmp_path / "new"):
            pass
        text = str(caught.value)
        assert f"process {process.pid} on {os.uname().nodename} since {time.strftime('%Y-')}" in text
        process.kill()
        process.wait()
        assert (tmp_path / "new" / LOCK_FILE).exists()
        with locked_folder(tmp_path / "new"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL) if options else process.kill()
    assert os.listdir(tmp_path / "new") == []


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        with pytest.raises(DataError, match=f"process {os.getpid()} "), locked_folder(tmp_path):
            pass
        with locked_folder(tmp_path / "other"):
            pass
    with locked_folder(tmp_path):
        pass


def test_a_forked_child_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with locked_folder(tmp_path):
        child = multiprocessing.get_context("fork").Process(target=lambda: None)
        child.start()
        child.join()
        with pytest.raises(DataError), locked_folder(tmp_path):
            pass


def test_an_error_frees_it(tmp_path: Path) -> None:
    with pytest.raises(KeyError), locked_folder(tmp_path):
        raise KeyError
    assert os.listdir(tmp_path) == []
