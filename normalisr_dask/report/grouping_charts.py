"""What the page needs to draw a grouping's volcano plot, histogram of P and QQ plot, and its top genes, in few bytes.

Of a grouping, or of a contrast of linear models, the page gets its top genes as they are, all others as a coarse 2-D
histogram, and quantiles: some 3 kB, whatever the number of genes. ``templates/report.js`` reads the bytes in the order
in which they are written here.
"""

import base64
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from normalisr_dask.kernels.calibration import genomic_inflation, histogram, qq_points

Floats = NDArray[np.float64]

#: Bins of the background of a volcano plot, and shades (4 bits) of a bin.
EFFECT_BINS, P_BINS, SHADES = 40, 28, 15
HISTOGRAM_BINS = 20
QQ_POINTS = 32
#: Top genes of all groupings together, and the least and the most of one.
TOP_OF_ALL, TOP_LEAST, TOP_MOST = 40_000, 20, 500
#: Values of one array that are held at a time.
BLOCK_VALUES = 2 << 20
NAMES = ("gamma", "se", "log10_pvalue", "qvalue")


class GroupingCharts(NamedTuple):
    """Charts of one grouping.

    Attributes
    ----------
    packed
        For the script of the page, base64.
    genes
        Positions of the top genes, the smallest P-value first.
    n_tests
        Number of genes tested.
    inflation
        Genomic inflation of its tests; NaN without tests.
    """

    packed: str
    genes: NDArray[np.int64]
    n_tests: int
    inflation: float


def top_genes_each(n_groupings: int) -> int:
    """Return how many top genes a grouping is given, so that the page stays small."""
    return int(np.clip(TOP_OF_ALL // max(1, n_groupings), TOP_LEAST, TOP_MOST))


def grouping_charts(arrays: dict[str, zarr.Array], n_top: int) -> Iterator[GroupingCharts]:
    """Yield the charts of every grouping, in order.

    Parameters
    ----------
    arrays
        gamma, se, log10_pvalue and qvalue (groupings, genes), as stored.
    n_top
        Top genes of a grouping.

    Notes
    -----
    Reads a block of rows at a time. Memory: some 150 MB at most.
    """
    n_groupings, n_genes = arrays["gamma"].shape
    height = _rows_at_a_time(n_genes, arrays["gamma"].chunks[0])
    for start in range(0, n_groupings, height):
        block = {name: np.asarray(arrays[name][start : start + height]) for name in NAMES}
        for row in range(block["gamma"].shape[0]):
            effect, error, log10_p, q = (block[name][row] for name in NAMES)
            yield charts_of_tests(effect, [error], log10_p, q, n_top)


def _rows_at_a_time(n_genes: int, chunk: int) -> int:
    """Return how many rows to read: whole chunks, or an even part of one that is too large."""
    most = max(1, BLOCK_VALUES // max(1, n_genes))
    return most // chunk * chunk if most >= chunk else -(-chunk // -(-chunk // most))


def charts_of_tests(
    effect: Floats, further: Sequence[Floats], log10_p: Floats, q: Floats, n_top: int
) -> GroupingCharts:
    """Make the charts of the tests of one grouping.

    Parameters
    ----------
    effect
        (genes,).
    further
        What else the table of top genes shows (genes,) each.
    log10_p, q
        log10 of P-values, and Q-values (genes,); NaN for genes that were not tested.
    n_top
        Top genes.
    """
    tested = np.flatnonzero(~np.isnan(log10_p))
    n_top = min(n_top, tested.size)
    by_p = tested[np.argsort(log10_p[tested], kind="stable")]
    top, others = by_p[:n_top].copy(), by_p[n_top:]  # a view would keep all of by_p
    of_tests = histogram(log10_p[tested], log10=True)
    bins = np.histogram(10.0 ** log10_p[tested], HISTOGRAM_BINS, (0.0, 1.0))[0]
    with np.errstate(divide="ignore", over="ignore"):
        columns = [effect[top], *(values[top] for values in further), log10_p[top], np.log10(q[top])]
        parts = [
            np.array([tested.size, top.size], dtype="<u4"),
            *_background(effect[others], -log10_p[others]),
            bins.astype("<u4"),
            qq_points(of_tests, n_points=QQ_POINTS).astype("<f4"),
            top.astype("<u4"),
            *(column.astype("<f4") for column in columns),
        ]
    packed = base64.b64encode(b"".join(part.tobytes() for part in parts)).decode("ascii")
    return GroupingCharts(packed, top, tested.size, float(genomic_inflation(of_tests)))


def _background(effect: Floats, size: Floats) -> list[NDArray[np.generic]]:
    """Return lowest and highest effect and highest −log10 P of the genes in the background, and shades of the bins.

    A byte holds two bins, the first one in its lower half; bins of one effect follow each other, from P = 1 on.
    """
    is_finite = np.isfinite(effect) & np.isfinite(size)
    effect, size = effect[is_finite], size[is_finite]
    if not effect.size:
        return [np.zeros(3, dtype="<f4"), np.zeros(EFFECT_BINS * P_BINS // 2, dtype=np.uint8)]
    low, high, top = float(effect.min()), float(effect.max()), float(size.max())
    column = _bin(effect - low, high - low, EFFECT_BINS)
    row = _bin(size, top, P_BINS)
    numbers = np.bincount(column * P_BINS + row, minlength=EFFECT_BINS * P_BINS)
    shades = np.ceil(SHADES * np.log1p(numbers) / np.log1p(numbers.max())).astype(np.uint8)
    return [np.array([low, high, top], dtype="<f4"), shades[::2] | (shades[1::2] << 4)]


def _bin(values: Floats, span: float, n_bins: int) -> NDArray[np.int64]:
    """Return the bin of values between 0 and span."""
    return np.minimum((values * (n_bins / span if span > 0 else 0.0)).astype(np.int64), n_bins - 1)
