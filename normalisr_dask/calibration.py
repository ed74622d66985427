"""How calibrated the tests of a run are: over its negative controls, and over its groupings with permuted cells."""

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.grouping_tests import GroupingTests
from normalisr_dask.kernels.calibration import Histogram, add_histograms, genomic_inflation, qq_points
from normalisr_dask.partitions import Standing, compute_alone
from normalisr_dask.steps.calibration import histogram
from normalisr_dask.storage.histograms import save_histogram, saved_histogram

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
    tests: GroupingTests,
    rows: NDArray[np.int64],
    *,
    permutations: int,
    seed: int,
    rows_at_a_time: int,
    folder: Path,
    standing: Standing,
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
    folder
        Where the histogram of each submission of permuted cells is kept, and taken from if it is there.
    standing
        Is told the share of these that are there.

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
    histograms: dict[str, Histogram] = dict(zip(lazy, compute_alone(*lazy.values()), strict=True))
    if permutations:
        seeds = np.random.SeedSequence(seed).spawn(permutations)
        histograms[PERMUTED] = _permuted(tests, rows, seeds, rows_at_a_time, folder, standing)
    return {
        family: _calibration(of_tests)
        for family, of_tests in histograms.items()
        if of_tests.n_tests or family == TESTED
    }


def _permuted(
    tests: GroupingTests,
    rows: NDArray[np.int64],
    seeds: Sequence[np.random.SeedSequence],
    rows_at_a_time: int,
    folder: Path,
    standing: Standing,
) -> Histogram:
    """Return the histogram of the tests with permuted cells.

    That of each permutation is kept in a file, and until it is there, that of each submission.
    """
    starts = range(0, rows.size, rows_at_a_time)
    whole = [folder / f"{number}.npy" for number in range(len(seeds))]
    parts = [[folder / f"{path.stem}_{start}_{rows_at_a_time}.npy" for start in starts] for path in whole]
    is_missing = [
        [not path.is_file() and not part.is_file() for part in of_permutation]
        for path, of_permutation in zip(whole, parts, strict=True)
    ]
    standing(1 - np.sum(is_missing) / max(1, len(seeds) * len(starts)))
    n_cells = tests.results.read("normalisation", "cell").size
    for seed, path, of_permutation, missing in zip(seeds, whole, parts, is_missing, strict=True):
        if path.is_file():
            continue
        if any(missing):
            order = np.random.default_rng(seed).permutation(n_cells)
            log10_p = tests.tested(rows, order=order)["log10_pvalue"]
        for start, part in compress(zip(starts, of_permutation, strict=True), missing):
            of_rows = histogram(log10_p[start : start + rows_at_a_time], log10=True)
            save_histogram(part, compute_alone(of_rows)[0])
        save_histogram(path, add_histograms([saved_histogram(part) for part in of_permutation]))
    return add_histograms([saved_histogram(path) for path in whole])


def _calibration(of_tests: Histogram) -> Calibration:
    return Calibration(of_tests.n_tests, float(genomic_inflation(of_tests)), qq_points(of_tests, n_points=QQ_POINTS))
