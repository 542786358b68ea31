"""Speeds are measured in turns; memory is that of a fresh process."""

import json
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from earmark.errors import ModelError
from earmark.evaluation import speed
from earmark.evaluation.speed import Setting, Speed, summary, to_dict
from earmark.hub import registry

ENGINES = {"onnx": ("fp32",), "openvino": ("fp32", "bf16")}
SECONDS = {("onnx", "fp32"): 0.040, ("openvino", "fp32"): 0.050, ("openvino", "bf16"): 0.016}
CLIP = Path("clip.wav")


class Clock:
    """A clock that advances only while a job computes or sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Computing:
    """A tagger that takes so long for a file, half as long for a window, and much longer the first time."""

    def __init__(self, clock: Clock, setting: Setting, log: list[Setting], window_s: float = 5.0) -> None:
        self.clock, self.setting, self.log, self.first = clock, setting, log, True
        self.info = SimpleNamespace(front_end=SimpleNamespace(sample_rate=8000), window_s=window_s)

    def tag(self, source: object, sample_rate: int | None = None) -> SimpleNamespace:
        took = SECONDS[self.setting.engine, self.setting.precision] / self.setting.threads
        is_file = isinstance(source, Path)
        length_s = 20.0 if is_file else len(source) / sample_rate
        self.clock.now += 10.0 if self.first else took if is_file else took / 2
        self.first = False
        self.log.append(self.setting)
        return SimpleNamespace(duration_s=length_s)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> tuple[dict[Setting, Speed], list[Setting]]:
    clock, log = Clock(), []
    monkeypatch.setattr(speed, "time", clock)
    monkeypatch.setattr(Setting, "load", lambda setting: Computing(clock, setting, log))
    return speed.measure(speed.all_settings(["some"], [1, 2], ENGINES), CLIP, rounds=4), log


def test_speeds_are_those_of_a_call_and_ratios_are_within_a_number_of_threads(measured) -> None:
    for setting, own in measured[0].items():
        took = SECONDS[setting.engine, setting.precision] / setting.threads
        assert own.clip_s == pytest.approx(took)
        assert own.window_s == pytest.approx(took / 2)
        assert own.clip_factor == pytest.approx(took / 20)
        assert own.window_factor == pytest.approx(took / 2 / 5)
        assert own.speedup == pytest.approx(0.040 / SECONDS[setting.engine, setting.precision])


def test_settings_take_turns_in_changing_order(measured) -> None:
    settings, log = list(measured[0]), measured[1]
    turns = [one for one, before in zip(log, [None, *log], strict=False) if one != before]
    back_and_forth = settings[::-1] + settings[1:]
    assert back_and_forth in [turns[start:][: len(back_and_forth)] for start in range(len(turns))]


def test_onnx_runtime_in_float32_is_what_others_are_compared_with() -> None:
    settings = speed.all_settings(["a", "b"], [1, 2], {name: ENGINES[name] for name in reversed(ENGINES)})
    assert [one for one in settings if one.model == "a" and one.threads == 1] == [
        Setting("a", engine, precision, 1) for engine, precision in SECONDS
    ]
    assert settings[0] == Setting("a", "onnx", "fp32", 1)
    assert len(settings) == len(set(settings)) == 12


@pytest.mark.parametrize(("cores", "wanted"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_numbers_of_threads_end_with_the_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, wanted: list
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert speed.thread_counts() == wanted


def test_speed_summary(measured) -> None:
    text = summary(measured[0], "some", "20 s of noise")
    assert "fastest here: --engine openvino --precision bf16 --threads 2" in text
    assert "fastest here in fp32: --engine onnx --precision fp32 --threads 2" in text
    assert "earmark report some --dataset MANIFEST" in text
    reported = json.loads(json.dumps(to_dict(measured[0], "noise")))
    fastest = {"model": "some", "engine": "openvino", "precision": "bf16", "threads": 2, "device": "cpu"}
    assert reported["fastest"] == fastest
    assert len(reported["settings"]) == 6
    exact = {setting: own for setting, own in measured[0].items() if setting.engine == "onnx"}
    assert "MANIFEST" not in summary(exact, "some", "noise"), "nothing is lost by it"


def test_no_settings_are_an_error() -> None:
    with pytest.raises(ModelError):
        speed.measure([], CLIP)


def test_noise_file(tmp_path: Path) -> None:
    speed.write_noise(tmp_path / "noise.wav", 2.0)
    with wave.open(str(tmp_path / "noise.wav")) as file:
        assert file.getparams()[:4] == (1, 2, 44_100, 88_200)
        samples = np.frombuffer(file.readframes(88_200), "<i2")
    assert 0.15 < samples.std() / 32768 < 0.2, "uniform from -0.3 to 0.3"


def test_peak_memory_is_that_of_a_fresh_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for module in ("soxr", "earmark", "resource"):  # a module in the current folder is not imported
        (tmp_path / f"{module}.py").write_text("raise SystemExit('run')")
    speed.write_noise(tmp_path / "noise.wav", 1.0)
    ballast = np.ones(400_000_000, np.int8)  # what this process holds must not count
    setting = Setting(registry.DEFAULT, "onnx", "fp32", 1)
    assert 30e6 < speed.peak_bytes(setting, tmp_path / "noise.wav") < 300e6
    assert ballast.all()
    with pytest.raises(ModelError, match=r"nowhere\.wav"):
        speed.peak_bytes(setting, tmp_path / "nowhere.wav")
