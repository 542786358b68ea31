"""Models by score and cost: names on the Pareto front, and none over another."""

from types import SimpleNamespace

import numpy as np
import pytest

from earmark.errors import ModelError
from earmark.hub import registry
from earmark.plots.cost import plot_models, plot_tradeoff
from earmark.plots.style import COLUMN_MM, PAGE_MM

both_widths = pytest.mark.parametrize("width_mm", [COLUMN_MM, PAGE_MM])


def model(name, params, score, architecture="mn10"):
    cost = {"params": params, "macs": params * 100, "peak_memory_kb": params / 1000}
    return SimpleNamespace(name=name, architecture=architecture, scores={"mAP": score}, **cost)


@both_widths
def test_all_registered_models(tmp_path, pictures, width_mm):
    plot_models(
        registry.published().values(),
        tmp_path / "a.png",
        registry.compared().values(),
        ("mn10_as_fc",),
        width_mm,
    )
    [drawn] = pictures
    assert drawn.texts.count("mn10_as_fc") == 3, "highlighted, though not on the front"
    assert drawn.texts.count("dymn20_as") == 3
    assert {"mn", "dymn", "other systems"} <= set(drawn.texts)
    assert "mn40_as(2)" not in drawn.texts, "another has the same cost and a higher score"
    assert [label for label in drawn.labels if "mAP" in label] == ["published mAP (0 to 1)"] * 3


@pytest.mark.slow
@both_widths
def test_hundreds_of_models(tmp_path, pictures, width_mm):
    random = np.random.default_rng(0)
    many = [
        model(
            f"network_{number}", 10 ** random.uniform(4, 9), random.uniform(0.1, 0.5), f"family{number % 9}x"
        )
        for number in range(400)
    ]
    plot_models(many, tmp_path / "a.png", highlighted=("network_7",), width_mm=width_mm)
    assert pictures[0].texts.count("network_7") == 3
    assert sum(text.startswith("network_") for text in pictures[0].texts) > 9


def test_the_front_is_named_and_joined(tmp_path, pictures):
    known = [
        model("small", 1e6, 0.3),
        model("large", 1e8, 0.5),
        model("worse", 1e8, 0.2),
        model("same", 1e8, 0.5),
    ]
    plot_models(known, tmp_path / "a.png")
    assert [pictures[0].texts.count(name) for name in ("small", "large", "worse", "same")] == [3, 3, 0, 0]
    [line] = pictures[0].axes[0].get_lines()
    assert line.get_xdata() == pytest.approx([1, 100])


@pytest.mark.parametrize("known", [[], [model("only", 1e6, 0.3)], [model("zero", 1e6, 0.0)]])
def test_few_models(tmp_path, pictures, known):
    plot_models(known, tmp_path / "a.png")
    assert len(pictures) == 1


def test_a_model_without_a_score_cannot_be_highlighted(tmp_path):
    with pytest.raises(ModelError, match="mn10_im"):
        plot_models(registry.published().values(), tmp_path / "a.png", highlighted=("mn10_im",))
    assert not list(tmp_path.iterdir())


@both_widths
def test_tradeoff(tmp_path, pictures, width_mm):
    points = [(f"model {number} $x$ {'long ' * number}", 2.0**number, 0.1 * number) for number in range(5)]
    points += [(f"worse {number}", 40.0 + number, 0.05) for number in range(40)]
    plot_tradeoff(points, 7, "mAP (0 to 1)", tmp_path / "a.png", width_mm)
    [drawn] = pictures
    assert {"1", "2", "3", "4", "5", "6", "recommended: 6"} <= set(drawn.texts)
    [legend] = [text for text in drawn.texts if text.startswith("1  model 0")]
    assert legend.splitlines()[-1] == "6  worse 2"
    assert drawn.labels == ["time for the file (ms)", "mAP (0 to 1)"]


def test_a_single_point(tmp_path, pictures):
    plot_tradeoff([("only", 0.5, 0.5)], 0, "accuracy (0 to 1)", tmp_path / "a.png")
    assert len(pictures) == 1
