"""What counts and results show of themselves: sizes and meanings, escaped, small, and without computing or reading."""

from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest

import normalisr_dask as nd
from normalisr_dask import results
from normalisr_dask.steps.calibration import QuantileQuantile
from normalisr_dask.steps.guides import GuideAssignment
from normalisr_dask.testing import raise_if_computes


class Table(HTMLParser):
    """Reads a table: its caption and the texts of its rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.caption, self.rows, self.open = "", [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in {"table", "caption", "tbody", "tr", "th", "td"}
        for _, value in attributes:  # colours are those of the page, light or dark
            assert "#" not in str(value)
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] == "caption":
            self.caption += data
        else:
            self.rows[-1].append(data)


def never() -> np.ndarray:
    msg = "a display computes nothing"
    raise AssertionError(msg)


def lazy(*shape: int) -> da.Array:
    """Return an array that must not be computed."""
    return da.map_blocks(never, chunks=tuple((length,) for length in shape), dtype=np.float64)


def arrays(n: int) -> list[da.Array]:
    return [lazy(2, 3) for _ in range(n)]


@pytest.mark.parametrize(
    ("make", "name", "texts"),
    [
        (
            lambda: results.LogCpm(lazy(3, 1_000), *arrays(2), None),
            "lcpm",
            ["float64 3 × 1,000 (genes, cells); lazy, 24.0 kB when computed", "Natural log of counts per million"],
        ),
        (
            lambda: results.LogCpm(*arrays(3), None),
            "cov",
            ["None", "Log total count, number of zero-count genes, (log total count)²"],
        ),
        (
            lambda: results.DifferentialExpression(*arrays(8)),
            "log10_pvalue",
            ["float64 2 × 3 (groupings, genes); lazy, 48 B when computed", "log₁₀ of the P-value, without underflow"],
        ),
        (
            lambda: results.TopTerm(["<b>a</b>", "b"], pd.DataFrame({"<i>": [1, 2]}), "GO:1", ["b"]),
            "principals",
            ["list of 2", "Principal genes: those with most edges"],
        ),
        (
            lambda: results.TopTerm(["<b>a</b>"], pd.DataFrame({"<i>": [1, 2]}), "GO:1", ["b"]),
            "goe",
            ["table of 2 rows: <i>", "Enrichment of all terms, as of Enrichment"],
        ),
        (lambda: results.EList(E=np.zeros((4, 5))), "E", ["float64 4 × 5; 160 B", ""]),
        (lambda: results.EList(genes=["<script>"]), "genes", ["['<script>']", ""]),
        (lambda: results.LinearFit(note="x" * 90), "note", ["'" + "x" * 58 + "…", ""]),
        (
            lambda: GuideAssignment(lazy(2, 3), lazy(3)),
            "groupings",
            [
                "float64 2 × 3 (guides, cells); lazy, 48 B when computed",
                "1 where the cell carries the guide; sparse chunks",
            ],
        ),
        (
            lambda: QuantileQuantile(lazy(4), lazy(4)),
            "observed",
            ["float64 4 (points,); lazy, 32 B when computed", "−log₁₀ P found at these ranks"],
        ),
    ],
)
def test_results_show_what_they_hold(make: Callable[[], Any], name: str, texts: list[str]) -> None:
    result = make()
    with raise_if_computes():
        html, text = result._repr_html_(), repr(result)
    table = Table(html)
    assert table.caption == type(result).__name__ == text.splitlines()[0]
    assert [name, *filter(None, texts)] in table.rows
    (line,) = (line for line in text.splitlines()[1:] if line.split()[0] == name)
    assert all(part in line for part in texts)
    assert len(html) < 5_000


def test_arrays_of_unknown_length_are_shown() -> None:
    chosen = da.from_array(np.arange(5.0))
    result = results.Normalised(chosen[chosen > 2], chosen)
    assert "dtn  float64 ? (genes, cells); lazy  " in repr(result)


def test_results_still_unpack_compare_and_are_documented() -> None:
    array = np.zeros(1)
    result = results.Normalised(array, array)
    dtn, dcn = result
    assert dtn is dcn is array
    assert result == (array, array)
    assert result._replace(dcn=None).dcn is None


def test_counts_show_their_store_and_what_is_chosen(count_store: Path, tmp_path: Path) -> None:
    counts = nd.open_counts(count_store).subset(genes=np.arange(7))
    moved = tmp_path / "<gone>.zarr"
    count_store.rename(moved)  # so that reading would fail
    try:
        with raise_if_computes():
            table, text = Table(counts._repr_html_()), repr(counts)
    finally:
        moved.rename(count_store)
    assert table.caption == "Counts, 7 genes × 110 cells" == text.splitlines()[0]
    shown = dict(table.rows)
    assert str(count_store) in shown["store"]
    assert shown["chosen"] == "7 of 90 genes, 110 of 110 cells"
    assert "lazy, uint16, sparse, in 1 blocks of cells" in shown[".matrix"]


def test_names_of_stores_are_escaped(count_store: Path, tmp_path: Path) -> None:
    link = tmp_path / "<b>&.zarr"
    link.symlink_to(count_store)
    html = nd.open_counts(link)._repr_html_()
    assert "&lt;b&gt;&amp;.zarr" in html
    assert "<b>" not in html
