import itertools
import re
from dataclasses import dataclass

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

SMALLEST_PT = 7
UNIT = re.compile(r"\((?:s|min:s|h:min|kHz|dBFS|ms|MB|millions|billions|0 to 1|clips)\)")
COUNTED = re.compile(r"^(?:number of |true class|predicted class|class$)")


@dataclass
class Drawn:
    """What a picture holds, as it was written."""

    texts: list[str]
    labels: list[str]  # of axes, x and y
    axes: list


@pytest.fixture
def pictures(monkeypatch):
    """Every picture that is written, each checked to be readable."""
    found, drawn = [], {}
    write, draw = Figure.savefig, Text.draw

    def seen(text, renderer, *arguments, **settings):
        if text.get_visible() and text.get_text().strip():
            drawn[id(text)] = text
        draw(text, renderer, *arguments, **settings)

    def checked(figure, *arguments, **settings):
        drawn.clear()
        write(figure, *arguments, **settings)
        if settings.get("format") != "png":  # was drawn in points, and is measured in pixels
            drawn.clear()
            FigureCanvasAgg(figure).draw()
        found.append(check(figure, list(drawn.values())))

    monkeypatch.setattr(Text, "draw", seen)
    monkeypatch.setattr(Figure, "savefig", checked)
    return found


def check(figure, shown) -> Drawn:
    """Checks that no text is small, leaves the picture or covers another, and that axes have units."""
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    for text in shown:
        assert text.get_fontsize() >= SMALLEST_PT, text.get_text()
    for name, box in boxes:
        inside = box.x0 > -2 and box.y0 > -2 and box.x1 < figure.bbox.x1 + 2 and box.y1 < figure.bbox.y1 + 2
        assert inside, f"{name!r} leaves the picture"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        across = min(first.x1, second.x1) - max(first.x0, second.x0)
        up = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert min(across, up) < 0.35 * min(first.height, first.width), f"{one!r} covers {other!r}"
    labels = [label for axes in figure.axes for label in labels_of(axes)]
    for label in labels:
        assert UNIT.search(label) or COUNTED.search(label), f"{label!r} has no unit"
    return Drawn([name for name, _ in boxes], labels, list(figure.axes))


def labels_of(axes) -> list[str]:
    """The labels of the axes that have ticks with texts; each has to have one."""
    labels = []
    for axis in (axes.xaxis, axes.yaxis):
        named = [label for label in axis.get_ticklabels() if label.get_visible() and label.get_text()]
        if axis.get_label_text():
            labels.append(axis.get_label_text())
        else:
            own_names = all(not re.fullmatch(r"[−\d.:]+", label.get_text()) for label in named)
            assert own_names, f"an axis with {[label.get_text() for label in named]} has no label"
    return labels
