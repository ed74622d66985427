"""Figures take colours from the page, and any text as it is."""

import re
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from normalisr_dask.report.figures import COLOURS, FIRST, LEVELS, draw_density, draw_histogram, drawing, log_x

NAME = '$x_1$ <b> & "x"'


def figure(name: str = "some-figure") -> str:
    values = np.random.default_rng(0).lognormal(5, 1, 400)
    with drawing(name) as draft:
        axes = draft.axes()
        draw_histogram(axes, values, values > 100, cuts=[(100.0, NAME)], log=True)
        axes.set(xlabel=NAME, ylabel="0.00012345")
        return draft.picture(alternative=NAME, caption="").svg


def test_text_is_as_given() -> None:
    svg = fromstring(figure())
    words = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count(NAME) == 2
    assert "0.00012345" in words
    assert svg.get("aria-label") == NAME


def test_colours_and_font_are_left_to_the_page() -> None:
    text = figure()
    assert {"var(--first)", "var(--second)", "var(--ink)", "var(--muted)"} <= set(re.findall(r"var\(--\w+\)", text))
    assert not any(colour in text for colour in COLOURS.values())
    assert set(re.findall(r"#[0-9a-f]{6}", text)) == set()
    assert "DejaVu" not in text


def test_ids_are_those_of_the_figure() -> None:
    text = figure("mine")
    assert re.findall(r' id="', text)
    assert all(name.startswith("mine-") for name in re.findall(r' id="([^"]+)"', text))


def test_the_same_figure_twice() -> None:
    assert figure() == figure()


def test_no_style_that_would_hold_for_the_whole_page() -> None:
    assert "<style" not in figure()


def test_labels_of_logarithmic_axes_are_plain_numbers() -> None:
    with drawing("axis") as draft:
        axes = draft.axes()
        axes.plot([600, 4000], [1, 2])
        log_x(axes)
        labels = re.findall(r"<text[^>]*>([^<]+)</text>", draft.picture(alternative="x", caption="").svg)
    assert {"1,000", "2,000"} <= set(labels)


def test_density_of_nothing_and_of_much() -> None:
    edges = np.linspace(0, 1, 5)
    with drawing("density") as draft:
        axes = draft.axes()
        draw_density(axes, np.zeros((4, 4), dtype=np.int64), edges, edges, FIRST)
        assert not axes.patches
        numbers = np.zeros((4, 4), dtype=np.int64)
        numbers[0, 0], numbers[3, 3] = 1, 1_000_000
        draw_density(axes, numbers, edges, edges, FIRST)
        opacities = [patch.get_alpha() for patch in axes.patches]
    assert opacities == pytest.approx([0.12 + 0.88 / LEVELS, 1.0])


@pytest.mark.parametrize("values", [np.array([7.0]), np.zeros(3), np.array([3.0, 3.0])])
def test_histogram_of_one_value(values: np.ndarray) -> None:
    with drawing("one") as draft:
        draw_histogram(draft.axes(), values, np.ones(values.size, dtype=bool), cuts=(), log=True)
        assert "<svg" in draft.picture(alternative="x", caption="").svg
