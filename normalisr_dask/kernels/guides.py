"""Which guides a cell carries, from blocks of guide UMI counts, guides × cells."""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, as_sparse
from normalisr_dask.kernels.counts import check_counts


def passing_guides(block: Block, *, threshold: int, min_fraction: float) -> scipy.sparse.csc_array:
    """Return 1 where a guide has enough UMIs in a cell, uint8 CSC (guides, cells).

    Parameters
    ----------
    block
        UMI counts, guides × cells, all guides of these cells.
    threshold
        Smallest number of UMIs; at least 1.
    min_fraction
        Smallest fraction of the UMIs of all guides in the cell.

    Raises
    ------
    ValueError
        If a value is negative, fractional or not finite.
    """
    counts = as_sparse(check_counts(block))
    totals = np.asarray(counts.sum(axis=0, dtype=np.float64)).ravel()
    of_cell = np.repeat(totals, np.diff(counts.indptr))
    passes = (counts.data >= threshold) & (counts.data >= min_fraction * of_cell)
    passed = scipy.sparse.csc_array((passes.astype(np.uint8), counts.indices, counts.indptr), shape=counts.shape)
    passed = passed.copy()  # counts may be read-only
    passed.eliminate_zeros()
    return passed


def n_passing_guides(passed: scipy.sparse.csc_array) -> NDArray[np.int64]:
    """Return how many guides of every cell have passed, (cells,)."""
    return np.asarray(np.diff(passed.indptr), dtype=np.int64)


def single_guides(passed: scipy.sparse.csc_array) -> scipy.sparse.csc_array:
    """Return the guides of the cells in which exactly one has passed; the others have none, (guides, cells)."""
    n_guides = np.diff(passed.indptr)
    is_single = n_guides == 1
    offsets = np.concatenate([[0], np.cumsum(is_single)])
    kept = np.repeat(is_single, n_guides)
    return scipy.sparse.csc_array((passed.data[kept], passed.indices[kept], offsets), shape=passed.shape)
