"""Sums of counts over cells of the same group, and their log2 counts per million."""

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.kernels.counts import check_counts

#: What is added to every count before its logarithm, and twice that to the total: zeros have one, too.
HALF = 0.5


def group_sums(
    block: Any, *, groups: NDArray[np.int64], n_groups: int, cell_index: NDArray[np.int64] | None = None
) -> scipy.sparse.csr_array:
    """Return sums over the cells of each group, (groups, genes), int64; cells of group -1 are left out.

    Parameters
    ----------
    block
        Counts (genes, cells), dense or sparse.
    groups
        Number of the group of every cell (cells,).
    n_groups
        Number of groups.
    cell_index
        As for :func:`normalisr_dask.kernels.counts.check_counts`.

    Raises
    ------
    ValueError
        If a value is no count; sums of whole numbers would cut off what is behind the point, entry by entry.
    """
    block = check_counts(block if scipy.sparse.issparse(block) else np.asarray(block), cell_index)
    cells = np.flatnonzero(groups >= 0)
    indicator = scipy.sparse.csr_array(
        (np.ones(cells.size, dtype=np.int64), (groups[cells], cells)), shape=(n_groups, groups.size)
    )
    by_cell = scipy.sparse.csr_array(block.T)
    return scipy.sparse.csr_array(indicator @ by_cell.astype(np.int64))


def add_sums(sums: list[scipy.sparse.csr_array]) -> scipy.sparse.csr_array:
    """Return the sum of sparse arrays."""
    total = sums[0]
    for part in sums[1:]:
        total = total + part
    return total


def log2_cpm(sums: scipy.sparse.csr_array) -> NDArray[np.float64]:
    """Return log2((count + ½)/(total + 1) · 10⁶) of samples × genes, dense."""
    totals = np.asarray(sums.sum(axis=1), dtype=np.float64)
    values = sums.toarray().astype(np.float64)
    values += HALF
    np.log2(values, out=values)
    values += np.log2(1e6 / (totals + 2 * HALF))[:, None]
    return np.asarray(values)
