"""Blocks of counts, dense or sparse: the few things that depend on how a block is held.

A block is genes × cells: a NumPy array or a SciPy sparse array. Sparse blocks come as CSC, so that
the entries of a cell lie together.
"""

from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

# NDArray[np.generic] | scipy.sparse.csc_array; SciPy brings no types, so a checker sees Any in any case.
Block: TypeAlias = Any


def by_columns(block: Block) -> scipy.sparse.csc_array:
    """Return the block as CSC; one that is CSC is returned as it is, where SciPy's constructor may copy its entries."""
    return block.tocsc() if scipy.sparse.issparse(block) else scipy.sparse.csc_array(block)


def as_sparse(block: Block) -> scipy.sparse.csc_array:
    """Return the block as CSC without stored zeros."""
    sparse = by_columns(block)
    if np.any(sparse.data == 0):
        sparse = sparse.copy()
        sparse.eliminate_zeros()
    return sparse


def dense_from_entries(
    sparse: scipy.sparse.csc_array, values: NDArray[np.float64], fill: float, cell_offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return genes × cells: ``values`` at the entries of ``sparse``, ``fill`` elsewhere, less each cell's offset.

    The result is in column order (cells contiguous), as the entries are, so each is written once and in order.
    """
    dense = np.empty(sparse.shape[::-1])
    scatter_entries(sparse.indptr, sparse.indices, values, fill, cell_offset, dense)
    return dense.T


@njit(nogil=True, cache=True)
def scatter_entries(offsets, genes, values, fill, cell_offset, dense):  # type: ignore[no-untyped-def]
    """Write :func:`dense_from_entries` to ``dense`` (cells, genes), of cells whose entries lie between ``offsets``."""
    for cell in range(dense.shape[0]):
        row = dense[cell]
        row[:] = fill - cell_offset[cell]
        for entry in range(offsets[cell], offsets[cell + 1]):
            row[genes[entry]] = values[entry] - cell_offset[cell]


def dense_float(block: Block) -> NDArray[np.float64]:
    """Return the block as a dense float64 array; a dense float64 block is returned as it is, not copied."""
    if scipy.sparse.issparse(block):
        return np.asarray(block.toarray(), dtype=np.float64)
    return np.asarray(block, dtype=np.float64)
