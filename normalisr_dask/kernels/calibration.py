"""Calibration of P-values: genomic inflation and QQ points, from a histogram of −log10 P that adds up over blocks.

The histogram is sparse and fine: a step is 2⁻¹⁴ of the value, whatever its size. Quantiles are therefore within 3e-5
(relative, of −log10 P) of the exact ones, the same bits for any blocks, and no more than some 16,000 steps for every
doubling of −log10 P are held, however many tests there are.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri_exp

Floats = NDArray[np.float64]

#: Bits of a float64's mantissa that a step leaves out: 52 − 14.
_LEFT_OUT = 38
_INFINITE_STEP = 0x7FF << (52 - _LEFT_OUT)
#: Median of χ² with one degree of freedom.
NULL_MEDIAN = float(ndtri_exp(np.log(0.25))) ** 2


class Histogram(NamedTuple):
    """Numbers of tests by −log10 P.

    Attributes
    ----------
    steps : int64 (occupied steps,)
        Ascending; the leading bits of −log10 P.
    counts : int64 (occupied steps,)
        Tests in each, above 0.
    """

    steps: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def n_tests(self) -> int:
        """Number of all tests."""
        return int(self.counts.sum())


def histogram(p_values: Floats, *, log10: bool) -> Histogram:
    """Return the histogram of P-values of any shape, or of their log10; NaN does not count.

    Raises
    ------
    ValueError
        If a P-value is not between 0 and 1.
    """
    tests = p_values[~np.isnan(p_values)]
    wrong = tests > 0 if log10 else (tests < 0) | (tests > 1)
    if wrong.any():
        expected = "log10 of P-values of at most 0" if log10 else "P-values between 0 and 1"
        msg = f"expected {expected}, found {tests[wrong][0]:g}"
        raise ValueError(msg)
    if not log10:
        with np.errstate(divide="ignore"):
            tests = np.log10(tests)
    size = np.ascontiguousarray(0.0 - tests, dtype=np.float64)  # no −0, whose sign is a bit
    steps, counts = np.unique(size.view(np.int64) >> _LEFT_OUT, return_counts=True)
    return Histogram(steps, counts.astype(np.int64))


def add_histograms(parts: Sequence[Histogram]) -> Histogram:
    """Return the histogram of all parts together."""
    if not parts:
        return Histogram(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    steps, which = np.unique(np.concatenate([part.steps for part in parts]), return_inverse=True)
    counts = np.zeros(steps.size, dtype=np.int64)
    np.add.at(counts, which, np.concatenate([part.counts for part in parts]))
    return Histogram(steps, counts)


def genomic_inflation(tests: Histogram) -> np.float64:
    """Return the median of the χ²₁ statistics that have these P-values, over its null median; NaN without tests."""
    if tests.n_tests == 0:
        return np.float64("nan")
    middle = np.array([(tests.n_tests + 1) // 2, tests.n_tests // 2 + 1])  # one rank, or the two about the middle
    log_half = -_at_ranks(tests, middle) * np.log(10.0) - np.log(2.0)
    return np.float64(np.mean(ndtri_exp(log_half) ** 2) / NULL_MEDIAN)


def qq_points(tests: Histogram, *, n_points: int) -> Floats:
    """Return expected and observed −log10 P at ranks that are evenly spaced on the logarithmic axis, (2, n_points).

    The rank-th smallest of n null P-values is expected at rank / (n + 1). From the smallest P-value to the largest; all
    of them where there are no more than points. Where there are fewer ranks than points, NaN fills the rest.
    """
    points = np.full((2, n_points), np.nan)
    n_tests = tests.n_tests
    if n_tests:
        ranks = np.arange(1, n_tests + 1)
        if n_tests > n_points:
            ranks = np.unique(np.round(np.geomspace(1, n_tests, n_points)).astype(np.int64))
        points[0, : ranks.size] = -np.log10(ranks / (n_tests + 1))
        points[1, : ranks.size] = _at_ranks(tests, n_tests + 1 - ranks)
    return points


def _at_ranks(tests: Histogram, ranks: NDArray[np.int64]) -> Floats:
    """Return −log10 P at ranks from 1 in ascending order of it: the middles of their steps."""
    steps = tests.steps[np.searchsorted(np.cumsum(tests.counts), ranks)]
    middles = ((steps << _LEFT_OUT) + (1 << (_LEFT_OUT - 1))).view(np.float64)
    return np.where(steps == _INFINITE_STEP, np.inf, np.where(steps == 0, 0.0, middles))
