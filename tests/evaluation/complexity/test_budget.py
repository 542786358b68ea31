"""Budgets: limits, how much of them a model uses, and errors."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from earmark.errors import ModelError
from earmark.evaluation.complexity.budget import BUDGETS, Budget, budget_use, parse_budget
from earmark.evaluation.complexity.model_cost import complexity
from earmark.model_file.onnx_file import read_model_file, weight_bytes
from earmark.models import create_model
from earmark.models.checkpoint import save_checkpoint


def test_the_limits_of_dcase() -> None:
    assert set(BUDGETS) == {f"dcase{year}" for year in range(2021, 2026)}
    assert (BUDGETS["dcase2021"].size, BUDGETS["dcase2021"].non_zero) == (131_072, True)
    assert BUDGETS["dcase2021"].macs is None
    for year in (2022, 2023, 2024, 2025):
        budget = BUDGETS[f"dcase{year}"]
        assert (budget.size, budget.macs, budget.seconds, budget.non_zero) == (128_000, 30e6, 1.0, False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("params=128kB,macs=30M", Budget("", size=128_000, macs=30e6)),
        ("params=60k", Budget("", parameters=60_000)),
        (" macs = 0.5G , seconds=2.5", Budget("", macs=5e8, seconds=2.5)),
        ("params=128KiB", Budget("", size=131_072)),
        ("dcase2021", BUDGETS["dcase2021"]),
    ],
)
def test_parse_limits(text: str, wanted: Budget) -> None:
    assert replace(parse_budget(text), name=wanted.name) == wanted


@pytest.mark.parametrize(
    "text", ["", "dcase2020", "params", "params=0kB", "macs=30MB", "macs=x", "macs=3.0.0M"]
)
def test_an_invalid_budget_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"is not a budget: .*params=128kB.*dcase2021, dcase2022"):
        parse_budget(text)


def test_cnn6_60k_keeps_the_budget_of_its_year(shared: Path, info, tmp_path: Path) -> None:
    from earmark.export.fuse import fuse, fused_info
    from earmark.features.presets import SP4ASC

    network = create_model("cnn6_60k", num_classes=10)
    network.load_state_dict(load_file(shared / "golden" / "sp4asc" / "cnn6_60k_mixup.safetensors"))
    scenes = info.changed(
        architecture="cnn6_60k", arguments={}, labels=tuple("abcdefghij"), front_end=SP4ASC, window_s=10.0
    )
    path = tmp_path / "scenes.safetensors"
    save_checkpoint(path, fuse(network), fused_info(scenes).changed(precision="fp16"))
    fine = budget_use(BUDGETS["dcase2021"], complexity(str(path)))
    assert (fine.parameters, fine.exceeded) == (62_473, ()), "one of them is zero in fp16"
    slow = budget_use(BUDGETS["dcase2022"], complexity(str(path), 1.0))
    assert (slow.parameters, slow.size) == (62_474, 124_948)
    assert slow.size / 1024 == pytest.approx(122.02, abs=0.005)
    assert len(slow.exceeded) == 1
    assert "million operations for 1 s (limit 30)" in slow.exceeded[0]
    save_checkpoint(path, fuse(network), fused_info(scenes))
    assert budget_use(BUDGETS["dcase2021"], complexity(str(path))).exceeded == (
        "249,896 bytes of parameters (limit 131,072)",
    )


def test_zeros_of_a_budget(info, tmp_path: Path) -> None:
    network = create_model(info.architecture, num_classes=2, **info.arguments)
    with torch.no_grad():
        network.classifier[2].weight[:10] = 0
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, network, info)
    counted = [
        budget_use(Budget("", non_zero=free), complexity(str(path), 1.0)).parameters for free in (False, True)
    ]
    zeros = sum(int((parameter == 0).sum()) for parameter in network.parameters())
    assert counted[0] - counted[1] == zeros >= 10 * info.embedding_size


def test_the_size_of_8_bits_is_that_of_the_file(toy_model: Path) -> None:
    content, _ = read_model_file(toy_model)
    size = weight_bytes(content)
    used = budget_use(Budget("", size=1), complexity(str(toy_model), 1.0))
    assert used.size == 4 * used.parameters
    assert 0.95 * used.size < size < len(content)
