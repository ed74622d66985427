"""Counts of a store as a lazy matrix, genes × cells, with the names that go with it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial

import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.graph.inputs import cells_per_sparse_block
from normalisr_dask.graph.passes import BlockReader, blocks_of
from normalisr_dask.graph.vectors import in_memory, in_one_chunk
from normalisr_dask.kernels.entries import choose_entries
from normalisr_dask.notebook import as_html, as_text
from normalisr_dask.storage.count_store import CountStore, open_count_store, read_cells
from normalisr_dask.storage.locations import absolute


@dataclass(frozen=True)
class Counts:
    """Counts of the chosen genes and cells of a store; lazy.

    Attributes
    ----------
    store : CountStore
        Where they lie.
    gene_positions : int64 (genes,)
        Positions of the chosen genes in the store, ascending.
    cell_positions : int64 (cells,)
        Positions of the chosen cells in the store, ascending.
    cells_per_block : int
        Stored cells that a task reads together.
    """

    store: CountStore
    gene_positions: NDArray[np.int64]
    cell_positions: NDArray[np.int64]
    cells_per_block: int

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""
        return self.gene_positions.size, self.cell_positions.size

    @property
    def genes(self) -> NDArray[np.object_]:
        """Names of the genes."""
        return self.store.genes()[self.gene_positions]

    @property
    def cells(self) -> NDArray[np.object_]:
        """Names of the cells."""
        return self.store.cells()[self.cell_positions]

    @property
    def obs(self) -> pd.DataFrame:
        """Table of the cells."""
        return self.store.obs().iloc[self.cell_positions]

    @property
    def var(self) -> pd.DataFrame:
        """Table of the genes."""
        return self.store.var().iloc[self.gene_positions]

    @cached_property
    def chunks(self) -> tuple[int, ...]:
        """Chosen cells of each block."""
        _, sizes = np.unique(self.cell_positions // self.cells_per_block, return_counts=True)
        return tuple(int(size) for size in sizes)

    @property
    def matrix(self) -> da.Array:
        """Counts as a Dask array, genes × cells, with chunks of scipy.sparse.csc_array that hold all genes.

        Every pass of a step reads its blocks anew and keeps none, so that what is read need not fit in memory.
        """
        meta = scipy.sparse.csc_array((0, 0), dtype=self.store.dtype)
        return blocks_of(self.reader, self.shape[0], meta, "read-counts")

    def __repr__(self) -> str:
        return as_text(*self._shown)

    def _repr_html_(self) -> str:
        return as_html(*self._shown)

    @property
    def _shown(self) -> tuple[str, list[tuple[str, str]]]:
        """Title and rows of what to show at the prompt and in notebooks; reads nothing."""
        n_genes, n_cells = self.shape
        store = self.store
        rows = [
            ("store", f"{store.path}: {store.n_entries:,} entries, {store.total_count:,} counts"),
            ("chosen", f"{n_genes:,} of {store.n_genes:,} genes, {n_cells:,} of {store.n_cells:,} cells"),
            (
                ".matrix",
                f"lazy, {store.dtype}, sparse, in {len(self.chunks):,} blocks of cells; .subset(genes=, cells=)",
            ),
            (".genes, .cells", "names"),
            (".obs, .var", "tables of the cells and of the genes"),
        ]
        return f"Counts, {n_genes:,} genes × {n_cells:,} cells", rows

    @property
    def reader(self) -> BlockReader:
        """How tasks read their blocks."""
        all_genes = self.shape[0] == self.store.n_genes
        genes = self.gene_positions[:0] if all_genes else self.gene_positions
        return BlockReader(
            partial(_read_block, path=absolute(self.store.path), all_genes=all_genes),
            in_memory(self.cell_positions, self.chunks),
            in_one_chunk(genes),
        )

    def blocks(self) -> Iterator[scipy.sparse.csc_array]:
        """Read the counts a block of cells at a time, genes × cells."""
        reader, genes = self.reader, self.gene_positions
        for cells in np.split(self.cell_positions, np.cumsum(self.chunks)[:-1]):
            yield reader.read(cells, genes)

    def subset(self, *, genes: NDArray[np.int64] | None = None, cells: NDArray[np.int64] | None = None) -> "Counts":
        """Return the counts of the genes and cells at these positions (of this object), ascending; reads nothing."""
        return Counts(
            self.store,
            self.gene_positions if genes is None else self.gene_positions[genes],
            self.cell_positions if cells is None else self.cell_positions[cells],
            self.cells_per_block,
        )


def open_counts(path, *, cells_per_block: int | None = None) -> Counts:
    """Open a count store for the steps; reads only its metadata.

    Parameters
    ----------
    path : str or Path
        A count store, as ``ingest`` writes, or any AnnData-Zarr store whose X is CSR with whole numbers.
    cells_per_block : int, optional
        Cells that a task reads together; chosen from the store's shape where None.

    Returns
    -------
    Counts
        ``.matrix`` is the lazy Dask array (genes, cells) that the steps take; ``.genes``, ``.cells``, ``.obs`` and
        ``.var`` go with it.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    ValueError
        If it is no store of counts, half-written, or of another format version.
    """
    return counts_of(open_count_store(path), cells_per_block)


def counts_of(store: CountStore, cells_per_block: int | None = None) -> Counts:
    """Return the counts of a store that is open already."""
    return Counts(
        store,
        np.arange(store.n_genes, dtype=np.int64),
        np.arange(store.n_cells, dtype=np.int64),
        cells_per_block or default_cells_per_block(store),
    )


def default_cells_per_block(store: CountStore) -> int:
    """Return how many cells make a block that also fits in memory as a dense one."""
    return cells_per_sparse_block(store.n_genes, store.n_cells, store.n_entries)


def _read_block(
    cells: NDArray[np.int64], genes: NDArray[np.int64], *, path: str, all_genes: bool
) -> scipy.sparse.csc_array:
    """Read the counts of these cells and genes, genes × cells; of ``all_genes`` without their positions."""
    if cells.size == 0:
        return scipy.sparse.csc_array((genes.size, 0), dtype=np.uint16)
    first = int(cells[0])
    block = read_cells(path, first, int(cells[-1]) + 1)
    if all_genes:
        return block.T if cells.size == block.shape[0] else block[cells - first].T
    if (np.diff(genes) <= 0).any():
        return block[cells - first][:, genes].T
    return _chosen_entries(block, cells - first, genes)


def _chosen_entries(
    block: scipy.sparse.csr_array, cells: NDArray[np.int64], genes: NDArray[np.int64]
) -> scipy.sparse.csc_array:
    """Return the counts of some cells and genes, these ascending, genes × cells; SciPy takes some times as long."""
    gene_map = np.full(block.shape[1], -1, dtype=np.int32)
    gene_map[genes] = np.arange(genes.size)
    # one place more than there are entries: the last one dropped is written, too
    offsets, taken = np.empty(cells.size + 1, dtype=block.indptr.dtype), np.empty(block.nnz + 1, dtype=np.int32)
    counts = np.empty(block.nnz + 1, dtype=block.dtype)
    n_taken = choose_entries(block.indptr, block.indices, block.data, cells, gene_map, offsets, taken, counts)
    chosen = scipy.sparse.csc_array((genes.size, cells.size), dtype=block.dtype)
    chosen.data, chosen.indices, chosen.indptr = counts[:n_taken], taken[:n_taken], offsets
    chosen.has_canonical_format = True
    return chosen
