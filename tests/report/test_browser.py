"""The report in a real browser: nothing fails, nothing is asked for, all of it works by keyboard, and is accessible."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page
from report_pages import accessibility_violations, column, watched_page
from report_runs import NASTY_GENE, NASTY_GUIDE


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    with watched_page(browser, report) as page:
        yield page


@pytest.fixture(scope="module")
def tests(finished_run: Path) -> pd.DataFrame:
    """The table of tests that the run has written."""
    return pd.read_parquet(finished_run / "de.parquet")


def top_genes(tests: pd.DataFrame, grouping: str) -> pd.DataFrame:
    return tests[tests["grouping"] == grouping].sort_values("pvalue")


class TestPicker:
    def test_the_grouping_with_most_hits_is_shown_first(self, page: Page, tests: pd.DataFrame) -> None:
        hits = tests[tests["qvalue"] <= 0.05].groupby("grouping", observed=True).size()
        assert hits.max() == hits[page.locator("#picker option:checked").inner_text()]

    @pytest.mark.parametrize("grouping", [NASTY_GUIDE, "control_g1"])
    def test_top_genes_are_those_of_the_table(self, page: Page, tests: pd.DataFrame, grouping: str) -> None:
        page.get_by_label("Grouping", exact=True).select_option(grouping)
        assert page.locator("#chosen-name").inner_text() == f"Grouping {grouping}"
        expected = top_genes(tests, grouping)
        assert column(page, "top", 1) == [str(gene) for gene in expected["gene"]]
        assert [float(text) for text in column(page, "top", 2)] == pytest.approx(expected["gamma"].tolist(), abs=6e-4)
        shown = [float(text) for text in column(page, "top", 4)]
        np.testing.assert_allclose(np.log10(shown), expected["log10_pvalue"], atol=0.025)

    def test_the_volcano_names_the_target(self, page: Page) -> None:
        page.get_by_label("Grouping", exact=True).select_option(NASTY_GUIDE)
        volcano = page.locator("#volcano svg")
        assert NASTY_GENE in volcano.locator("text").all_text_contents()
        assert volcano.locator("circle[stroke='var(--ink)'] title").text_content().startswith(NASTY_GENE)  # type: ignore[union-attr]
        assert NASTY_GENE in (volcano.get_attribute("aria-label") or "")
        assert f"target {NASTY_GENE}" in page.locator("#chosen-facts").inner_text()

    def test_points_and_shades_stand_for_all_genes(self, page: Page, tests: pd.DataFrame) -> None:
        n_genes = tests["gene"].nunique()
        bars = page.locator("#p-histogram svg")
        assert f"of {n_genes} genes" in (bars.get_attribute("aria-label") or "")
        assert page.locator("#volcano circle").count() == min(n_genes, 500)

    def test_quantiles_stand_beside_tests_without_effects(self, page: Page) -> None:
        words = page.locator("#qq-plot text").all_text_contents()
        assert {"Negative controls", "Permuted cells"} <= set(words)

    def test_quantiles_beyond_the_edge_are_triangles_there(self, page: Page, tests: pd.DataFrame) -> None:
        smallest = tests.loc[tests["log10_pvalue"].idxmin()]
        page.get_by_label("Grouping", exact=True).select_option(str(smallest["grouping"]))
        beyond, within = page.locator("#qq-plot path.beyond"), page.locator("#qq-plot circle")
        assert -smallest["log10_pvalue"] > 12.5  # beyond the edge
        assert beyond.count() >= 1
        edge, lowest = page.locator("#qq-plot line").evaluate_all(
            "all => [all[0].y1, all[0].y2].map(y => y.baseVal.value)"
        )
        assert all(abs(top - edge) < 5 for top in tops(beyond))
        assert all(edge < top < lowest for top in tops(within))
        page.get_by_label("Grouping", exact=True).select_option("control_g1")
        assert beyond.count() == 0
        caption = page.locator("figure:has(#qq-plot) figcaption").inner_text()
        assert "Triangles at the upper edge, if any, are points beyond it." in caption

    def test_by_keyboard(self, page: Page) -> None:
        picker = page.get_by_label("Grouping", exact=True)
        names = picker.locator("option").all_inner_texts()
        picker.select_option(names[0])
        assert page.get_by_role("button", name="Previous").is_disabled()
        picker.focus()
        page.keyboard.press("ArrowDown")
        assert page.locator("#chosen-name").inner_text() == f"Grouping {names[1]}"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")  # the button "Next"
        assert page.locator("#chosen-name").inner_text() == f"Grouping {names[2]}"

    def test_a_row_of_the_table_picks(self, page: Page) -> None:
        page.get_by_role("button", name="control_g2").click()
        assert page.locator("#chosen-name").inner_text() == "Grouping control_g2"
        assert focused(page).get_attribute("id") == "picker"


def tops(shapes: Locator) -> list[float]:
    """Upper ends of shapes, in the units of their chart."""
    return shapes.evaluate_all("all => all.map(shape => shape.getBBox().y)")


def focused(page: Page) -> Locator:
    return page.locator(":focus")


class TestTables:
    def test_search(self, page: Page) -> None:
        page.get_by_label("Search groupings").fill("CONTROL")
        assert column(page, "groupings", 1) == ["control_g1", "control_g2"]
        assert page.locator("#groupings-found").inner_text() == "2 of 10 rows"
        page.get_by_label("Search groupings").fill("")
        assert len(column(page, "groupings", 1)) == 10

    def test_search_holds_for_the_next_grouping(self, page: Page) -> None:
        page.locator("#top-search").fill("gene01")
        before = sorted(column(page, "top", 1))
        page.get_by_role("button", name="Next").click()
        assert sorted(column(page, "top", 1)) == before
        assert all("gene01" in gene for gene in before)

    def test_sort_by_number_up_and_down_by_keyboard(self, page: Page) -> None:
        head = page.locator("#top").get_by_role("button", name="P", exact=True)
        head.focus()
        page.keyboard.press("Enter")
        rising = [float(text) for text in column(page, "top", 4)]
        assert rising == sorted(rising)
        assert page.locator("#top th[aria-sort]").get_attribute("aria-sort") == "ascending"
        page.keyboard.press("Space")
        falling = [float(text) for text in column(page, "top", 4)]
        assert falling == sorted(falling, reverse=True)
        assert page.locator("#top th[aria-sort]").get_attribute("aria-sort") == "descending"

    def test_sort_by_name(self, page: Page) -> None:
        page.locator("#edges").get_by_role("button", name="Gene 2").click()
        names = [name for name in column(page, "edges", 2) if name.startswith("gene")]
        assert names == sorted(names)


class TestAppearance:
    def test_skip_link_comes_first_and_focus_is_seen(self, page: Page) -> None:
        page.keyboard.press("Tab")
        assert focused(page).inner_text() == "Skip to the results"
        assert focused(page).bounding_box()["x"] >= 0  # type: ignore[index]
        page.keyboard.press("Enter")
        assert focused(page).get_attribute("id") == "content"
        page.get_by_label("Search groupings").focus()
        assert float(focused(page).evaluate("element => parseFloat(getComputedStyle(element).outlineWidth)")) >= 2

    @pytest.mark.slow
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_accessibility(self, page: Page, scheme: Literal["light", "dark"]) -> None:
        page.emulate_media(color_scheme=scheme)
        page.locator("details").evaluate_all("all => all.forEach(details => { details.open = true; })")
        assert accessibility_violations(page) == []

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_colours_of_figures_stand_out(self, page: Page, scheme: Literal["light", "dark"]) -> None:
        page.emulate_media(color_scheme=scheme)
        for name, least in (("ink", 7), ("muted", 4.5), ("first", 4.5), ("second", 4.5), ("third", 4.5)):
            assert contrast(page, name) >= least, name

    def test_dark_is_dark(self, page: Page) -> None:
        page.emulate_media(color_scheme="dark")
        assert luminance(colour(page, "page")) < 0.02

    def test_print_is_light_whole_and_without_controls(self, page: Page) -> None:
        page.emulate_media(media="print", color_scheme="dark")
        assert luminance(colour(page, "card")) > 0.9
        assert not page.locator("#picker").is_visible()
        assert page.locator("#chosen-name").is_visible()
        box = page.locator(".scroll:has(#options)")
        assert box.evaluate("element => element.scrollHeight <= element.clientHeight + 2")

    def test_on_paper_all_is_unfolded_and_cut_tables_say_so(self, page: Page) -> None:
        closed = page.locator("details:not([open])")
        before = closed.count()
        assert before > 0
        page.evaluate(
            "window.addEventListener('beforeprint', () => { window.leftClosed = document.querySelectorAll("
            "'details:not([open])').length; })"
        )
        page.pdf()
        assert page.evaluate("window.leftClosed") == 0
        assert closed.count() == before
        page.emulate_media(media="print")
        for table, note in (("edges", '"; the first 25 rows"'), ("groupings", "none")):
            caption = page.locator(f"#{table} caption")
            assert caption.evaluate("element => getComputedStyle(element, '::after').content") == note
        assert (page.locator("#edges tbody tr").count(), page.locator("#edges tbody tr:visible").count()) == (100, 25)

    def test_narrow_screen_scrolls_one_way(self, page: Page) -> None:
        page.set_viewport_size({"width": 380, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 380

    def test_without_scripts_the_rest_is_there(self, browser: Browser, report: Path) -> None:
        with browser.new_context(java_script_enabled=False) as context:
            page = context.new_page()
            page.goto(report.as_uri())
            assert page.locator("noscript p").is_visible()
            assert not page.locator("#picker").is_visible()
            assert page.locator("#groupings tbody tr").count() == 10
            assert page.locator("figure svg").first.is_visible()


def colour(page: Page, variable: str) -> list[int]:
    """Red, green and blue of a variable of the style sheet."""
    text = page.evaluate(
        "name => { const box = document.body.appendChild(document.createElement('i'));"
        " box.style.color = `var(--${name})`; const found = getComputedStyle(box).color; box.remove(); return found; }",
        variable,
    )
    return [int(part) for part in text.removeprefix("rgb(").removesuffix(")").split(",")]


def luminance(channels: list[int]) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [channel / 255 for channel in channels]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def contrast(page: Page, variable: str) -> float:
    """Contrast of a colour with that behind the figures."""
    values = sorted(luminance(colour(page, name)) for name in (variable, "card"))
    return (values[1] + 0.05) / (values[0] + 0.05)
