import pytest

from earmark.cli import progress


def test_progress_in_a_recording_has_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 102.0, 102.1, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(times))
    lines: list[str] = []
    report = progress.window_progress(lines.append)
    for end_s, total_s in ((10.0, 600.0), (60.0, 600.0), (70.0, 600.0), (300.0, None)):
        report("long.wav", end_s, total_s)
    assert lines == [
        "long.wav  1.0 of 10.0 min  30 x real time  18 s left",
        "long.wav  5.0 min  30 x real time",
    ]
