"""Run folders of versions with the old recipe keys are resumed."""

import json
import zipfile
from pathlib import Path

import pytest
import toy

from earmark.errors import RecipeError
from earmark.training.config.renamed_keys import RENAMED, translate
from earmark.training.trainer import train_network

OLD_RUN = Path(__file__).parents[2] / "golden" / "old_run.zip"
TABLES = {
    "padding": "repeat",  # the default of that version
    "model": {"architecture": "mobilenet", "arguments": {"width": 0.01, "norm_momentum": 0.3}},
    "optimizer": {"ema_decay": 0.0, "max_grad_norm": 1.0},
    "schedule": {"warmup_epochs": 1, "final_lr_scale": 0.1, "interval": "epoch"},
    "augment": {"waveform_mix_probability": 0.5, "mixup_epoch_fraction": 0.9},
    "evaluation": {"every_epochs": 1},
}


@pytest.fixture
def old_run(tmp_path, monkeypatch) -> Path:
    """A killed run folder of an earlier version, beside its clips."""
    monkeypatch.chdir(tmp_path)
    toy.write_clips(Path("clips"))
    with zipfile.ZipFile(OLD_RUN) as archive:
        archive.extractall("run")
    return Path("run")


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_killed_run_is_resumed_with_the_same_result(old_run):
    facts = []
    train_network(toy.toy_recipe(Path("clips/clips.csv"), **TABLES), old_run, 1, facts.append)
    assert (facts[0]["epoch"], facts[0]["step"]) == (2, 3)
    # Equal to the last bit on the processor that the run began on; others round otherwise.
    for line, expected in zip(lines(old_run / "log.jsonl"), lines(old_run / "whole_log.jsonl"), strict=True):
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert line["log_loss"] == pytest.approx(expected["log_loss"], rel=1e-4)


def test_another_recipe_is_refused_with_the_new_keys(old_run):
    tables = {**TABLES, "optimizer": {"ema_decay": 0.0, "max_grad_norm": 2.0}}
    with pytest.raises(RecipeError) as caught:
        train_network(toy.toy_recipe(Path("clips/clips.csv"), **tables), old_run, 1)
    assert caught.value.__notes__ == ["optimizer.max_grad_norm: 1.0 -> 2.0"]


def test_every_renamed_key_is_translated():
    for old, new in RENAMED.items():
        if new and "." in old:
            stored: dict = {}
            table = stored
            for key in old.split(".")[:-1]:
                table = table.setdefault(key, {})
            table[old.rpartition(".")[2]] = 7
            found = translate(stored)
            for key in new.split(".")[:-1]:
                found = found[key]
            assert found == {new.rpartition(".")[2]: 7}
    assert translate({"augment": {"shift_s": 0.0}}) == {"augment": {}}
    assert translate({"augment": {"shift_s": 0.5}})["augment"] != {}
