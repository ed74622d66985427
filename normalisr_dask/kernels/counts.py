"""What counts alone tell about genes and cells: sums and numbers of non-zeros, and whether they are counts at all."""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block


def check_counts(block: Block) -> Block:
    """Return the block unchanged if its values are counts.

    Raises
    ------
    ValueError
        If a value is negative, fractional or not finite; names the first one.
    """
    values = block.data if scipy.sparse.issparse(block) else block
    if values.dtype.kind in "bu" or values.size == 0:
        return block
    is_count = values >= 0
    if values.dtype.kind == "f":
        is_count &= (values == np.floor(values)) & np.isfinite(values)
    if is_count.all():
        return block
    msg = (
        f"expected counts (whole numbers, 0 or more), found {values[~is_count].ravel()[0]}; "
        "give raw counts, not normalised values"
    )
    raise ValueError(msg)


def gene_sums(
    block: Block, *, cells_kept: NDArray[np.bool_] | None = None, cell_totals: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """Return per gene, over the kept cells, total count, number of non-zero cells, and sum of count / cell total.

    Parameters
    ----------
    block
        Counts, genes × cells.
    cells_kept
        Boolean (cells,); all cells where None.
    cell_totals
        Total count of every cell (cells,); the third column is 0 where None.

    Returns
    -------
    float64 (genes, 3). Sums of whole numbers are exact below 2⁵³.
    """
    block = check_counts(block)
    if cells_kept is not None:
        block = block[:, cells_kept]
    proportions = np.zeros(block.shape[0])
    if cell_totals is not None:
        proportions = np.asarray(block @ (1.0 / np.maximum(cell_totals, 1)))
    totals = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
    return np.stack([totals, _count_nonzero(block, axis=1), proportions], axis=1)


def cell_sums(block: Block, *, genes_kept: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return per cell, over the kept genes, total count and number of non-zero genes, float64 (2, cells)."""
    block = check_counts(block)
    if genes_kept is not None:
        block = block[genes_kept]
    totals = np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
    return np.stack([totals, _count_nonzero(block, axis=0)])


def _count_nonzero(block: Block, *, axis: int) -> NDArray[np.float64]:
    if scipy.sparse.issparse(block):
        # Stored entries are not trusted to be non-zero.
        other = scipy.sparse.csc_array((block.data != 0, block.indices, block.indptr), shape=block.shape)
        return np.asarray(other.sum(axis=axis, dtype=np.float64)).ravel()
    return np.asarray(np.count_nonzero(block, axis=axis), dtype=np.float64)
