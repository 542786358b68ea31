"""``earmark probe``: scores of shallow networks on a model's embedding."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earmark.cli import main
from earmark.evaluation import embedding_probe

RATE = 16000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones and noises in three folds, and a file that is not audio."""
    folder = tmp_path_factory.mktemp("probe")
    rng = np.random.default_rng(0)
    lines = ["path,labels,fold"]
    for fold in (1, 2, 3):
        for number in range(4):
            pitch = rng.uniform(300, 600)
            sounds = {
                "tone": 0.3 * np.sin(2 * np.pi * pitch * np.arange(RATE) / RATE),
                "noise": 0.1 * rng.standard_normal(RATE),
            }
            for label, waveform in sounds.items():
                name = f"{label}_{fold}_{number}.wav"
                soundfile.write(folder / name, waveform.astype(np.float32), RATE)
                lines.append(f"{name},{label},{fold}")
    (folder / "broken.wav").write_bytes(b"no sound")
    lines.append("broken.wav,noise,1")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return folder / "clips.csv"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_probe, "HIDDEN_UNITS", 32)
    monkeypatch.setattr(embedding_probe, "MAX_EPOCHS", 30)


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["probe", *arguments])
    return int(stopped.value.code or 0)


def test_scores_of_a_dataset(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(dataset), "--settings", "1", "--json") == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["metric"] == "accuracy"
    assert found["mean"] > 0.9
    assert list(found["scores"]) == ["1", "2", "3"]
    assert "broken.wav" in err


def test_too_few_folds(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [row for row in dataset.read_text().splitlines() if not row.endswith((",2", ",3", "broken.wav"))]
    (tmp_path / "one.csv").write_text("\n".join(rows) + "\n")
    assert run(str(tmp_path / "one.csv"), "--audio", str(dataset.parent)) == 2
    assert "at least 3 folds" in capsys.readouterr().err
