"""The learning rate over a training."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.train.schedules import cosine_with_warm_up

GOLDEN = Path(__file__).parents[1] / "golden"


def factors(steps: int, warm_up: int, last: float) -> list[float]:
    return [cosine_with_warm_up(step, steps, warm_up, last) for step in range(steps + 1)]


@pytest.mark.parametrize(("steps", "last"), [(1, 0.0), (7, 0.01), (100, 0.0), (1000, 0.3)])
def test_without_warm_up_it_is_torchs_cosine(steps, last):
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=last)
    for step, factor in enumerate(factors(steps, 0, last)):
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9), step
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch wants a step of the optimizer before each of the schedule
            schedule.step()


@pytest.mark.parametrize("last", [0.0, 0.1])
def test_it_is_the_formula_in_float64(last):
    steps = np.arange(20, 201)
    wanted = last + (1 - last) / 2 * (1 + np.cos(np.pi * (steps - 20) / 180))
    np.testing.assert_allclose(factors(200, 20, last)[20:], wanted, rtol=0, atol=1e-15)


def test_it_rises_in_even_steps_and_then_falls():
    found = factors(100, 10, 0.05)
    np.testing.assert_allclose(np.diff(found[:11]), 1 / 11, atol=1e-12)
    assert found[0] > 0
    assert found[10] == max(found) == 1
    assert (np.diff(found[10:]) < 0).all()
    assert found[100] == pytest.approx(0.05)


def test_after_its_end_it_stays():
    assert cosine_with_warm_up(500, 100, 10, 0.05) == pytest.approx(0.05)


@pytest.mark.parametrize("warm_up", [10, 12])
def test_a_training_of_nothing_but_warm_up_divides_by_no_zero(warm_up):
    assert factors(10, warm_up, 0.0)[9] == pytest.approx(10 / (warm_up + 1))


def test_after_the_warm_up_it_is_that_of_audax():
    golden = np.load(GOLDEN / "audax_toy.npz")
    for step, rate in zip(golden["lr/steps"], golden["lr/warmupcosine_8e-3_872spe_50ep_w10"], strict=True):
        if step >= 8720:
            assert 8e-3 * cosine_with_warm_up(int(step), 43600, 8720, 0.0) == pytest.approx(rate, abs=1e-8)
