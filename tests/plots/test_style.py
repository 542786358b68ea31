"""The style of all pictures: colours, fonts, sizes, and that it is nobody else's."""

import itertools
import threading

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from earmark.errors import ModelError
from earmark.plots import style
from earmark.plots.style import COLOURS, LEVEL_MAP, MARKERS, QUIET_COLOUR, SHARE_MAP, picture

VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Severity 1 of Machado, Oliveira and Fernandes (2009), for linear RGB."""
JUST_NOTICEABLE = 2.3  # of CIELAB's distance
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = XYZ.sum(1)


def lab(colours, vision="normal"):
    """CIELAB of sRGB colours, (colour, 3), as they are seen."""
    rgb = np.atleast_2d(np.asarray(colours, float))[:, :3]
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = np.clip(linear @ np.array(VISION[vision]).T, 0, 1) @ XYZ.T / WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], 1)


def test_the_simulation_shows_what_people_confuse():
    red, green = lab([to_rgb("#d62728"), to_rgb("#2ca02c")], "deuteranopia")  # matplotlib's own cycle
    normal = np.linalg.norm(np.subtract(*lab([to_rgb("#d62728"), to_rgb("#2ca02c")])))
    assert np.linalg.norm(red - green) < normal / 3


@pytest.mark.parametrize("vision", VISION)
def test_categories_differ_for_any_colour_vision(vision):
    seen = lab([to_rgb(colour) for colour in COLOURS], vision)
    least = min(np.linalg.norm(one - other) for one, other in itertools.combinations(seen, 2))
    assert least > 4 * JUST_NOTICEABLE
    on_white = np.linalg.norm(seen - lab([(1, 1, 1)], vision), axis=1)
    assert on_white.min() > 30


def test_categories_differ_by_their_markers_too():
    assert len(set(MARKERS)) == len(COLOURS)
    looks = {(style.colour(number), style.marker(number)) for number in range(36)}
    assert len(looks) == 36


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("name", [LEVEL_MAP, SHARE_MAP])
def test_lightness_of_maps_is_monotonic(name, vision):
    lightness = lab(matplotlib.colormaps[name](np.linspace(0, 1, 32)), vision)[:, 0]
    steps = np.diff(lightness)
    assert (steps > 0).all() or (steps < 0).all()
    assert abs(lightness[-1] - lightness[0]) > 70


@pytest.mark.parametrize("background", [*COLOURS, "white", "black"])
def test_text_is_readable_on_colours_and_in_colours(background):
    def luminance(colour):
        rgb = np.array(to_rgb(colour))
        return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ XYZ[1]

    pair = sorted(map(luminance, (background, style.ink_on(background))))
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5  # WCAG 2, AA


def drawn(path, width_mm=90, height_mm=40):
    with picture(path, width_mm, height_mm) as figure:
        axes = figure.subplots()
        axes.plot((0, 1), (0, 1), color=COLOURS[0])
        axes.set(xlabel="time (s)", ylabel="a $x$ label")
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_the_same_input_gives_the_same_file_whatever_the_user_sets(tmp_path, suffix):
    first = drawn(tmp_path / f"a{suffix}")
    changes = {"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 30, "figure.facecolor": "0.1"}
    changes |= {
        "savefig.bbox": "tight",
        "font.family": ["serif"],
        "text.usetex": True,
        "svg.fonttype": "none",
    }
    with matplotlib.rc_context(changes):
        before = dict(matplotlib.rcParams)
        assert drawn(tmp_path / f"b{suffix}") == first
        assert dict(matplotlib.rcParams) == before


def test_settings_survive_an_error_and_leave_no_file(tmp_path):
    before = dict(matplotlib.rcParams)
    with pytest.raises(ZeroDivisionError), picture(tmp_path / "a.png", 90, 40):
        raise ZeroDivisionError
    assert dict(matplotlib.rcParams) == before
    assert not list(tmp_path.iterdir())


def test_two_pictures_at_once_leave_the_settings_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    threads = [threading.Thread(target=drawn, args=(tmp_path / f"{number}.png",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(matplotlib.rcParams) == before
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_png_has_its_size_in_print_and_true_colours(tmp_path):
    drawn(tmp_path / "a.png", 90, 40)
    with Image.open(tmp_path / "a.png") as image:
        width, height = (
            pixels / dpi * 25.4 for pixels, dpi in zip(image.size, image.info["dpi"], strict=True)
        )
        pixels = np.asarray(image.convert("RGB"), int).reshape(-1, 3)
    assert (width, height) == pytest.approx((90, 40), abs=0.2)
    assert (pixels == 255).all(1).mean() > 0.5, "paper is white"
    wanted = 255 * np.array(to_rgb(COLOURS[0]))
    assert np.abs(pixels - wanted).max(1).min() <= 8


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.png.txt", ".png"])
def test_other_formats_are_refused_in_one_line(tmp_path, name):
    with pytest.raises(ModelError, match=r"\.png, \.svg, \.pdf") as raised, picture(tmp_path / name, 90, 40):
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Dog", "Dog"),
        ("a\tb\nc", "a b c"),
        ("half \ud800", "half ?"),
        ("a\x00b", "a b"),
        ("犬の声", "犬の声"),
        ("a long label of many words", "a long…"),
        ("", ""),
    ],
)
def test_labels_become_one_line(text, line):
    assert style.one_line(text, 8) == line


def test_quiet_is_lighter_than_text_and_still_readable():
    assert 30 < lab([to_rgb(QUIET_COLOUR)])[0, 0] < 55
