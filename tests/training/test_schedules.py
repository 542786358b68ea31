"""The learning rate over a training."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.training.config.learning import Schedule
from earmark.training.schedules import cosine, lr_factor

GOLDEN = Path(__file__).parents[1] / "golden"


def factors(steps: int, warm_up: int, last: float) -> list[float]:
    return [cosine(step, steps, warm_up, last) for step in range(steps + 1)]


def assert_same_as(schedule, optimizer, found):
    for epoch, factor in enumerate(found):
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), epoch
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants a step of the optimizer before each of the schedule
            schedule.step()


@pytest.fixture
def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(("steps", "last"), [(1, 0.0), (7, 0.01), (100, 0.0), (1000, 0.3)])
def test_without_warm_up_it_is_torchs_cosine(optimizer, steps, last):
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=last)
    assert_same_as(schedule, optimizer, factors(steps, 0, last))


def test_steps_are_torchs(optimizer):
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    ours = Schedule(kind="steps", step_epochs=3, step_factor=0.5)
    assert_same_as(schedule, optimizer, [lr_factor(ours, epoch, 20) for epoch in range(20)])


def test_steps_may_rise_first_and_stay_at_a_last_factor():
    schedule = Schedule(kind="steps", step_epochs=4, step_factor=0.1, warmup_epochs=2, final_lr_scale=0.05)
    found = [lr_factor(schedule, epoch, 12) for epoch in (0, 1, 2, 3, 4, 8, 11)]
    np.testing.assert_allclose(found, [0, 0.5, 1, 1, 0.1, 0.05, 0.05])


@pytest.mark.parametrize("last", [0.0, 0.1])
def test_it_is_the_formula_in_float64(last):
    steps = np.arange(20, 201)
    wanted = last + (1 - last) / 2 * (1 + np.cos(np.pi * (steps - 20) / 180))
    np.testing.assert_allclose(factors(200, 20, last)[20:], wanted, rtol=0, atol=1e-15)


def test_it_rises_in_even_steps_and_then_falls():
    found = factors(100, 10, 0.05)
    np.testing.assert_allclose(np.diff(found[:11]), 1 / 10, atol=1e-12)
    assert found[10] == max(found) == 1
    assert (np.diff(found[10:]) < 0).all()
    assert found[100] == pytest.approx(0.05)


def test_after_its_end_it_stays():
    assert cosine(500, 100, 10, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize("warm_up", [10, 12])
def test_a_training_of_nothing_but_warm_up_divides_by_no_zero(warm_up):
    assert factors(10, warm_up, 0.0)[9] == pytest.approx(9 / warm_up)


def test_it_is_that_of_audax():
    golden = np.load(GOLDEN / "audax_toy.npz")
    for step, rate in zip(golden["lr/steps"], golden["lr/warmupcosine_8e-3_872spe_50ep_w10"], strict=True):
        ours = 8e-3 * lr_factor(Schedule(warmup_epochs=10), int(step) / 872, 50)
        assert ours == pytest.approx(rate, abs=1e-8)


def test_ramps_are_those_of_efficientat(shared):
    golden = json.loads((shared / "golden/efficientat/pipeline/lr_schedules.json").read_text())
    assert len(golden) == 6
    for name, case in golden.items():
        schedule = Schedule(
            kind="ramp",
            interval="epoch",
            warmup_epochs=case["warm_up_len"],
            ramp_down_start_epoch=case["ramp_down_start"],
            ramp_down_epochs=case["ramp_down_len"],
            final_lr_scale=case["last_lr_value"],
        )
        found = [lr_factor(schedule, epoch + 0.7, case["n_epochs"]) for epoch in range(case["n_epochs"])]
        np.testing.assert_allclose(found, case["factor_per_epoch"], rtol=0, atol=1e-12, err_msg=name)
