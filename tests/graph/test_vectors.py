"""Vectors in memory: their slices lie in the tasks that use them, whatever the chunks, and no task is made of them."""

import dask
import dask.array as da
import numpy as np
import pytest
from dask.base import collections_to_expr
from distributed.protocol import deserialize, serialize
from hypothesis import given
from hypothesis import strategies as st
from layouts import EXPENSIVE, chunkings

import normalisr_dask as nd
from normalisr_dask.graph import calls
from normalisr_dask.graph.layout import map_matrix, sum_both_ways, sum_of_vectors, sum_over_cells, sum_over_genes
from normalisr_dask.graph.passes import BlockReader, with_reader
from normalisr_dask.graph.products import product_over_cells
from normalisr_dask.graph.vectors import (
    CHUNK_BYTES,
    in_cell_chunks,
    in_memory,
    in_one_chunk,
    in_one_piece,
    long_chunks,
    positions,
    with_ones,
)

N_GENES, N_CELLS = 5, 31
VALUES = np.random.default_rng(0).integers(0, 9, size=(N_GENES, N_CELLS)).astype(np.float64)
ROWS = np.random.default_rng(1).integers(0, 5, size=(2, N_CELLS)).astype(np.float64)
OFFSET = np.random.default_rng(2).integers(0, 5, size=N_GENES).astype(np.float64)


def matrix(cell_chunks):
    """An array whose blocks are read by the tasks that use them."""

    def read(cells, genes):
        return VALUES[np.ix_(genes, cells)]

    reader = BlockReader(read, positions(cell_chunks), in_one_chunk(np.arange(N_GENES)))
    return with_reader(da.from_array(VALUES, chunks=(-1, cell_chunks)), reader)


def scaled(block, *, rows, index, offset):
    return block * rows[0] + offset[:, None] * index


def sums(block, *, rows, index, offset):
    return (block + offset[:, None]) @ (rows * index).T


def of_cells(block, *, rows, index, offset):
    return np.stack([((block + offset[:, None]) * rows[1]).sum(axis=0), index * 1.0])


def both(block, *, rows, index, offset):
    given = {"rows": rows, "index": index, "offset": offset}
    return np.concatenate([sums(block, **given).ravel(), of_cells(block, **given).ravel()])


def squares(*, rows, index):
    return rows * index @ rows.T


def products(block, rows, *, sums=None):
    total = np.zeros((len(rows), len(block))) if sums is None else sums
    total += rows @ block.T
    return total


def names_of_tasks(*arrays):
    graph = collections_to_expr(arrays).optimize().__dask_graph__()
    return [key[0] if isinstance(key, tuple) else key for key in graph]


