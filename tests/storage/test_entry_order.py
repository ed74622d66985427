"""Sorting entries through files on disk."""

from pathlib import Path

import numpy as np
import pytest

from normalisr_dask.storage.count_source import Entries
from normalisr_dask.storage.entry_order import RowBuilder, rows_after_sorting, rows_as_they_come

N_GENES = 50


def shuffled_entries(n_cells, n_entries, *, crowded_cell=None):
    rng = np.random.default_rng(2)
    cells = rng.integers(0, n_cells, n_entries)
    if crowded_cell is not None:
        cells[: n_entries // 2] = crowded_cell
    genes = rng.integers(0, N_GENES, n_entries)
    counts = rng.integers(0, 4, n_entries)
    matrix = np.zeros((n_cells, N_GENES), dtype=np.int64)
    np.add.at(matrix, (cells, genes), counts)
    fields = cells.astype(np.int32), genes.astype(np.int32), counts.astype(np.uint32)
    blocks = [Entries(*(field[start : start + 100] for field in fields), 0) for start in range(0, n_entries, 100)]
    return matrix, blocks


def to_dense(rows, n_cells):
    lengths = np.concatenate([block.entries_per_cell for block in rows])
    matrix = np.zeros((n_cells, N_GENES), dtype=np.int64)
    places = np.repeat(np.arange(n_cells), lengths), np.concatenate([block.indices for block in rows])
    matrix[places] = np.concatenate([block.counts for block in rows])
    return matrix


@pytest.mark.parametrize("n_expected", [0, 10, 2000, 10**9])
@pytest.mark.parametrize("crowded_cell", [None, 17])
@pytest.mark.parametrize("group_entries", [3, 64, 10**6])
def test_sorting_gives_the_matrix_whatever_was_expected(tmp_path, n_expected, crowded_cell, group_entries):
    matrix, blocks = shuffled_entries(40, 2000, crowded_cell=crowded_cell)
    reports = []
    builder = RowBuilder(Path("input"), np.arange(N_GENES, dtype=np.int32), N_GENES)
    rows = rows_after_sorting(
        iter(blocks),
        builder,
        40,
        n_expected,
        tmp_path / "sorting",
        lambda *event: reports.append(event),
        group_entries=group_entries,
    )
    np.testing.assert_array_equal(to_dense(list(rows), 40), matrix)
    assert reports[-1] == (24000, 24000, 2000)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_group_with_more_than_its_share_is_split(tmp_path):
    """Nearly all entries lie in two neighbouring cells: no more than these may be in memory at a time."""
    rng = np.random.default_rng(3)
    cells = np.repeat(np.arange(1000, dtype=np.int32), 1)
    cells = np.concatenate([cells, np.repeat(np.array([500, 501], dtype=np.int32), 5000)])
    genes = rng.integers(0, N_GENES, len(cells)).astype(np.int32)
    builder = RowBuilder(Path("input"), np.arange(N_GENES, dtype=np.int32), N_GENES)
    blocks = iter([Entries(cells, genes, np.ones(len(cells), dtype=np.uint32), 0)])
    rows = list(rows_after_sorting(blocks, builder, 1000, 1000, tmp_path / "s", lambda *_: None, group_entries=500))
    assert max(int(block.counts.sum()) for block in rows) <= 5001
    assert sum(len(block.entries_per_cell) for block in rows) == 1000


@pytest.mark.parametrize("n_cells", [1, 3, 1000])
def test_no_entries_give_empty_cells(tmp_path, n_cells):
    gene_map = np.arange(N_GENES, dtype=np.int32)
    for rows in (
        rows_as_they_come(iter([]), RowBuilder(Path("input"), gene_map, N_GENES), n_cells),
        rows_after_sorting(
            iter([]), RowBuilder(Path("input"), gene_map, N_GENES), n_cells, 0, tmp_path / "s", lambda *_: None
        ),
    ):
        assert np.concatenate([block.entries_per_cell for block in rows]).tolist() == [0] * n_cells


def test_sums_that_are_too_large_name_the_input_and_the_cell(tmp_path):
    counts = np.full(2, 2**31, dtype=np.uint32)
    entries = Entries(np.array([2, 2], dtype=np.int32), np.array([1, 1], dtype=np.int32), counts, 0)
    builder = RowBuilder(tmp_path / "m.mtx", np.arange(N_GENES, dtype=np.int32), N_GENES)
    with pytest.raises(ValueError, match=r"m\.mtx: duplicate entries of cell 3 add up to more than 4294967295"):
        list(rows_as_they_come(iter([entries]), builder, 4))
