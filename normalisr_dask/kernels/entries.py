"""Entries (cell, gene, count) of a matrix brought into the order of a CSR matrix: cells ascending, genes ascending."""

from typing import Final

import numpy as np
from numba import njit

ORDERED: Final = 0
OUT_OF_ORDER: Final = 1
TOO_LARGE: Final = 2
LARGEST_COUNT: Final = 2**32 - 1


@njit(nogil=True, cache=True)
def compress_cells(
    cells: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
    gene_map: np.ndarray,
    first_cell: int,
    gene_totals: np.ndarray,
    entries_per_cell: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
) -> tuple[int, int, int, int]:
    """Turn entries that come cell by cell into rows of a CSR matrix.

    Genes get their new numbers and are sorted within each cell, entries of one gene are added up, zeros dropped.

    Parameters
    ----------
    cells, genes, counts
        The entries, shape (n_entries,): int32, int32, uint32.
    gene_map
        New number of each gene, int32; -1 drops it.
    first_cell
        Number of the first cell of the block.
    gene_totals
        Work space of int64, one for each new gene; -1 everywhere, before and after.
    entries_per_cell
        Filled: entries of each cell of the block, int64; its length says how many cells the block has.
    indices, data
        Filled: new numbers of the genes (int32) and counts (uint32); room for n_entries.

    Returns
    -------
    n_kept, n_duplicates, code, place
        Entries kept; entries added to another; `ORDERED`, or `OUT_OF_ORDER` (a cell came back, or is not of this
        block) or `TOO_LARGE` (a sum passes 32 bits), and at which entry this was found.
    """
    entries_per_cell[:] = 0
    n_kept = 0
    n_duplicates = 0
    stop = 0
    previous = first_cell - 1
    while stop < cells.shape[0]:
        begin = stop
        cell = cells[begin]
        if cell <= previous or cell - first_cell >= entries_per_cell.shape[0]:
            return n_kept, n_duplicates, OUT_OF_ORDER, begin
        previous = cell
        row_start = n_kept
        ascending = True
        descending = True
        while stop < cells.shape[0] and cells[stop] == cell:
            gene = gene_map[genes[stop]]
            if gene >= 0 and counts[stop] > 0:
                if n_kept > row_start:
                    ascending &= gene > indices[n_kept - 1]
                    descending &= gene < indices[n_kept - 1]
                indices[n_kept] = gene
                data[n_kept] = counts[stop]
                n_kept += 1
            stop += 1

        if not ascending and descending:
            for step in range((n_kept - row_start) // 2):
                low = row_start + step
                high = n_kept - 1 - step
                indices[low], indices[high] = indices[high], indices[low]
                data[low], data[high] = data[high], data[low]
        elif not ascending:
            for entry in range(row_start, n_kept):
                gene = indices[entry]
                if gene_totals[gene] >= 0:
                    n_duplicates += 1
                    gene_totals[gene] += data[entry]
                else:
                    gene_totals[gene] = data[entry]
            n_kept = row_start
            overflow = False
            for gene in range(gene_totals.shape[0]):
                if gene_totals[gene] >= 0:
                    overflow |= gene_totals[gene] > LARGEST_COUNT
                    indices[n_kept] = gene
                    data[n_kept] = gene_totals[gene]
                    gene_totals[gene] = -1
                    n_kept += 1
            if overflow:
                return n_kept, n_duplicates, TOO_LARGE, begin
        entries_per_cell[cell - first_cell] = n_kept - row_start
    return n_kept, n_duplicates, ORDERED, stop


@njit(nogil=True, cache=True)
def sort_by_cell(
    cells: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
    first_cell: int,
    cells_per_group: int,
    n_groups: int,
    records: np.ndarray,
) -> np.ndarray:
    """Sort entries into groups of neighbouring cells, keeping their order within a group.

    Parameters
    ----------
    cells, genes, counts
        The entries, shape (n_entries,): int32, int32, uint32.
    first_cell, cells_per_group, n_groups
        Group k holds `cells_per_group` cells from ``first_cell + k * cells_per_group``.
    records
        Filled: the sorted entries, shape (3, n_entries), uint32: cells, genes, counts.

    Returns
    -------
    numpy.ndarray
        Where each group begins, int64, shape (n_groups + 1,).

    Notes
    -----
    A counting sort: two passes over the entries.
    """
    offsets = np.zeros(n_groups + 1, dtype=np.int64)
    for entry in range(cells.shape[0]):
        offsets[(cells[entry] - first_cell) // cells_per_group + 1] += 1
    for group in range(n_groups):
        offsets[group + 1] += offsets[group]
    places = offsets[:-1].copy()
    for entry in range(cells.shape[0]):
        group = (cells[entry] - first_cell) // cells_per_group
        place = places[group]
        records[0, place] = cells[entry]
        records[1, place] = genes[entry]
        records[2, place] = counts[entry]
        places[group] = place + 1
    return offsets


@njit(nogil=True, cache=True)
def choose_entries(
    offsets: np.ndarray,
    genes: np.ndarray,
    counts: np.ndarray,
    chosen: np.ndarray,
    gene_map: np.ndarray,
    chosen_offsets: np.ndarray,
    chosen_genes: np.ndarray,
    chosen_counts: np.ndarray,
) -> int:
    """Take the entries of some cells and genes.

    Parameters
    ----------
    offsets, genes, counts
        The entries of all cells: where each cell's begin, (n_cells + 1,), and their genes and counts.
    chosen
        Positions of the cells to take.
    gene_map
        New number of each gene; -1 drops it.
    chosen_offsets, chosen_genes, chosen_counts
        Filled with the same of the chosen; room for all entries.

    Returns
    -------
    int
        Number of entries taken.
    """
    n_taken = 0
    chosen_offsets[0] = 0
    for position in range(chosen.size):
        cell = chosen[position]
        for entry in range(offsets[cell], offsets[cell + 1]):
            gene = gene_map[genes[entry]]
            # written in any case, and written over where it is dropped: quicker than a branch that cannot be foreseen
            chosen_genes[n_taken] = gene
            chosen_counts[n_taken] = counts[entry]
            n_taken += gene >= 0
        chosen_offsets[position + 1] = n_taken
    return n_taken