@EXPENSIVE
@given(chunkings((1, N_CELLS)), chunkings((1, N_CELLS)), st.booleans())
def test_every_block_meets_its_own_slices(chunks, chunks_of_rows, many_blocks):
    cell_chunks = chunks[1]
    lazy = matrix(cell_chunks)
    arguments = {
        "by_cell": {"rows": in_memory(ROWS, chunks_of_rows[1]), "index": positions(cell_chunks)},
        "by_gene": {"offset": in_one_chunk(OFFSET)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calls, "MANY_BLOCKS", 1 if many_blocks else 1000)
        found = {
            scaled: map_matrix(scaled, lazy, **arguments),
            sums: sum_over_cells(sums, lazy, width=2, **arguments),
            of_cells: sum_over_genes(of_cells, lazy, width=2, **arguments),
        }
        both_sums = sum_both_ways(both, lazy, width=2, height=2, **arguments)
    whole = {"rows": ROWS, "index": np.arange(N_CELLS), "offset": OFFSET}
    for kernel, array in found.items():
        np.testing.assert_array_equal(array, kernel(VALUES, **whole))
    for kernel, array in zip((sums, of_cells), both_sums, strict=True):
        np.testing.assert_array_equal(array, kernel(VALUES, **whole))
    np.testing.assert_array_equal(
        sum_of_vectors(squares, arguments["by_cell"], shape=(2, 2)), squares(rows=ROWS, index=np.arange(N_CELLS))
    )


def test_rows_in_memory_are_a_matrix_too():
    rows = in_memory(ROWS, (7, 20, 4))
    gram = sum_over_cells(lambda block, others: block @ others.T, rows, width=2, by_cell={"others": rows})
    np.testing.assert_array_equal(gram, ROWS @ ROWS.T)
    np.testing.assert_array_equal(with_ones(rows), np.vstack([ROWS, np.ones(N_CELLS)]))
    np.testing.assert_array_equal(with_ones(rows + 1), np.vstack([ROWS + 1, np.ones(N_CELLS)]))


@pytest.mark.parametrize("row_chunks", [(2,), (1, 1)])
def test_a_chain_of_slices_gives_the_sum(monkeypatch, row_chunks):
    monkeypatch.setattr(calls, "CHAINED_SUM_BYTES", 1)
    rows = da.from_array(ROWS, chunks=(row_chunks, 4))
    np.testing.assert_array_equal(
        product_over_cells(products, rows, matrix((3,) * 10 + (1,)), adds=True), ROWS @ VALUES.T
    )


def test_no_task_is_made_of_what_lies_in_memory(count_store):
    counts = nd.open_counts(count_store, cells_per_block=10)
    lazy = counts.matrix
    cell = np.arange(lazy.shape[1], dtype=np.float64)
    found = map_matrix(
        lambda block, cell, gene: block.toarray() * cell * gene[:, None],
        lazy,
        by_cell={"cell": in_memory(cell, (lazy.shape[1],))},
        by_gene={"gene": in_one_chunk(np.ones(lazy.shape[0]))},
    )
    assert len(names_of_tasks(found)) <= lazy.numblocks[1] + 1
    np.testing.assert_array_equal(found, np.hstack([block.toarray() for block in counts.blocks()]) * cell)


def test_other_values_make_other_tasks():
    first, second = (
        sum_of_vectors(squares, {"rows": in_memory(values, (31,)), "index": positions((31,))}, shape=(2, 2))
        for values in (ROWS, ROWS + 1)
    )
    assert first.name != second.name
    found = dask.compute(first, second)
    assert not np.array_equal(*found)


def test_chunks_of_what_lies_in_memory_are_cut_without_a_task():
    rows = in_cell_chunks(in_memory(ROWS, (7, 20, 4)), (30, 1))
    assert rows.chunks == ((2,), (30, 1))
    assert not [name for name in names_of_tasks(rows) if "rechunk" in name]
    np.testing.assert_array_equal(rows, ROWS)
    np.testing.assert_array_equal(in_cell_chunks(positions((7, 24)), (30, 1)), np.arange(N_CELLS))
    np.testing.assert_array_equal(in_cell_chunks(da.from_array(ROWS, chunks=(1, 9)), (30, 1)), ROWS)


def test_long_chunks_hold_some_megabytes_of_rows_and_whole_blocks():
    sizes = (1000,) * 1000
    chunks = long_chunks(sizes, 8 * 4)
    assert sum(chunks) == sum(sizes)
    assert all(size % 1000 == 0 for size in chunks)
    assert len(chunks) < 10
    assert max(chunks) * 4 * 8 <= CHUNK_BYTES
    assert long_chunks(sizes, 1_000_000) == sizes
    assert long_chunks((), 4) == ()


def test_arrays_lie_in_memory_as_those_from_a_message():
    """Numbers are added up in another order where they begin at odd addresses or lie in steps: bits would follow."""
    odd = np.frombuffer(b"x" + ROWS.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    assert not odd.flags.aligned
    even = in_one_piece(odd)
    assert even.flags.aligned
    np.testing.assert_array_equal(even, ROWS.ravel())
    assert in_one_piece(even) is even
    assert in_one_piece("no array") == "no array"
    for kept in (ROWS, ROWS.T, ROWS[0]):
        assert in_one_piece(kept) is kept
    for view in (ROWS[:, 1:], ROWS.T[1:], ROWS[:, 0]):
        np.testing.assert_array_equal(in_one_piece(view), view)
        sent = deserialize(*serialize(view))
        assert in_one_piece(view).strides == in_one_piece(sent).strides
