"""earmark listen: sources, outputs, gaps, the end of a stream, and what cannot be listened to."""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from one_line import assert_one_line

import earmark
from earmark.audio import load_audio, microphone
from earmark.audio.live import Lost
from earmark.events import mqtt
from earmark.events.options import EventOptions, LabelOptions

RATE = 16_000
ROOT = Path(__file__).resolve().parents[2]
FARM = ROOT / "examples" / "farm.ogg"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def farm() -> np.ndarray:
    """16 s: a rooster from 0 s on, a dog from 10 s on."""
    return load_audio(FARM, RATE)[0][: 16 * RATE]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Sets what standard input holds."""
    return lambda content: monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))


def raw(waveform: np.ndarray) -> bytes:
    return waveform.astype("<f4").tobytes()


RAW = ("-", "--rate", RATE, "--encoding", "f32le", "--threads", 1)


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def test_json_lines_are_what_a_listener_says(run: Run, stdin, farm: np.ndarray) -> None:
    stdin(raw(farm))
    code, out, err = run("listen", *RAW, "--format", "jsonl", "--label", "dog=0.5", "--label", "Fowl")
    assert (code, err) == (0, "")
    first, *notices, last = lines(out)
    assert {key: first[key] for key in ("type", "source", "sample_rate", "model")} == {
        "type": "listening",
        "source": "standard input",
        "sample_rate": RATE,
        "model": "mn05_open",
    }
    own = EventOptions(per_label={"Dog": LabelOptions(threshold=0.5)})
    listener = earmark.load().listen(RATE, own)
    wanted = [one.to_dict() for one in listener.feed(farm) + listener.flush()]
    assert [{key: one[key] for key in one if key != "time"} for one in notices] == [
        one for one in wanted if one["label"] in ("Dog", "Fowl")
    ]
    assert {one["label"] for one in notices} == {"Dog", "Fowl"}
    assert (last["type"], last["position_s"], last["gaps"], last["error"]) == ("stopped", 16.0, 0, None)
    assert 2 * last["events"] == len(notices)


def test_lines_for_people(run: Run, stdin, farm: np.ndarray) -> None:
    stdin(raw(farm))
    code, out, err = run("listen", *RAW, "--label", "Dog=0.5")
    assert code == 0
    assert re.fullmatch(r"(0:00:1\d\.\d  start  Dog  0\.\d\d\n0:00:\d\d\.\d  end    Dog  .*\n)+", out)
    assert "listening to standard input" in err
    stdin(raw(farm))
    assert run("listen", *RAW, "--label", "Dog=0.5", "--quiet") == (0, out, "")


def test_a_stream_in_a_format(run: Run, stdin) -> None:
    stdin(FARM.read_bytes())
    code, out, _ = run("listen", "-", "--label", "Dog=0.5", "-f", "jsonl")
    assert code == 0
    assert lines(out)[-1]["position_s"] == pytest.approx(30.0, abs=0.01)
    assert len(lines(out)) > 3


@pytest.mark.parametrize("moment_s", [0, 15])
def test_nan_ends_a_stream_with_what_was_heard_before(
    run: Run, stdin, farm: np.ndarray, moment_s: int
) -> None:
    broken = farm.copy()
    broken[moment_s * RATE :] = np.nan
    stdin(raw(broken))
    code, out, err = run("listen", *RAW, "--label", "Dog=0.5", "-f", "jsonl")
    assert code == (1 if moment_s else 2)
    assert_one_line(err, "not a number (NaN)", f"sample {moment_s * RATE}")
    stopped = lines(out)[-1]
    assert stopped["position_s"] == pytest.approx(moment_s, abs=1.1)
    assert "NaN" in stopped["error"]
    assert [one["type"] for one in lines(out)].count("end") == stopped["events"] == (2 if moment_s else 0)


def test_a_stream_that_ends_at_once(run: Run, stdin) -> None:
    stdin(b"")
    code, _, err = run("listen", *RAW, "-q")
    assert code == 2
    assert_one_line(err, "standard input", "without a sample")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["street.wav"], "SOURCE"),
        (["-", "--channels", 2], "--rate"),
        (["--channels", 2], "--channels"),
        (["-", "--mic", "USB"], "--mic"),
        (["-", "--rate", 1], "1 Hz"),
        (["-", "--rate", RATE, "--encoding", "mp3"], "s16le"),
        (["-", "--rate", RATE, "--label", "Dgo"], "did you mean 'Dog'"),
        (["-", "--rate", RATE, "--label", "Dog=2"], "--label"),
        (["-", "--rate", RATE, "--threshold", "high"], "--threshold"),
        (["-", "--rate", RATE, "--gate", 20], "gate_db"),
        (["-", "--rate", RATE, "--mqtt", "localhost"], "mqtt://"),
        (["-", "--rate", RATE, "--mqtt", "mqtt://127.0.0.1:1/x"], "cannot be reached"),
    ],
)
def test_wrong_commands(run: Run, stdin, arguments: list, words: str) -> None:
    stdin(b"")
    code, out, err = run("listen", *arguments)
    assert (code, out) == (2, "")
    assert_one_line(err, words)


class FakeMicrophone:
    """Records the dog of the farm, loses a second of it, and is then unplugged."""

    def __init__(self, device: str | None, rate: int | None) -> None:
        self.name, self.sample_rate = f"mic {device}", rate or RATE
        self.is_open = True

    def __enter__(self) -> "FakeMicrophone":
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def blocks(self) -> Iterator[np.ndarray | Lost]:
        waveform = load_audio(FARM, RATE)[0]
        yield from np.split(waveform[: 12 * RATE], 120)
        yield Lost(RATE, "they came too fast")
        yield from np.split(waveform[13 * RATE : 16 * RATE], 30)
        raise earmark.AudioError(f"microphone {self.name}: no samples")

    def stop(self) -> None:
        self.is_open = False


def test_a_microphone_with_a_dropout_that_is_unplugged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "Microphone", FakeMicrophone)
    code, out, err = run("listen", "--mic", "USB", "-f", "jsonl", "--label", "Dog=0.5")
    assert code == 1
    assert_one_line(err, "mic USB", "no samples")
    [gap] = [one for one in lines(out) if one["type"] == "gap"]
    assert (gap["start_s"], gap["duration_s"], gap["reason"]) == (12.0, 1.0, "they came too fast")
    stopped = lines(out)[-1]
    assert (stopped["position_s"], stopped["gaps"], stopped["lost_s"]) == (16.0, 1, 1.0)
    kinds = [one["type"] for one in lines(out)]
    assert kinds.count("start") == kinds.count("end") == stopped["events"] > 0


def test_list_of_microphones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [microphone.Input(3, "USB", 1, 44_100, True)]
    monkeypatch.setattr(microphone, "list_inputs", lambda: found)
    code, out, _ = run("listen", "--list-mics")
    assert code == 0
    assert out.split() == ["3", "USB", "(1", "channels,", "44100", "Hz,", "default)"]
    found.clear()
    code, _, err = run("listen", "--list-mics")
    assert code == 2
    assert_one_line(err, "no microphone")


class FakePublisher:
    """A connection that loses the last message."""

    messages: list[str]

    def __init__(self, address: mqtt.Address) -> None:
        type(self).messages = []
        self.address, self._reports = address, [f"{address.broker}: connection lost"]

    def publish(self, message: str) -> None:
        self.messages.append(message)

    def reports(self) -> list[str]:
        reports, self._reports = self._reports, []
        return reports

    def close(self) -> int:
        return 1


def test_messages_go_to_a_broker_and_lost_ones_are_an_error(
    run: Run, stdin, farm: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt, "Publisher", FakePublisher)
    stdin(raw(farm[: 12 * RATE]))
    code, out, err = run("listen", *RAW, "-f", "jsonl", "--mqtt", "mqtt://here/sounds")
    assert code == 1
    assert FakePublisher.messages == out.splitlines()
    assert err.splitlines() == [
        "earmark: warning: MQTT broker here:1883: connection lost",
        "earmark: 1 messages did not reach the MQTT broker",
    ]


LISTEN = [sys.executable, "-m", "earmark", "listen", *map(str, RAW), "--label", "Dog=0.5"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_is_on_and_then_the_command(farm: np.ndarray, number: int) -> None:
    with subprocess.Popen(
        [*LISTEN, "-f", "jsonl"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(raw(farm[9 * RATE : 12 * RATE]))
        process.stdin.flush()
        early = [json.loads(process.stdout.readline()) for _ in range(2)]  # before the stream ends
        assert [one["type"] for one in early] == ["listening", "start"]
        process.send_signal(number)
        rest = lines(process.stdout.read().decode())
        kinds = [one["type"] for one in [*early, *rest]]
        assert kinds[-2:] == ["end", "stopped"]
        assert kinds.count("start") == kinds.count("end") == rest[-1]["events"]
        assert rest[-2]["at_s"] == rest[-1]["position_s"] == pytest.approx(3.0, abs=0.5)
        assert (process.wait(60), process.stderr.read()) == (0, b"")


def test_the_live_view_in_a_terminal(farm: np.ndarray) -> None:
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    command = [*LISTEN, "--label", "Bark", "--label", "Cat"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=slave, stderr=slave, env=environment
    ) as process:
        os.close(slave)
        feeder = threading.Thread(target=feed_until, args=(process, farm), daemon=True)
        feeder.start()
        shown = b""
        try:
            while part := os.read(master, 1 << 16):
                shown += part
        except OSError:  # the end, on Linux
            pass
        feeder.join()
        assert process.wait(60) == 0
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"0:00:1\d\.\d  start  Dog  0\.\d\d", text)
    assert re.search(r"0:00:1\d\.\d  -\d\d dB", text), "position and level"
    assert re.search(r"Dog +0\.[5-9]\d +\S", text), "a score and its bar"
    assert re.search(r"Cat +0\.\d\d", text)
    assert "Fowl" not in text
    assert "Traceback" not in text


def feed_until(process: "subprocess.Popen[bytes]", waveform: np.ndarray) -> None:
    """Feeds sound slowly enough for the view, which is drawn four times a second."""
    assert process.stdin
    for block in np.split(waveform[: 15 * RATE], 15):
        process.stdin.write(raw(block))
        process.stdin.flush()
        time.sleep(0.1)
    time.sleep(0.5)
    process.stdin.close()
