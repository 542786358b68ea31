"""What the page computes and writes is what Python does, run by Node.js."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from earmark.events.detect import detect
from earmark.events.event import Event, RecordingEvents, ScoreSeries
from earmark.events.formats import event_layout
from earmark.events.layout import Format
from earmark.events.options import EventOptions, LabelOptions

PAGE = Path(__file__).resolve().parents[3] / "earmark" / "serve" / "page" / "static"
NAMES = {
    "threshold": "threshold",
    "off_threshold": "offThreshold",
    "min_duration_s": "minDurationS",
    "merge_gap_s": "mergeGapS",
}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs a function body of JavaScript with the modules of the page and a value."""
    if shutil.which("node") is None:
        pytest.skip("needs Node.js: apt-get install nodejs")
    folder = tmp_path_factory.mktemp("modules")
    (folder / "package.json").write_text('{"type": "module"}')
    for name in ("detect.js", "downloads.js", "format.js"):
        shutil.copy(PAGE / name, folder)

    def run(body: str, value: Any) -> Any:
        script = f"""
            import * as events from "./detect.js";
            import * as files from "./downloads.js";
            import * as format from "./format.js";
            import {{ readFileSync }} from "node:fs";
            const run = (value) => {{ {body} }};
            console.log(JSON.stringify(run(JSON.parse(readFileSync(0, "utf8")))));"""
        (folder / "run.js").write_text(script)
        process = subprocess.run(
            ["node", "run.js"],
            cwd=folder,
            input=json.dumps(value),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert not process.returncode, process.stderr
        return json.loads(process.stdout)

    return run


def series(generator: np.random.Generator) -> ScoreSeries:
    """Scores that wander, some of them exactly at thresholds, in thousandths as the server sends them."""
    steps, classes = int(generator.integers(1, 80)), int(generator.integers(1, 5))
    scores = np.cumsum(generator.normal(0, 0.15, (steps, classes)), 0) + generator.random(classes)
    scores = np.round(np.abs((scores % 2) - 1), 3)
    scores[generator.random(scores.shape) < 0.1] = 0.35
    step_s = float(generator.choice([0.3125, 0.5, 0.1, 0.32]))
    end_s = (steps - generator.random() * 0.9) * step_s
    labels = tuple(f"label {number}" for number in range(classes))
    return ScoreSeries(labels, scores.astype(np.float32), step_s, 1.25, 0.0, end_s)


def options(generator: np.random.Generator, labels: tuple[str, ...]) -> EventOptions:
    values: dict[str, Any] = {
        "threshold": float(np.round(generator.random(), 2)),
        "off_threshold": generator.choice([None, 0.2]),
        "min_duration_s": float(generator.choice([0.25, 0.0, 0.64, 1.0])),
        "merge_gap_s": float(generator.choice([0.1, 0.5, 0.3125, 0.0])),
    }
    if generator.random() < 0.3:
        values["threshold"] = tuple(float(one) for one in np.round(generator.random(len(labels)), 2))
    own = LabelOptions(threshold=0.4, min_duration_s=0.0, merge_gap_s=2.0)
    return EventOptions(**values, per_label={labels[0]: own} if generator.random() < 0.3 else {})


def case(found: ScoreSeries, wanted: EventOptions) -> dict[str, Any]:
    """A series and options as the page gets them."""
    thresholds = wanted.threshold if isinstance(wanted.threshold, tuple) else [0.5] * len(found.labels)
    own = {
        label: {NAMES[name]: value for name, value in vars(each).items() if value is not None}
        for label, each in wanted.per_label.items()
    }
    settings = {new: getattr(wanted, old) for old, new in NAMES.items()}
    if isinstance(wanted.threshold, tuple):
        settings["threshold"] = "auto"
    return {
        "answer": {
            "duration_s": found.end_s,
            "timeline": {
                "start_s": found.start_s,
                "hop_s": found.step_s,
                "resolution_s": found.resolution_s,
                "labels": found.labels,
                "thresholds": thresholds,
                "scores": np.round(found.scores.astype(np.float64), 3).tolist(),
            },
        },
        "options": settings | {"labels": own},
    }


def test_events_are_those_of_python(node: Any) -> None:
    generator = np.random.default_rng(21)
    found = [series(generator) for _ in range(300)]
    wanted = [options(generator, one.labels) for one in found]
    body = "return value.map(({answer, options}) => events.detect(events.readSeries(answer), options));"
    answers = node(body, [case(*pair) for pair in zip(found, wanted, strict=True)])
    expected = [detect(*pair) for pair in zip(found, wanted, strict=True)]
    assert sum(map(len, expected)) > 500
    for ours, theirs in zip(answers, expected, strict=True):
        assert [event["label"] for event in ours] == [event.label for event in theirs]
        for name in ("start_s", "end_s", "peak", "mean", "resolution_s"):
            values = [getattr(event, name) for event in theirs]
            assert [event[name] for event in ours] == pytest.approx(values, abs=1e-6), name


def test_default_options_are_those_of_python(node: Any) -> None:
    found = series(np.random.default_rng(1))
    body = "return events.limits(events.readSeries(value), 0);"
    limits = EventOptions(threshold=0.5).limits(found.labels)
    expected = {"on": 0.5, "off": limits.off[0], "minDurationS": limits.min_duration_s[0]}
    answer = node(body, case(found, EventOptions(threshold=0.5))["answer"])
    assert answer == expected | {"mergeGapS": limits.merge_gap_s[0]}


class Recording:
    path = 'a, "b".wav'
    duration_s = 30.00005
    sample_rate = 44100
    model = "toy"
    calibrated = False
    warnings = ("clipped",)


EVENTS = [
    Event("Chicken, rooster", 0.0, 0.3125, 0.90625, 0.03125, 1.25),
    Event('say "no"', 0.0625, 61.1875, 1.0, 0.5, 0.0625),
    Event("tab\tand\nline", 0.5, 12.0005, 0.12345, 0.00005, 1.25),
]


@pytest.mark.parametrize("form", [Format.CSV, Format.JSON, Format.AUDACITY])
def test_files_are_those_of_the_command(node: Any, form: Format) -> None:
    layout = event_layout(form)
    expected = layout.head + layout.render(RecordingEvents(Recording(), EVENTS)) + layout.tail
    recording = {name: getattr(Recording, name) for name in vars(Recording) if not name.startswith("_")}
    value = {"recording": recording, "events": [vars(event) for event in EVENTS], "form": form}
    text = node("return files.FORMATS[value.form].render(value.recording, value.events);", value)
    if form == Format.JSON:
        text, expected = json.loads(text), json.loads(expected)
    assert text == expected


def test_numbers_are_rounded_as_in_python(node: Any) -> None:
    generator = np.random.default_rng(3)
    numbers = [
        *(generator.random(500) * 100).tolist(),
        *(number / 64 for number in range(500)),
        0.0005,
        2.675,
    ]
    answers = node("return value.map((one) => format.fixed(one, 3));", numbers)
    assert answers == [f"{one:.3f}" for one in numbers]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.0"), (59.96, "1:00.0"), (61.25, "1:01.3"), (3599.99, "1:00:00.0"), (3661.04, "1:01:01.0")],
)
def test_clock(node: Any, seconds: float, text: str) -> None:
    assert node("return format.clock(value);", seconds) == text
