"""Matrices in the arrays of HDF5 files and Zarr stores, CSR, CSC or dense, as streams of entries."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from normalisr_dask.storage.count_source import Entries
from normalisr_dask.storage.count_store import as_counts
from normalisr_dask.storage.damage import reading

BLOCK_ENTRIES = 1 << 20
BLOCK_VALUES = 1 << 21  # of a dense matrix

StoredArray = Any  # h5py.Dataset or zarr.Array: both have shape, chunks and slices


class CompressedMatrix(NamedTuple):
    """The arrays of a CSR or CSC matrix.

    Attributes
    ----------
    offsets, indices, data
        The stored arrays.
    n_cells, n_genes
        Shape of the matrix.
    by_cell
        Whether the entries of a cell, rather than those of a gene, lie together.
    """

    offsets: StoredArray
    indices: StoredArray
    data: StoredArray
    n_cells: int
    n_genes: int
    by_cell: bool


def compressed_entries(matrix: CompressedMatrix, *, path: Path, n_bytes: int) -> Iterator[Entries]:
    """Read the entries of a CSR or CSC matrix, about a million at a time.

    Raises
    ------
    ValueError
        If the arrays do not fit together or the values are no counts.
    """
    with reading(path, "the row offsets of its matrix"):
        offsets = np.asarray(matrix.offsets[:], dtype=np.int64)
    n_major, n_minor = matrix.n_cells, matrix.n_genes
    if not matrix.by_cell:
        n_major, n_minor = n_minor, n_major
    n_entries = int(matrix.data.shape[0])
    whole = offsets.shape[0] == n_major + 1 and offsets[0] == 0 and offsets[-1] == n_entries == matrix.indices.shape[0]
    if not whole or (np.diff(offsets) < 0).any():
        msg = f"{path} is damaged: the row offsets, indices and values of its matrix do not fit together"
        raise ValueError(msg)

    for start in range(0, n_entries, BLOCK_ENTRIES):
        stop = min(start + BLOCK_ENTRIES, n_entries)
        with reading(path, "a part of its matrix"):
            minor, values = np.asarray(matrix.indices[start:stop]), np.asarray(matrix.data[start:stop])
        if (minor < 0).any() or (minor >= n_minor).any():
            msg = f"{path} is damaged: an index of its matrix is not in 0 to {n_minor - 1}"
            raise ValueError(msg)
        counts = as_counts(values, path=path)
        first = int(np.searchsorted(offsets, start, side="right")) - 1
        last = int(np.searchsorted(offsets, stop, side="left"))
        bounds = np.clip(offsets[first : last + 1], start, stop)
        major = np.repeat(np.arange(first, last, dtype=np.int32), bounds[1:] - bounds[:-1])
        cells, genes = (major, minor) if matrix.by_cell else (minor, major)
        yield Entries(
            cells.astype(np.int32, copy=False),
            genes.astype(np.int32, copy=False),
            counts.astype(np.uint32, copy=False),
            n_bytes * stop // n_entries,
        )


def dense_entries(matrix: StoredArray, *, path: Path, n_bytes: int) -> Iterator[Entries]:
    """Read the entries of a dense matrix, cells × genes, some cells at a time.

    Raises
    ------
    ValueError
        If the values are no counts.
    """
    n_cells, n_genes = matrix.shape
    chunk_cells = matrix.chunks[0] if matrix.chunks else 1
    step = max(BLOCK_VALUES // max(n_genes, 1), 1)
    step = max(step // chunk_cells * chunk_cells, min(step, chunk_cells))  # whole chunks where they fit
    for start in range(0, n_cells, step):
        with reading(path, "a part of its matrix"):
            values = np.asarray(matrix[start : start + step])
        counts = as_counts(values, path=path)
        cells, genes = np.nonzero(counts)
        yield Entries(
            (cells + start).astype(np.int32),
            genes.astype(np.int32),
            counts[cells, genes].astype(np.uint32),
            n_bytes * (start + counts.shape[0]) // n_cells,
        )
