"""Inputs of every kind as Dask arrays: NumPy, SciPy sparse, Dask with dense or sparse chunks, Zarr arrays."""

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any
from uuid import uuid4

import dask
import dask.array as da
import numpy as np
import scipy.sparse
import zarr
from dask.sizeof import sizeof

from normalisr_dask.graph.vectors import CHUNK_BYTES, in_cell_chunks, in_memory, in_one_chunk, long_chunks


@sizeof.register(scipy.sparse.sparray)
def _sparse_bytes(array: Any) -> int:
    """Tell Dask what a sparse chunk holds: it knows SciPy's matrices, not its arrays."""
    return sum(sizeof(part) for part in vars(array).values())


#: Size of a block, counted as dense float64: several fit into a processor's share of memory, few enough tasks remain.
BLOCK_BYTES = 32 << 20
#: Size and cells of a block in memory of which little more is made than sums.
LONG_BLOCK_BYTES, CELLS_PER_LONG_BLOCK = 2 * BLOCK_BYTES, 1 << 14
#: Bytes of an entry of sparse rows: a number and a position.
SPARSE_ENTRY_BYTES = 12
#: Stored entries of a sparse block: some 100 MB with the temporaries of a task.
BLOCK_ENTRIES = 1 << 21
#: Blocks of so many entries that are few for a run.
FEW_BLOCKS = 4
#: Bytes of a sparse block as dense float64, where a step asks for that.
SPARSE_BLOCK_BYTES = 128 << 20


