"""Q-values over all tests of a run, from stored P-values that need not fit in memory."""

from collections.abc import Iterator

import numpy as np
import zarr
from numpy.typing import NDArray

from normalisr_dask.kernels.multiple_testing import q_values_of_ranks

#: P-values that are sorted together: 128 MB, and as much for their Q-values.
SORTED_TESTS = 1 << 24
#: P-values of a block of rows that is read at a time.
BLOCK_TESTS = 1 << 20
#: Steps of P in which tests are counted; P = 1 has one more.
N_STEPS = 1 << 16


def write_q_values_of_all(p_values: zarr.Array, q_values: zarr.Array, *, sorted_tests: int = SORTED_TESTS) -> None:
    """Write the Benjamini-Hochberg Q-values of all stored P-values as one family; NaN stays NaN and does not count.

    Parameters
    ----------
    p_values
        float64 (rows, columns), filled.
    q_values
        float64 of the same shape and chunks, to be filled.
    sorted_tests
        About how many P-values to hold and sort together.

    Notes
    -----
    Exact for any number of tests. One pass counts the P-values in 65,536 steps, so that the ranks at which steps begin
    are known. Then runs of steps are sorted, from the largest P-values down. Q-values are flat over long stretches of
    P-values, of which only the ends are kept; in the last pass every P-value is looked up among them.

    Time: three reads and a sort for up to 17 million tests; a read more for every further 17 million. Memory: 16 bytes
    for each test of a run, unless a single step (1.5e-5 of the range of P) holds more, and 16 for each distinct
    Q-value. 80 million tests, half of them with effects, took 20 s of one core and 0.8 GB.
    """
    in_step = np.zeros(N_STEPS + 1, dtype=np.int64)
    for _, block in _blocks(p_values):
        in_step += np.bincount(_steps(block[~np.isnan(block)]), minlength=N_STEPS + 1)
    n_tests, before = int(in_step.sum()), np.concatenate([[0], np.cumsum(in_step)])
    ends, of_ends = [np.ones(1)], [np.ones(1)]  # the largest P-value of every stretch, and its Q-value
    for start, stop in _runs(in_step, sorted_tests):
        n_before = int(before[start])
        ascending = _sorted_run(p_values, start, stop, int(before[stop]) - n_before)
        of_run = q_values_of_ranks(ascending, n_before=n_before, n_tests=n_tests, ceiling=float(of_ends[-1][0]))
        is_end = np.flatnonzero(np.diff(of_run, append=of_ends[-1][0]))
        if is_end.size:
            ends.append(ascending[is_end])
            of_ends.append(of_run[is_end])
    stretches, of_stretches = np.concatenate(ends[::-1]), np.concatenate([*of_ends[::-1], [np.nan]])
    for rows, block in _blocks(p_values):
        order = np.argsort(block, axis=None)  # ascending look-ups are quick
        values = np.empty(block.size)
        values[order] = of_stretches[np.searchsorted(stretches, block.ravel()[order])]  # NaN comes after all
        q_values[rows] = values.reshape(block.shape)


def _runs(in_step: NDArray[np.int64], sorted_tests: int) -> Iterator[tuple[int, int]]:
    """Yield runs of steps with about so many tests, the last steps first; P = 1 needs no sorting and is left out."""
    stop = N_STEPS
    while stop > 0:
        n_tests = np.cumsum(in_step[:stop][::-1])
        start = stop - max(1, int(np.searchsorted(n_tests, sorted_tests, side="right")))
        yield start, stop
        stop = start


def _sorted_run(p_values: zarr.Array, start: int, stop: int, n_tests: int) -> NDArray[np.float64]:
    """Gather and sort the P-values of a run of steps."""
    ascending, n_found = np.empty(n_tests), 0
    for _, block in _blocks(p_values):
        steps = _steps(block)
        found = block.ravel()[(steps >= start) & (steps < stop)]
        ascending[n_found : n_found + found.size] = found
        n_found += found.size
    ascending.sort()
    return ascending


def _steps(p_values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the step of every P-value, flat; −1 for NaN."""
    flat = p_values.ravel()
    return np.where(np.isnan(flat), -1.0, np.floor(flat * N_STEPS)).astype(np.int64)


def _blocks(array: zarr.Array) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Read blocks of rows, whole chunks at a time."""
    n_rows, n_columns = array.shape
    height = array.chunks[0] * max(1, BLOCK_TESTS // max(1, array.chunks[0] * n_columns))
    for start in range(0, n_rows, height):
        rows = slice(start, min(start + height, n_rows))
        yield rows, np.asarray(array[rows])
