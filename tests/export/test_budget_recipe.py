"""Proposed networks fit their budget, and their recipes can be trained."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import toy

from earmark.data.manifest import Clip
from earmark.errors import ModelError
from earmark.evaluation.complexity.budget import parse_budget
from earmark.export import budget_recipe
from earmark.export.budget_recipe import Proposal, propose, recipe, require_manifests
from earmark.features.learned import LEAF
from earmark.models.registry import create_model
from earmark.training.config.recipe import load_recipe

WIDTHS = (0.05, 0.1, 0.15, 0.2, 0.4, 1.0, 2.0)
"""Fewer than the proposal chooses from, which is what it takes its time for."""


@pytest.fixture(scope="module", autouse=True)
def _few_widths():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(budget_recipe, "WIDTHS", WIDTHS)
        yield


@pytest.fixture(scope="module")
def wide(info):
    return info.changed(architecture="mn10", arguments={"strides": [2, 2, 2, 1]}, name="wide")


@pytest.fixture(scope="module")
def proposal(wide) -> Proposal:
    return propose(wide, parse_budget("params=256kB,macs=30M"), "fp16")


def count(**arguments) -> int:
    network = create_model("mobilenet", num_classes=2, fused=True, strides=[2, 2, 2, 1], **arguments)
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_widest_network_of_the_models_family_that_fits(wide, proposal) -> None:
    found, width = proposal, proposal.arguments["width"]
    assert (found.architecture, found.arguments["strides"]) == ("mobilenet", [2, 2, 2, 1])
    assert count(width=width) * 2 <= 256_000 < count(width=WIDTHS[WIDTHS.index(width) + 1]) * 2
    assert found.use.parameters == count(width=width)
    assert not found.use.exceeded
    assert propose(wide, parse_budget("params=256kB"), "fp32").use.parameters < found.use.parameters


def test_operations_are_limited_too(wide, proposal) -> None:
    by_both = propose(wide, parse_budget("params=256kB,macs=0.7M,seconds=1"))
    assert by_both.arguments["width"] < proposal.arguments["width"]
    assert by_both.use.macs <= 0.7e6
    assert by_both.use.seconds == 1


def test_a_proposal_is_never_larger_than_the_model(info) -> None:
    small = info.changed(architecture="mn01", arguments={})
    assert propose(small, parse_budget("params=100MB")).use.parameters <= count(width=0.1)


@pytest.mark.slow  # compares all registered networks
def test_a_budget_that_nothing_fits_is_one_line(wide) -> None:
    with pytest.raises(ModelError, match="no registered network fits params=1kB") as caught:
        propose(wide, parse_budget("params=1kB"))
    assert "limit 1,000" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError):
        propose(wide.changed(front_end=LEAF), parse_budget("dcase2022"))


@pytest.mark.slow
def test_the_recipe_can_be_trained(run, wide, proposal, toy_model: Path, tmp_path: Path) -> None:
    manifest = toy.write_clips(tmp_path / "clips", clips_per_fold=6, quiet=0)
    path = tmp_path / "small.toml"
    path.write_text(recipe(proposal, wide, toy_model, ([manifest], None), path), encoding="utf-8")
    made = load_recipe(path)
    assert made.front_end == wide.front_end
    assert made.data.labels == wide.labels
    assert made.model.architecture == proposal.architecture
    assert made.teacher[0].path == (str(toy_model),)
    assert made.teacher[0].distill_weight > 0
    assert tomllib.loads(path.read_text(encoding="utf-8"))["command"] == f"earmark train {path}"
    code, _, err = run("train", path, "--dry-run", "--output", tmp_path / "runs")
    assert (code, err) == (0, "")


def test_the_recipe_keeps_the_window_of_the_budget(wide, proposal, tmp_path: Path) -> None:
    found = replace(proposal, use=replace(proposal.use, budget=parse_budget("dcase2022")))
    text = recipe(found, wide, Path("wide.onnx"), ([Path("a.csv")], Path("audio")), tmp_path / "a.toml")
    values = tomllib.loads(text)
    assert values["window_s"] == 1.0
    assert values["data"]["sources"] == [{"manifests": ["a.csv"], "audio": "audio"}]


def test_a_recipe_needs_labelled_manifests() -> None:
    labelled, unlabelled = Clip(Path("a.wav"), ("tone",)), Clip(Path("a.wav"), (), labelled=False)
    require_manifests([Path("a.csv")], [labelled])
    for paths, clips in (([Path("a.wav")], [labelled]), ([Path("a.csv")], [labelled, unlabelled])):
        with pytest.raises(ModelError):
            require_manifests(paths, clips)
