"""What teachers add to the loss, against EfficientAT's numbers and plain arithmetic."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.training.distill.losses import (
    as_logits,
    as_scores,
    distillation_loss,
    imitation_loss,
    mixable_outputs,
    split_outputs,
)

GOLDEN = Path(__file__).parents[2] / "golden"


def mixed(rows: torch.Tensor, share: torch.Tensor, partner: list[int]) -> torch.Tensor:
    return share[:, None] * rows + (1 - share[:, None]) * rows[partner]


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "kd_toy.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("mix", [0, 1])
def test_formula_of_efficientat(golden, temperature, mix):
    """There the unknown clip has the last row, its loss is zeroed, and it still counts in the mean."""
    rows = [golden["fname_to_index"].get(name, -1) for name in golden["batch_filenames"]]
    teacher = torch.tensor(golden["teacher_logits"], dtype=torch.float64)[rows]
    table = mixable_outputs(as_scores(teacher / temperature, "multi_label"))
    if mix:
        table = mixed(table, torch.tensor(golden["mixup_lambda"]).double(), golden["mixup_perm"])
    soft, weight = split_outputs(table)
    weight[golden["batch_filenames"].index("zz")] = 0
    logits = torch.tensor(golden["y_hat"], dtype=torch.float64)
    loss = 0.9 * distillation_loss(logits, soft, weight, "multi_label") * weight.sum() / len(weight)
    expected = golden["results"][f"T{temperature}_mix{mix}_lambda0.1"]["kd_loss_weighted"]
    assert loss.item() == pytest.approx(expected, abs=2e-7)


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_a_clip_without_a_prediction_adds_nothing_also_as_a_partner(task):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    outputs = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    outputs[[1, 3]] = torch.nan
    share, partner = torch.tensor([0.7, 0.6, 0.9, 0.8], dtype=torch.float64), [1, 0, 2, 1]
    soft = as_scores(outputs, task)
    got, weight = split_outputs(mixed(mixable_outputs(soft), share, partner))
    # of 0 the partner is unknown, of 1 it is only the partner that is known, of 3 neither
    assert weight.tolist() == pytest.approx([0.7, 0.4, 1.0, 0.0])
    torch.testing.assert_close(got[:3], soft[[0, 0, 2]])

    def error(index: int, reported: int) -> float:
        wanted, row = soft[reported], logits[index]
        if task == "single_label":
            return -(wanted * (row.exp() / row.exp().sum()).log()).sum().item()
        score = 1 / (1 + (-row).exp())
        return -(wanted * score.log() + (1 - wanted) * (1 - score).log()).mean().item()

    expected = (0.7 * error(0, 0) + 0.4 * error(1, 0) + error(2, 2)) / 2.1
    assert distillation_loss(logits, got, weight, task).item() == pytest.approx(expected)
    near = imitation_loss(logits, got, weight).item()
    squares = ((logits[:3] - soft[[0, 0, 2]]) ** 2).mean(-1)
    assert near == pytest.approx((squares * torch.tensor([0.7, 0.4, 1.0])).sum().item() / 2.1)


def test_two_known_clips_are_mixed_as_their_targets_are():
    outputs = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    got, weight = split_outputs(mixed(mixable_outputs(outputs), torch.tensor([0.75, 1.0]), [1, 0]))
    torch.testing.assert_close(got, torch.tensor([[0.3, 0.7], [0.6, 0.4]]))
    assert weight.tolist() == [1, 1]


def test_clips_without_predictions_have_no_loss():
    logits = torch.randn(2, 3, requires_grad=True)
    soft, weight = split_outputs(mixable_outputs(torch.full((2, 3), torch.nan)))
    loss = distillation_loss(logits, soft, weight, "multi_label")
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


@pytest.mark.parametrize("task", ["multi_label", "single_label"])
def test_scores_become_logits_again(task):
    scores = as_scores(torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), task)
    torch.testing.assert_close(as_scores(as_logits(scores, "scores", task), task), scores)
    extremes = torch.tensor([[0.0, 1.0]])
    assert as_logits(extremes, "scores", task).isfinite().all()
    assert as_logits(extremes, "logits", task) is extremes
    assert np.allclose(as_scores(as_logits(extremes, "scores", task), task), extremes, atol=1e-5)
