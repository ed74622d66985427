"""Entries brought into the order of a CSR matrix."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from normalisr_dask.kernels.entries import LARGEST_COUNT, OUT_OF_ORDER, TOO_LARGE, compress_cells, sort_by_cell

N_CELLS, N_GENES = 5, 7


def compress(cells, genes, counts, *, gene_map=None, n_new_genes=N_GENES, n_cells=N_CELLS):
    gene_map = np.arange(N_GENES, dtype=np.int32) if gene_map is None else gene_map
    gene_totals = np.full(n_new_genes, -1, dtype=np.int64)
    entries_per_cell = np.empty(n_cells, dtype=np.int64)
    indices, data = np.empty(len(cells), dtype=np.int32), np.empty(len(cells), dtype=np.uint32)
    n_kept, n_duplicates, code, place = compress_cells(
        np.array(cells, dtype=np.int32),
        np.array(genes, dtype=np.int32),
        np.array(counts, dtype=np.uint32),
        gene_map,
        0,
        gene_totals,
        entries_per_cell,
        indices,
        data,
    )
    assert (gene_totals == -1).all()
    return entries_per_cell, indices[:n_kept], data[:n_kept], n_duplicates, code, place


entry_lists = st.lists(
    st.tuples(st.integers(0, N_CELLS - 1), st.integers(0, N_GENES - 1), st.integers(0, 3)), max_size=30
)


@settings(deadline=None)
@given(entries=entry_lists, gene_map=st.permutations([-1, 0, 1, 2, 3, 4, 5]))
def test_sorting_and_compressing_agree_with_scipy(entries, gene_map):
    fields = np.array(entries, dtype=np.int64).reshape(-1, 3).T
    records = np.empty((3, len(entries)), dtype=np.uint32)
    offsets = sort_by_cell(
        fields[0].astype(np.int32), fields[1].astype(np.int32), fields[2].astype(np.uint32), 0, 1, N_CELLS, records
    )
    np.testing.assert_array_equal(np.diff(offsets), np.bincount(fields[0], minlength=N_CELLS))

    new_numbers = np.array(gene_map, dtype=np.int32)
    entries_per_cell, indices, data, n_duplicates, _, _ = compress(*records, gene_map=new_numbers, n_new_genes=6)

    kept = (new_numbers[fields[1]] >= 0) & (fields[2] > 0)
    places = (fields[0][kept], new_numbers[fields[1][kept]])
    expected = sparse.coo_array((fields[2][kept], places), shape=(N_CELLS, 6)).tocsr()
    expected.sort_indices()
    np.testing.assert_array_equal(entries_per_cell, np.diff(expected.indptr))
    np.testing.assert_array_equal(indices, expected.indices)
    np.testing.assert_array_equal(data, expected.data)
    assert n_duplicates == kept.sum() - expected.nnz


def test_groups_of_several_cells_keep_their_order():
    cells = np.array([4, 1, 3, 0, 1], dtype=np.int32)
    genes = np.arange(5, dtype=np.int32)
    records = np.empty((3, 5), dtype=np.uint32)
    offsets = sort_by_cell(cells, genes, np.ones(5, dtype=np.uint32), 0, 2, 3, records)
    assert offsets.tolist() == [0, 3, 4, 5]
    assert records[:2].tolist() == [[1, 0, 1, 3, 4], [1, 3, 4, 2, 0]]


@pytest.mark.parametrize("cells", [[0, 1, 0], [1, 0], [3, 3, 2], [0, N_CELLS], [N_CELLS + 1000]])
def test_a_cell_that_comes_back_or_is_beyond_the_block_is_out_of_order(cells):
    assert compress(cells, [0] * len(cells), [1] * len(cells))[4] == OUT_OF_ORDER


def test_descending_genes_are_turned_round():
    entries_per_cell, indices, data, *_ = compress([1, 1, 1, 1], [6, 4, 2, 0], [1, 2, 3, 4])
    assert entries_per_cell.tolist() == [0, 4, 0, 0, 0]
    assert indices.tolist() == [0, 2, 4, 6]
    assert data.tolist() == [4, 3, 2, 1]


def test_duplicates_that_add_up_to_too_much_are_refused():
    *_, code, place = compress([0, 1, 1], [0, 2, 2], [1, LARGEST_COUNT, 1])
    assert (code, place) == (TOO_LARGE, 1)


def test_no_entries_give_empty_cells():
    entries_per_cell, indices, _, n_duplicates, *_ = compress([], [], [])
    assert entries_per_cell.tolist() == [0] * N_CELLS
    assert (len(indices), n_duplicates) == (0, 0)
