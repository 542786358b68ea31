"""The numbers of a training reach the loggers that a recipe or the command line names."""

import json
import sys
import types

import pytest
import toy

from earmark.errors import MissingExtraError, RecipeError
from earmark.training.cross_validation import run_folder
from earmark.training.loggers import logging_to, open_loggers
from earmark.training.trainer import train_network as train

TABLES = {"optimizer": {"epochs": 2, "batch_size": 6}, "evaluation": {"every_epochs": 1}}


class Kept:
    """A logger that keeps what it is given."""

    def __init__(self):
        self.events = []

    def open(self, folder, described, step):
        self.events.append(("open", folder.name, described["fold"], step))

    def write(self, step, values):
        self.events.append((step, sorted(values)))

    def close(self):
        self.events.append("close")


def logged_training(clips, folder, loggers, folds=(1,), stop_at=None):
    recipe = toy.toy_recipe(clips, **TABLES)
    with logging_to(loggers, recipe, folder) as keep:

        def report(facts):
            keep(facts)
            if stop_at and stop_at.items() <= facts.items():
                raise InterruptedError

        for fold in folds:
            report({"fold": fold})
            train(recipe, run_folder(folder, fold), fold, report)


STEP = ["step/clips_per_s", "step/loss"]
METRICS = ["epoch/accuracy", "epoch/auroc_macro", "epoch/binary_log_loss", "epoch/log_loss"]
EVALUATED = [*METRICS, "epoch/loss", "epoch/map_macro", "epoch/seconds"]


def test_each_fold_is_a_run_of_steps_and_epochs(clips, tmp_path):
    kept = Kept()
    logged_training(clips, tmp_path, [kept], folds=(1, 2))
    for fold, events in ((1, kept.events[:8]), (2, kept.events[8:])):
        steps = [(1, STEP), (2, STEP), (2, EVALUATED), (3, STEP), (4, STEP), (4, EVALUATED)]
        assert events == [("open", f"fold{fold}", fold, 1), *steps, "close"]


def test_words_are_no_numbers(tmp_path, clips):
    kept = Kept()
    with logging_to([kept], toy.toy_recipe(clips), tmp_path) as report:
        report({"fold": 1})
        report({"warning": "a state is damaged"})
    assert kept.events == []


def test_a_resumed_run_reports_its_first_step(clips, tmp_path):
    kept = Kept()
    with pytest.raises(InterruptedError):
        logged_training(clips, tmp_path, [kept], stop_at={"epoch": 2, "step": 1})
    assert kept.events[-1] == "close"
    logged_training(clips, tmp_path, [kept])
    assert ("open", "fold1", 1, 3) in kept.events


def test_a_complete_run_leaves_no_trace(clips, tmp_path):
    logged_training(clips, tmp_path, [])
    kept = Kept()
    logged_training(clips, tmp_path, [kept])
    assert kept.events == []


def test_every_logger_gets_everything_once(clips, tmp_path):
    both = Kept(), Kept()
    logged_training(clips, tmp_path, both)
    assert both[0].events == both[1].events != []
    names = [type(logger).__name__ for logger in open_loggers_of_fakes("wandb", "tensorboard", "wandb")]
    assert names == ["WeightsAndBiases", "TensorBoard"]


def open_loggers_of_fakes(*names):
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
        writer = types.ModuleType("torch.utils.tensorboard")
        writer.SummaryWriter = object
        patched.setitem(sys.modules, "torch.utils.tensorboard", writer)
        return open_loggers(names)


def test_an_unknown_logger_is_refused():
    with pytest.raises(RecipeError):
        open_loggers(["tensorbord"])


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_before_any_work(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(MissingExtraError):
        open_loggers([name])


class FakeWandb(types.ModuleType):
    """Records what it is asked to do."""

    class Error(Exception):
        pass

    def __init__(self, refuse=False):
        super().__init__("wandb")
        self.calls, self.refuse = [], refuse

    def init(self, **settings):
        if self.refuse:
            raise self.Error("api_key not configured (no-tty)")
        self.calls.append(settings)
        return self

    def log(self, values, step):
        self.calls.append((step, sorted(values)))

    def finish(self):
        self.calls.append("finish")


def test_weights_and_biases_gets_the_run(clips, tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    with pytest.raises(InterruptedError):
        logged_training(clips, tmp_path, open_loggers(["wandb"]), stop_at={"epoch": 2, "step": 1})
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    logged_training(clips, tmp_path, open_loggers(["wandb"]))
    logged_training(clips, tmp_path, open_loggers(["wandb"]), folds=(2,))
    first, again, other = (call for call in fake.calls if isinstance(call, dict))
    assert first["name"] == "toy fold1"
    assert first["dir"] == tmp_path / "fold1"
    assert first["config"]["optimizer"]["epochs"] == 2
    assert first["config"]["run"] == json.loads((tmp_path / "fold1" / "run.json").read_text())
    assert [run["project"] for run in (first, again, other)] == ["earmark", "mine", "mine"]
    assert first["id"] == again["id"] != other["id"]
    assert (4, EVALUATED) in fake.calls
    assert fake.calls.count("finish") == 3


def test_what_weights_and_biases_refuses_is_one_line(clips, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(refuse=True))
    with pytest.raises(RecipeError):
        logged_training(clips, tmp_path, open_loggers(["wandb"]))


@pytest.mark.slow
def test_weights_and_biases_works_offline(clips, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    logged_training(clips, tmp_path, open_loggers(["wandb"]))
    [written] = tmp_path.glob("fold1/wandb/offline-run-*/run-*.wandb")
    assert b"epoch/map_macro" in written.read_bytes()


def test_tensorboard_shows_the_last_of_what_was_written(clips, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.raises(InterruptedError):
        logged_training(clips, tmp_path, open_loggers(["tensorboard"]), stop_at={"epoch": 2, "step": 2})
    logged_training(clips, tmp_path, open_loggers(["tensorboard"]))
    shown = EventAccumulator(str(tmp_path / "fold1" / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("step/loss")] == [1, 2, 3, 4]
    log = [json.loads(line) for line in (tmp_path / "fold1" / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "accuracy"):
        values = [event.value for event in shown.Scalars(f"epoch/{name}")]
        assert values == pytest.approx([line[name] for line in log])
