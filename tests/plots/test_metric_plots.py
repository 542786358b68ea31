"""Pictures of an evaluation: classes, confusion, reliability."""

import numpy as np
import pytest

from earmark.evaluation.metrics import reliability
from earmark.plots.metrics import MOST_BARS, plot_classes, plot_confusion, plot_reliability
from earmark.plots.style import COLUMN_MM, PAGE_MM, SHARE_MAP

LONG = "Domestic sounds, home sounds and all else in the house"


def names(count):
    return [f"{number} {LONG if number % 3 else 'Dog'}" for number in range(count)]


@pytest.mark.parametrize("width_mm", [COLUMN_MM, PAGE_MM])
@pytest.mark.parametrize("count", [1, 18, 527])
def test_classes(tmp_path, pictures, count, width_mm):
    values = dict(zip(names(count), np.linspace(0, 1, count), strict=True))
    clips = {label: 1000 * index for index, label in enumerate(values)}
    plot_classes(values, "average precision", tmp_path / "a.png", clips, width_mm)
    [drawn] = pictures
    bars = [bar.get_width() for bar in drawn.axes[0].patches]
    assert bars == sorted(bars)
    assert len(bars) == min(count, MOST_BARS)
    assert (bars[0], bars[-1]) == (0, count > 1)
    assert ("… 467 more classes …" in drawn.texts) == (count > MOST_BARS)
    assert "0 Dog (0)" in drawn.texts
    assert drawn.labels == ["average precision (0 to 1)", "class (clips)"]


@pytest.mark.parametrize(
    ("count", "width_mm"), [(2, COLUMN_MM), (18, PAGE_MM), (50, PAGE_MM), (150, PAGE_MM)]
)
def test_confusion(tmp_path, pictures, count, width_mm):
    table = 20 * np.eye(count, dtype=np.int64)
    table[0, 1] = 1234
    labels = [f"class {number}" for number in range(count)]
    plot_confusion(table, labels, labels, tmp_path / "a.png")
    [drawn] = pictures
    assert drawn.axes[0].figure.get_figwidth() * 25.4 == pytest.approx(width_mm)
    named = sum(text.startswith("class ") for text in drawn.texts)
    assert named == 2 * count if count <= 50 else named == 2 * -(-count // 3)
    assert ("true class (1 of 3 named)" in drawn.labels) == (count > 50)
    assert ("1234" in drawn.texts) == (count <= 18), "numbers where cells are wide enough"
    assert drawn.axes[0].images[0].get_cmap().name == SHARE_MAP
    assert drawn.axes[0].images[0].get_array()[1].sum() == pytest.approx(1), "shares of a row"


def test_confusion_of_other_shapes(tmp_path, pictures):
    plot_confusion(np.array([[3, 0, 0]]), [LONG], [LONG, "$x$", ""], tmp_path / "a.png")
    plot_confusion(np.zeros((1, 1), np.int64), ["a"], ["a"], tmp_path / "b.png")
    assert "3" in pictures[0].texts


def test_reliability(tmp_path, pictures):
    random = np.random.default_rng(0)
    scores = random.dirichlet((1, 1, 1), 300)
    curve = reliability(np.eye(3)[scores.argmax(1)], scores)
    plot_reliability({"before": curve, "after": curve}, tmp_path / "a.png")
    plot_reliability({"": curve}, tmp_path / "b.png", "score", "scores")
    both, one = pictures
    assert {"before", "after", "calibrated"} <= set(both.texts)
    assert "measured" in one.texts
    assert one.labels == ["share that is right (0 to 1)", "score (0 to 1)", "number of scores"]
    heights = [bar.get_height() for bar in one.axes[1].patches]
    assert heights == curve.clips.tolist()


def test_reliability_has_intervals(tmp_path, pictures):
    curve = np.array([0.5, np.nan]), np.array([0.5, np.nan]), np.array([10, 0])
    plot_reliability({"": curve}, tmp_path / "a.png")
    [bars] = [one for one in pictures[0].axes[0].containers if hasattr(one, "lines")]
    [[low, high]] = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-3)  # Wilson's interval of 5 of 10


def test_reliability_of_nothing(tmp_path, pictures):
    empty = np.full(15, np.nan), np.full(15, np.nan), np.zeros(15, np.int64)
    plot_reliability({"before": empty, "after": empty}, tmp_path / "a.png")
    assert len(pictures) == 1
