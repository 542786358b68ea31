"""The page for everyone: themes, widths, names of controls, contrast."""

import numpy as np
import pytest
from tests_of_page import Open, load

pytestmark = pytest.mark.slow
"""Chromium takes seconds to start."""


def test_theme_follows_the_system_and_the_switch(opened: Open) -> None:
    page = opened(color_scheme="dark").page
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    page.click("#theme")
    light = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert page.evaluate(ground) == light


def test_phone_width_needs_no_horizontal_scrolling(opened: Open) -> None:
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True).page
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    load(page)
    page.click("#lanes-more")
    assert page.evaluate(width) == 360
    outside = """() => [...document.querySelectorAll("button, input, select, td, h2")]
        .filter((one) => one.offsetParent && one.getBoundingClientRect().right > 361)
        .map((one) => one.outerHTML)"""
    assert page.evaluate(outside) == []
    page.click("#tab-live")
    assert page.evaluate(width) == 360


NAMELESS = """() => {
    const own = (one) => one.getAttribute("aria-label") || one.innerText || one.placeholder || "";
    const labels = (one) => [...(one.labels ?? [])].map((label) => label.innerText).join("");
    const others = (one) => (one.getAttribute("aria-labelledby") ?? "").split(" ")
        .map((id) => document.getElementById(id)?.textContent ?? "").join("");
    const kinds = "button, input, select, progress, meter, dialog, table, section, aside, [role]";
    const hidden = (one) => one.closest("[aria-hidden=true]") || one.matches("[role=alert], [role=status]");
    return [...document.querySelectorAll(kinds)]
        .filter((one) => !hidden(one) && !(own(one) + labels(one) + others(one)).trim())
        .map((one) => one.outerHTML.slice(0, 120));
}"""

COLOURS = """(theme) => {
    document.documentElement.dataset.theme = theme;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => {
        const canvas = new OffscreenCanvas(1, 1).getContext("2d");
        canvas.fillStyle = style.getPropertyValue(name);
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const names = "ink soft surface ground sunken tint accent on-accent danger-tint".split(" ");
    return Object.fromEntries(names.map((name) => [name, colour(`--${name}`)]));
}"""
TEXTS = (
    ("ink", "surface"),
    ("ink", "tint"),
    ("ink", "danger-tint"),
    ("soft", "surface"),
    ("soft", "ground"),
    ("soft", "sunken"),
    ("soft", "tint"),
    ("on-accent", "accent"),
)


def test_controls_have_names(opened: Open) -> None:
    page = opened().page
    load(page)
    assert page.evaluate(NAMELESS) == []
    page.click("#tab-live")
    assert page.evaluate(NAMELESS) == []
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.locator("#events caption").count() == 1


def test_controls_are_reached_with_the_tab_key(opened: Open) -> None:
    page = opened().page
    load(page)
    page.focus(".skip")
    reached = []
    for _ in range(24):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.dataset.format"))
    order = ["tab-file", "model", "theme", "another", "play", "threshold", "threshold-auto", "search"]
    order += ["zoom-out", "zoom-in", "csv", "json", "audacity"]
    assert [one for one in reached if one in order] == order


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(opened: Open, theme: str) -> None:
    """At least 4.5 (WCAG 2, AA)."""
    colours = opened().page.evaluate(COLOURS, theme)
    for text, ground in TEXTS:
        assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"


def contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2's contrast ratio of two colours of 8 bits."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: list[int]) -> float:
    shares = np.array(colour) / 255
    linear = np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
