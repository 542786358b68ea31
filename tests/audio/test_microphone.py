"""The microphone, with a stand-in for sounddevice: no test has a real one."""

import builtins
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from earmark.audio import microphone
from earmark.audio.live import Lost
from earmark.audio.microphone import Microphone, list_inputs
from earmark.errors import AudioError, MissingExtraError

RATE = 16_000
DEVICES = [
    {"name": "Speaker", "max_input_channels": 0, "default_samplerate": 48_000.0},
    {"name": "USB mic", "max_input_channels": 1, "default_samplerate": 16_000.0},
    {"name": "Line in", "max_input_channels": 2, "default_samplerate": 44_100.0},
]


class PortAudioError(Exception):
    pass


class Stream:
    def __init__(self, **settings: object) -> None:
        if settings["samplerate"] == 1:
            raise PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        self.settings, self.is_open = settings, False

    def start(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def record(self, samples: np.ndarray, at_s: float, overflow: bool = False) -> None:
        """What PortAudio does with each block; its buffer is used again."""
        buffer = samples[:, None].copy()
        times, status = SimpleNamespace(inputBufferAdcTime=at_s), SimpleNamespace(input_overflow=overflow)
        self.settings["callback"](buffer, len(buffer), times, status)
        buffer[:] = np.nan


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """The streams that were opened."""
    opened: list[Stream] = []

    def query_devices(device: object = None, kind: str | None = None) -> object:
        if kind is None:
            return DEVICES
        if device is None:
            return DEVICES[1]
        for number, one in enumerate(DEVICES):
            if device == number or (isinstance(device, str) and device in one["name"]):
                return one
        raise ValueError(f"No input device matching {device!r}")

    def input_stream(**settings: object) -> Stream:
        opened.append(Stream(**settings))
        return opened[-1]

    fake = SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=query_devices,
        InputStream=input_stream,
        default=SimpleNamespace(device=(1, 0)),
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return opened


def ramp(number: int) -> np.ndarray:
    return np.full(RATE // 10, number / 100, np.float32)


def test_what_is_recorded_comes_in_order(streams: list[Stream]) -> None:
    with Microphone() as mic:
        assert (mic.name, mic.sample_rate) == ("USB mic", RATE)
        assert streams[0].settings["channels"] == 1
        blocks = mic.blocks()
        for number in range(5):
            streams[0].record(ramp(number), number / 10)
            np.testing.assert_array_equal(next(blocks), ramp(number))
        streams[0].record(ramp(5), 0.5)
        mic.stop()
        np.testing.assert_array_equal(next(blocks), ramp(5))
        assert list(blocks) == []
    assert not streams[0].is_open


def test_an_overflow_is_a_gap_of_the_time_that_passed(streams: list[Stream]) -> None:
    with Microphone("USB") as mic:
        streams[0].record(ramp(0), 0.0)
        streams[0].record(ramp(1), 0.35, overflow=True)
        blocks = mic.blocks()
        next(blocks)
        lost = next(blocks)
        assert isinstance(lost, Lost)
        assert lost.samples == 0.25 * RATE
        np.testing.assert_array_equal(next(blocks), ramp(1))
        assert mic.overflows == 1


def test_what_nobody_takes_is_counted(streams: list[Stream], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(microphone, "LONGEST_WAIT_S", 1)
    with Microphone() as mic:
        for number in range(25):
            streams[0].record(ramp(number), number / 10)
        blocks = mic.blocks()
        taken = [next(blocks) for _ in range(9)]
        streams[0].record(ramp(25), 2.5)
        lost, last = next(blocks), next(blocks)
        np.testing.assert_array_equal(taken[-1], ramp(8))
        np.testing.assert_array_equal(last, ramp(25))
        assert lost.samples == 16 * RATE // 10
        assert mic.overflows == 1


def test_a_microphone_that_falls_silent_for_good_is_an_error(
    streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microphone, "PATIENCE_S", 0.05)
    with Microphone() as mic, pytest.raises(AudioError, match=r"USB mic.*connected"):
        next(mic.blocks())


def test_microphones_that_are_not_there(streams: list[Stream]) -> None:
    for wrong in ("piano", "7"):
        with pytest.raises(AudioError, match=f"{wrong}.*--list-mics"):
            Microphone(wrong)
    with pytest.raises(AudioError, match="Invalid sample rate"):
        Microphone(sample_rate=1)
    assert Microphone("2").name == "Line in"


def test_list(streams: list[Stream]) -> None:
    assert [(one.number, one.name, one.is_default) for one in list_inputs()] == [
        (1, "USB mic", True),
        (2, "Line in", False),
    ]


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (OSError("PortAudio library not found"), AudioError, "libportaudio2"),
        (ModuleNotFoundError("no", name="sounddevice"), MissingExtraError, "earmark\\[mic\\]"),
    ],
)
def test_without_the_libraries(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, kind: type[Exception], words: str
) -> None:
    real = builtins.__import__

    def fails(name: str, *rest: object, **more: object) -> object:
        if name == "sounddevice":
            raise failure
        return real(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", fails)
    for call in (Microphone, list_inputs):
        with pytest.raises(kind, match=words):
            call()
