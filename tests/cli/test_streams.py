"""Standard streams of real processes: closed, full, without a reader, quiet; and what reaches a terminal."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_model import INFO, toy_content

from earmark import cli
from earmark.cli.terminal import printable

EARMARK = f"{sys.executable} -m earmark"
ESC = "\x1b[31m"


def shell(command: str, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("capture_output", True)
    command = f"set -o pipefail; {command}"
    return subprocess.run(["bash", "-c", command], text=True, timeout=60, check=False, **options)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "a  b.wav"
    soundfile.write(path, 0.2 * np.random.default_rng(0).standard_normal(4000), 8000)
    return path


@pytest.fixture
def tag(toy_model: Path) -> str:
    return f"{EARMARK} tag --format csv --threads 1 --model '{toy_model}'"


def test_a_closed_standard_output_is_one_line_unless_nothing_goes_there(
    tag: str, clip: Path, tmp_path: Path
) -> None:
    done = shell(f"{tag} '{clip}' >&-")
    assert (done.returncode, done.stderr) == (2, "earmark: standard output: Bad file descriptor\n")
    done = shell(f"{tag} '{clip}' -o '{tmp_path}/out.csv' <&- >&- 2>&-")
    assert done.returncode == 0
    assert (tmp_path / "out.csv").read_text().count("a  b.wav") == 2


def test_other_closed_streams(tag: str, clip: Path) -> None:
    done = shell(f"{tag} missing.wav '{clip}' 2>&-")
    assert (done.returncode, done.stderr) == (1, "")
    assert "missing" not in done.stdout
    done = shell(f"{tag} - <&-")
    assert done.returncode == 2
    assert done.stderr.startswith("earmark: standard input: ")
    assert done.stderr.count("\n") == 1


def test_a_full_standard_output_is_one_line(tag: str, clip: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    done = shell(f"{tag} '{clip}' >/dev/full")
    assert (done.returncode, done.stderr) == (2, "earmark: standard output: No space left on device\n")
    assert shell(f"{tag} missing.wav 2>/dev/full").returncode == 2


def test_a_reader_that_has_gone_ends_the_command_quietly(tag: str, clip: Path) -> None:
    done = shell(f"{tag} {' '.join([f'{chr(39)}{clip}{chr(39)}'] * 60)} | head -1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "path,label,score,start_s,end_s,calibrated\n"


def test_results_come_one_by_one(tag: str, clip: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "later.wav")
    command = [*tag.replace("'", "").split(), str(clip), str(tmp_path / "later.wav")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]  # before the second file can be read
        assert [line.count("a  b.wav") for line in lines] == [0, 1, 1]
        process.kill()


def test_a_terminal_is_not_steered(tmp_path: Path) -> None:
    evil = INFO.changed(
        name=f"n{ESC}", labels=(f"l{ESC}\x9b1m", "tone\r"), description=f"d{ESC}", card=f"c{ESC}\nline\n"
    )
    model, clip = tmp_path / "evil.onnx", tmp_path / f"a{ESC}.wav"
    model.write_bytes(toy_content(evil))
    soundfile.write(tmp_path / "a.wav", np.zeros(4000) + 0.1, 8000)
    (tmp_path / "a.wav").rename(clip)
    (tmp_path / "none").write_text("no sound")
    commands = [
        ["tag", str(clip), f"missing{ESC}.wav", "-m", str(model), "--threads", "1"],
        ["tag", str(clip), "-m", str(model), "--format", "csv", "--threads", "1"],
        ["tag", str(clip), "-m", str(model), "--format", "json", "--threads", "1"],
        ["info", str(model)],
        ["info", f"no{ESC}"],
    ]
    for arguments in commands:
        shown = in_terminal([*EARMARK.split(), *arguments])
        shown = (
            shown.replace("\x1b[2K", "").replace("\x1b[?25l", "").replace("\x1b[?25h", "")
        )  # the status line
        shown = shown.replace("\x1b[1A", "")
        assert "[31m" in shown, arguments
        assert ESC not in shown, arguments
        assert "\x9b" not in shown, arguments


def in_terminal(command: list[str]) -> str:
    """What a command writes to a terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True) as process:
        os.close(slave)
        parts = []
        try:
            while part := os.read(master, 1 << 16):
                parts.append(part)
        except OSError:  # the end, on Linux
            pass
        process.wait(timeout=60)
    os.close(master)
    return b"".join(parts).decode("utf-8", "replace")


def test_data_keep_their_bytes_in_a_pipe_and_json_stays_json(tag: str, clip: Path, tmp_path: Path) -> None:
    odd = os.fsencode(tmp_path) + b"/x\xff\x1b.wav"
    os.link(clip, odd)
    command = tag.replace("'", "").split()
    done = subprocess.run([*command, odd], capture_output=True, timeout=60, check=True)
    assert odd in done.stdout
    command[command.index("csv")] = "json"
    done = subprocess.run([*command, odd], capture_output=True, timeout=60, check=True)
    assert os.fsencode(json.loads(done.stdout)[0]["path"]) == odd


def test_commands_print_through_one_module() -> None:
    folder = Path(cli.__file__).parent
    found = [path.name for path in folder.glob("*.py") if re.search(r"(?<![\w.])print\(", path.read_text())]
    assert set(found) <= {"terminal.py", "progress.py"}  # the latter moves the cursor


def test_printable() -> None:
    assert printable("a\tb\nç  日") == "a\tb\nç  日"
    assert printable("\x00\x1b\r\x7f\x9b\udcff") == r"\u0000\u001b\u000d\u007f\u009b\udcff"
    assert json.loads(f'"{printable(chr(27))}"') == "\x1b"


def test_blanks_and_lines_of_messages(run, tmp_path: Path) -> None:
    code, _, err = run("info", tmp_path / "two  blanks.onnx")
    assert code == 2
    assert "two  blanks.onnx" in err
    code, _, err = run("info", tmp_path / "two\nlines.onnx")
    assert (code, err.count("\n")) == (2, 1)


def test_quiet_silences_libraries_in_c_too(tag: str, clip: Path) -> None:
    program = (
        "import os, sys, earmark.inference.load as load; real = load.load\n"
        "load.load = lambda *a, **k: (os.write(2, b'note of a decoder'), real(*a, **k))[1]\n"
        "from earmark.cli import main; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", program, *tag.replace("'", "").split()[3:], "none.wav", str(clip)]
    for options, notes in (([], 1), (["--quiet"], 0)):
        done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert done.stderr.count("note of a decoder") == notes
        assert "none.wav: no such file" in done.stderr


def test_a_mistake_in_earmark_is_one_line(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(*arguments: object) -> None:
        raise ValueError("broken\nmore")

    monkeypatch.setattr("earmark.hub.registry.find", mistaken)
    code, out, err = run("info")
    assert (code, out) == (70, "")
    assert "internal error (ValueError: broken)" in err
    assert err.count("\n") == 1