def cells_per_block(n_rows: int, block_bytes: int = BLOCK_BYTES) -> int:
    """Return how many cells make a block of ``n_rows`` genes of at most ``block_bytes`` as dense float64."""
    return max(1, block_bytes // (8 * max(1, n_rows)))


def cells_per_sparse_block(n_rows: int, n_cells: int, n_entries: int, block_entries: int = BLOCK_ENTRIES) -> int:
    """Return how many cells make a block of about ``block_entries``, that also fits in memory as a dense one."""
    by_bytes = cells_per_block(n_rows, SPARSE_BLOCK_BYTES * block_entries // BLOCK_ENTRIES)
    return even_size(n_cells, min(by_bytes, _cells_of_entries(n_cells, n_entries, block_entries)))


def cells_per_block_of_run(n_rows: int, n_cells: int, n_entries: int, block_entries: int) -> int:
    """Return how many cells a task of a run reads: as for any sparse block, but of few blocks as many as can be.

    A run makes no block dense. But larger blocks leave less room for sums, so that tests go through the counts more
    often, and that takes longer than the tasks that are saved, unless all of it takes little.
    """
    if n_entries <= FEW_BLOCKS * block_entries:
        return even_size(n_cells, _cells_of_entries(n_cells, n_entries, block_entries))
    return cells_per_sparse_block(n_rows, n_cells, n_entries, block_entries)


def _cells_of_entries(n_cells: int, n_entries: int, block_entries: int) -> int:
    return max(1, block_entries * n_cells // max(1, n_entries))


def even_size(n_cells: int, largest: int) -> int:
    """Return the size of as few blocks of at most ``largest`` cells as there must be, all about as large."""
    n_blocks = max(1, math.ceil(n_cells / largest))
    return max(1, math.ceil(n_cells / n_blocks))


def as_matrix(values: Any, name: str, cell_chunks: tuple[int, ...] | None = None) -> da.Array:
    """Return a two-dimensional Dask array of rows × cells; sparse input keeps sparse chunks.

    Arrays in memory are not copied: leave them as they are until the results are computed.

    Parameters
    ----------
    values
        NumPy array, SciPy sparse array or matrix, Dask array with dense or sparse chunks, or Zarr array.
    name
        What the caller calls it; for the error.
    cell_chunks
        Chunks of cells for arrays in memory; chosen from the number of rows where None.

    Raises
    ------
    TypeError
        If the values are none of the above, or no real numbers.
    ValueError
        If the values do not have two dimensions.
    """
    _check_matrix(values, name)
    if isinstance(values, da.Array):
        return values
    if isinstance(values, zarr.Array):
        return da.from_zarr(values)
    n_rows, n_cells = values.shape
    if cell_chunks is None:
        if scipy.sparse.issparse(values):
            size = cells_per_sparse_block(n_rows, n_cells, values.nnz)
        else:
            size = even_size(n_cells, cells_per_block(n_rows))
        cell_chunks = da.core.normalize_chunks(size, (n_cells,))[0]
    bounds = [slice(stop - size, stop) for size, stop in zip(cell_chunks, accumulate(cell_chunks), strict=True)]
    if not scipy.sparse.issparse(values):
        dense = np.asarray(values)
        return _from_blocks([dense[:, cells] for cells in bounds], np.empty((0, 0), dtype=dense.dtype))
    columns = scipy.sparse.csc_array(values)
    if not columns.has_canonical_format:  # entries given twice stand for their sum
        columns = columns.copy()
        columns.sum_duplicates()
    return _from_blocks(
        [columns_of(columns, cells) for cells in bounds], scipy.sparse.csc_array((0, 0), dtype=columns.dtype)
    )


def _check_matrix(values: Any, name: str) -> None:
    """Refuse what is no two-dimensional array of real numbers."""
    if not hasattr(values, "shape") or not hasattr(values, "dtype"):
        msg = (
            f"expected {name} as a NumPy, SciPy sparse, Dask or Zarr array, found {type(values).__name__}; "
            "for a count store use open_counts(path).matrix"
        )
        raise TypeError(msg)
    if len(values.shape) != 2:
        msg = f"expected {name} with 2 dimensions (rows, cells), found {len(values.shape)}"
        raise ValueError(msg)
    if np.dtype(values.dtype).kind not in "biuf":
        msg = f"expected {name} of real numbers, found {values.dtype}"
        raise TypeError(msg)


def in_long_blocks(values: Any, name: str) -> Any:
    """Return a NumPy matrix in blocks of genes and many cells, anything else as it is.

    For tests, which make little more of a block than sums over its cells: these are handed over and added up, which
    can take longer than to make them where blocks have few cells.
    """
    if not isinstance(values, np.ndarray) or values.ndim != 2:
        return values
    n_genes, n_cells = values.shape
    cells_of_block = even_size(n_cells, CELLS_PER_LONG_BLOCK)
    genes_of_block = even_size(n_genes, max(1, LONG_BLOCK_BYTES // (8 * cells_of_block)))
    cell_chunks = da.core.normalize_chunks(cells_of_block, (n_cells,))[0]
    return da.concatenate(
        [
            as_matrix(values[start : start + genes_of_block], name, cell_chunks)
            for start in range(0, max(1, n_genes), genes_of_block)
        ]
    )


def sparse_if_few(values: Any, share: float) -> Any:
    """Return a NumPy matrix with at most this share of non-zeros as a sparse one, anything else as it is.

    For groupings, which meet every block of genes: looking for their non-zeros once takes less than in every block.
    """
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "biuf":
        return values
    return scipy.sparse.csc_array(values) if np.count_nonzero(values) <= share * values.size else values


def _from_blocks(blocks: Sequence[Any], meta: Any) -> da.Array:
    """Return blocks of cells as one array.

    ``da.from_array`` would copy the whole array, and read it once more to name it after its content.
    """
    name = f"cells-{uuid4().hex}"
    if dask.config.get("array.query-planning", default=False):  # Dask's planned arrays are not made of graphs
        named = [(f"{name}-{number}", block) for number, block in enumerate(blocks)]
        return da.concatenate(
            [da.from_array(block, chunks=block.shape, name=own, asarray=False, meta=meta) for own, block in named],
            axis=1,
        )
    graph = {(name, 0, number): block for number, block in enumerate(blocks)}
    chunks = ((blocks[0].shape[0],), tuple(block.shape[1] for block in blocks))
    return da.Array(graph, name, chunks, dtype=meta.dtype, meta=meta)


def columns_of(matrix: scipy.sparse.csc_array, cells: slice) -> scipy.sparse.csc_array:
    """Return some columns of a matrix; the entries are not copied, as they are where a new array is given them."""
    offsets = matrix.indptr[cells.start : cells.stop + 1]
    entries = slice(offsets[0], offsets[-1])
    block = scipy.sparse.csc_array((matrix.shape[0], cells.stop - cells.start), dtype=matrix.dtype)
    block.data, block.indices, block.indptr = matrix.data[entries], matrix.indices[entries], offsets - offsets[0]
    return block


def is_sparse(array: da.Array) -> bool:
    """Return whether the chunks of the array are SciPy sparse arrays."""
    return bool(scipy.sparse.issparse(array._meta))


def as_rows(values: Any, name: str, like: Any) -> da.Array:
    """Return rows × cells with one chunk of rows and the cell chunks of ``like``, or fewer and longer ones.

    Raises
    ------
    TypeError
        If the values are no array of real numbers.
    ValueError
        If they do not have two dimensions, or the number of cells differs.
    """
    _check_matrix(values, name)
    if values.shape[1] != like.shape[1]:
        msg = f"expected {name} with {like.shape[1]} cells (columns), found {values.shape[1]}"
        raise ValueError(msg)
    if isinstance(values, np.ndarray):
        return in_memory(values, long_chunks(like.chunks[1], 8 * len(values)))
    cell_chunks = like.chunks[1]
    if scipy.sparse.issparse(values):
        bytes_a_cell = SPARSE_ENTRY_BYTES * math.ceil(values.nnz / max(1, values.shape[1]))
        cell_chunks = long_chunks(cell_chunks, max(bytes_a_cell, CHUNK_BYTES // CELLS_PER_LONG_BLOCK))
    rows = as_matrix(values, name, cell_chunks)
    return in_cell_chunks(rows, min(like.chunks[1], rows.chunks[1], key=len))


def as_vector(values: Any, name: str, size: int, what: str) -> da.Array:
    """Return a one-dimensional Dask array of the expected size.

    Raises
    ------
    ValueError
        If the shape is another one.
    """
    if isinstance(values, np.ndarray) and values.shape == (size,):
        return in_one_chunk(values)
    vector = da.from_zarr(values) if isinstance(values, zarr.Array) else da.asarray(values)
    if vector.shape != (size,):
        msg = f"expected {name} with one value for each of {size} {what}, found shape {vector.shape}"
        raise ValueError(msg)
    return vector
