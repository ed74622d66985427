"""What counts alone tell about genes and cells: sums and numbers of non-zeros, and whether they are counts at all."""

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, by_columns


def check_counts(
    block: Block, cell_index: NDArray[np.int64] | None = None, gene_index: NDArray[np.int64] | None = None
) -> Block:
    """Return the block unchanged if its values are counts.

    Parameters
    ----------
    block
        Genes × cells.
    cell_index, gene_index
        Positions of the block's cells and genes in the whole matrix, for the message; those in the block where None.

    Raises
    ------
    ValueError
        If a value is negative, fractional or not finite; names the first one and where it is.
    """
    values = block.data if scipy.sparse.issparse(block) else block
    if values.dtype.kind in "bu" or values.size == 0 or (values.dtype.kind == "i" and values.min() >= 0):
        return block
    is_count = values >= 0
    if values.dtype.kind == "f":
        is_count &= (values == np.floor(values)) & np.isfinite(values)
    if is_count.all():
        return block
    gene, cell, value = _first_wrong(block, is_count)
    gene = gene if gene_index is None else int(gene_index[gene])
    cell = cell if cell_index is None else int(cell_index[cell])
    msg = (
        f"expected counts (whole numbers, 0 or more), found {value} for gene {gene}, cell {cell} (counted from 0); "
        "give raw counts, not normalised values"
    )
    raise ValueError(msg)


def _first_wrong(block: Block, is_count: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Return gene, cell and value of the first entry that is no count."""
    first = int(np.argmin(is_count))
    if not scipy.sparse.issparse(block):
        gene, cell = (int(position) for position in np.unravel_index(first, block.shape))
        return gene, cell, float(block[gene, cell])
    sparse = scipy.sparse.coo_array(block)  # keeps the order of the entries
    return int(sparse.coords[0][first]), int(sparse.coords[1][first]), float(sparse.data[first])


def gene_sums(
    block: Block,
    *,
    cells_kept: NDArray[np.bool_] | None = None,
    cell_totals: NDArray[np.float64] | None = None,
    cell_index: NDArray[np.int64] | None = None,
    gene_index: NDArray[np.int64] | None = None,
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
    cell_index, gene_index
        As for :func:`check_counts`.

    Returns
    -------
    float64 (genes, 3). Sums of whole numbers are exact below 2⁵³.
    """
    block = check_counts(block, cell_index, gene_index)
    n_genes, n_cells = block.shape
    kept = np.ones(n_cells, dtype=bool) if cells_kept is None else cells_kept
    shares = np.zeros(n_cells) if cell_totals is None else 1.0 / np.maximum(cell_totals, 1)
    if scipy.sparse.issparse(block):
        sparse = by_columns(block)
        sums = np.zeros((n_genes, 3))
        _add_by_gene(sparse.indptr, sparse.indices, sparse.data, kept, shares, sums)
        return sums
    block = block[:, kept]
    totals = block.sum(axis=1, dtype=np.float64)
    return np.stack([totals, np.count_nonzero(block, axis=1), block @ shares[kept]], axis=1)


def cell_sums(
    block: Block,
    *,
    genes_kept: NDArray[np.bool_] | None = None,
    cell_index: NDArray[np.int64] | None = None,
    gene_index: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Return per cell, over the kept genes, total count and number of non-zero genes, float64 (2, cells)."""
    block = check_counts(block, cell_index, gene_index)
    if scipy.sparse.issparse(block):
        sparse = by_columns(block)
        sums = np.zeros((2, block.shape[1]))
        kept = np.ones(block.shape[0], dtype=bool) if genes_kept is None else genes_kept
        _add_by_cell(sparse.indptr, sparse.indices, sparse.data, kept, sums)
        return sums
    if genes_kept is not None:
        block = block[genes_kept]
    return np.stack([block.sum(axis=0, dtype=np.float64), np.count_nonzero(block, axis=0)])


def both_sums(
    block: Block,
    *,
    cells_kept: NDArray[np.bool_],
    genes_kept: NDArray[np.bool_],
    cell_index: NDArray[np.int64],
    gene_index: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return :func:`gene_sums` and :func:`cell_sums` of a block, flat and one after the other."""
    of_genes = gene_sums(block, cells_kept=cells_kept, cell_index=cell_index, gene_index=gene_index)
    return np.concatenate([of_genes.ravel(), cell_sums(block, genes_kept=genes_kept).ravel()])


@njit(nogil=True, cache=True)
def _add_by_gene(offsets, genes, counts, cells_kept, shares, sums):  # type: ignore[no-untyped-def]
    for cell in range(cells_kept.size):
        if cells_kept[cell]:
            for entry in range(offsets[cell], offsets[cell + 1]):
                if counts[entry] != 0:  # stored entries are not trusted to be non-zero
                    gene = genes[entry]
                    sums[gene, 0] += counts[entry]
                    sums[gene, 1] += 1
                    sums[gene, 2] += counts[entry] * shares[cell]


@njit(nogil=True, cache=True)
def _add_by_cell(offsets, genes, counts, genes_kept, sums):  # type: ignore[no-untyped-def]
    for cell in range(sums.shape[1]):
        for entry in range(offsets[cell], offsets[cell + 1]):
            if counts[entry] != 0 and genes_kept[genes[entry]]:
                sums[0, cell] += counts[entry]
                sums[1, cell] += 1
