"""How calibrated the tests of a run are: over its negative controls, and over its groupings with permuted cells."""

from typing import Any, NamedTuple

import dask
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.grouping_tests import GroupingTests
from normalisr_dask.kernels.calibration import Histogram, add_histograms, genomic_inflation, qq_points
from normalisr_dask.steps.calibration import histogram

QQ_POINTS = 200
TESTED, CONTROL, PERMUTED = "tested", "control", "permuted"


class Calibration(NamedTuple):
    """How calibrated a family of tests is.

    Attributes
    ----------
    n_tests
        Number of tests.
    inflation
        Genomic inflation; NaN without tests.
    points
        Expected and observed −log10 P, float64 (2, QQ_POINTS).
    """

    n_tests: int
    inflation: float
    points: NDArray[np.float64]


def calibrate(
    tests: GroupingTests, rows: NDArray[np.int64], *, permutations: int, seed: int, rows_at_a_time: int
) -> dict[str, Calibration]:
    """Compute genomic inflation and quantiles of P-values.

    Parameters
    ----------
    tests
        Of a run whose stage ``de`` is stored.
    rows
        Which of its groupings are stored there.
    permutations
        How many times to permute the cells of all groupings together, which leaves groupings as they overlap, and
        their tests without effects.
    seed
        Of the permutations; each has its own stream.
    rows_at_a_time
        Groupings that are tested in one submission to the scheduler.

    Returns
    -------
    dict
        By family: ``tested``, the groupings that are no controls; ``control``, where any are tested; ``permuted``,
        where asked for.

    Notes
    -----
    Cost: one reading of the stored P-values, and of each permutation the tests themselves. Memory: a few MB.
    """
    is_control = tests.screen.is_control[rows]
    stored = tests.results.open("de", "log10_pvalue")
    lazy: dict[str, Any] = {TESTED: histogram(stored[~is_control], log10=True)}
    if is_control.any():
        lazy[CONTROL] = histogram(stored[is_control], log10=True)
    elif tests.screen.reference.names:
        of_reference = tests.log10_p_of_reference()
        if of_reference is not None:
            lazy[CONTROL] = histogram(of_reference, log10=True)
    histograms: dict[str, Histogram] = dict(zip(lazy, dask.compute(*lazy.values()), strict=True))
    if permutations:
        seeds = np.random.SeedSequence(seed).spawn(permutations)
        histograms[PERMUTED] = add_histograms([_permuted(tests, rows, child, rows_at_a_time) for child in seeds])
    return {
        family: _calibration(of_tests)
        for family, of_tests in histograms.items()
        if of_tests.n_tests or family == TESTED
    }


def _permuted(
    tests: GroupingTests, rows: NDArray[np.int64], seed: np.random.SeedSequence, rows_at_a_time: int
) -> Histogram:
    """Return the histogram of the tests with permuted cells."""
    n_cells = tests.results.read("normalisation", "cell").size
    order = np.random.default_rng(seed).permutation(n_cells)
    log10_p = tests.tested(rows, order=order)["log10_pvalue"]
    starts = range(0, rows.size, rows_at_a_time)
    parts = (histogram(log10_p[start : start + rows_at_a_time], log10=True) for start in starts)
    return add_histograms([dask.compute(part)[0] for part in parts])


def _calibration(of_tests: Histogram) -> Calibration:
    return Calibration(of_tests.n_tests, float(genomic_inflation(of_tests)), qq_points(of_tests, n_points=QQ_POINTS))
