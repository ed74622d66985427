"""Counts of an h5ad file as a lazy matrix, genes × cells, whose blocks every pass reads anew."""

from functools import partial
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
import scipy.sparse
from anndata.io import sparse_dataset
from numpy.typing import NDArray

from normalisr_dask.graph.inputs import cells_per_sparse_block
from normalisr_dask.graph.passes import BlockReader, blocks_of
from normalisr_dask.graph.vectors import in_memory, in_one_chunk
from normalisr_dask.kernels.counts import check_counts

X = "X"


def is_by_cell(path: Path) -> bool:
    """Return whether X lies cell by cell in the file, dense or CSR, so that some cells can be read alone."""
    with h5py.File(path, "r") as file:
        return file[X].attrs.get("encoding-type", "array") != "csc_matrix"


def h5ad_counts(path: Path, genes: NDArray[np.int64], cells: NDArray[np.int64]) -> da.Array:
    """Return counts of some genes and cells of X, which lies cell by cell; reads metadata only.

    Parameters
    ----------
    path
        Of the h5ad file; absolute, since tasks open it by its name.
    genes, cells
        Positions, ascending; at least one cell.

    Returns
    -------
    Dask array (genes, cells)
        With chunks of scipy.sparse.csc_array that hold all these genes.

    Raises
    ------
    ValueError
        On compute: if a value is no count.
    """
    with h5py.File(path, "r") as file:
        stored = file[X]
        is_dense = isinstance(stored, h5py.Dataset)
        n_cells, n_genes = stored.shape if is_dense else (int(length) for length in stored.attrs["shape"])
        n_entries = n_cells * n_genes if is_dense else int(stored["data"].shape[0])
        dtype = stored.dtype if is_dense else stored["data"].dtype
    size = cells_per_sparse_block(n_genes, n_cells, n_entries)
    chunks = tuple(int(number) for number in np.unique(cells // size, return_counts=True)[1])
    reader = BlockReader(partial(_read_block, path=path), in_memory(cells, chunks), in_one_chunk(genes))
    return blocks_of(reader, genes.size, scipy.sparse.csc_array((0, 0), dtype=dtype), "read-h5ad")


def _read_block(cells: NDArray[np.int64], genes: NDArray[np.int64], *, path: Path) -> scipy.sparse.csc_array:
    if cells.size == 0:
        return scipy.sparse.csc_array((genes.size, 0))
    first = int(cells[0])
    with h5py.File(path, "r") as file:
        stored = file[X] if isinstance(file[X], h5py.Dataset) else sparse_dataset(file[X])
        rows = stored[first : int(cells[-1]) + 1]
    block = scipy.sparse.csr_array(rows)
    if cells.size < block.shape[0]:
        block = block[cells - first]
    if genes.size < block.shape[1]:
        block = block[:, genes]
    return check_counts(block.T.tocsc(), cells, genes)
