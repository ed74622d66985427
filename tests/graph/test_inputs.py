"""Inputs of every kind become Dask arrays rows × cells, without being read."""

import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from dask.sizeof import sizeof
from layouts import DENSE_KINDS, SPARSE_KINDS, laid_out

from normalisr_dask.graph.inputs import (
    CELLS_PER_LONG_BLOCK,
    as_matrix,
    as_rows,
    as_vector,
    cells_per_block,
    is_sparse,
    sparse_if_few,
)

VALUES = np.random.default_rng(0).integers(0, 3, size=(6, 10))
CHUNKS = ((2, 4), (3, 7))


@pytest.mark.parametrize("kind", DENSE_KINDS + SPARSE_KINDS)
def test_every_kind_keeps_its_values_and_whether_it_is_sparse(kind):
    found = as_matrix(laid_out(VALUES, kind, CHUNKS), "values")
    assert isinstance(found, da.Array)
    assert found.shape == VALUES.shape
    assert is_sparse(found) == (kind in SPARSE_KINDS)
    block = found.rechunk(VALUES.shape).compute()
    np.testing.assert_array_equal(block.toarray() if is_sparse(found) else block, VALUES)


def test_arrays_in_memory_are_cut_along_cells_only():
    found = as_matrix(np.zeros((1000, 9000), dtype=np.uint8), "values")
    assert found.chunks[0] == (1000,)
    assert 1 < found.numblocks[1] < 9
    assert as_matrix(VALUES, "values", (4, 6)).chunks == ((6,), (4, 6))


@pytest.mark.parametrize("values", [VALUES, scipy.sparse.csc_array(VALUES)], ids=["dense", "sparse"])
def test_arrays_in_memory_are_not_copied(values):
    for block in as_matrix(values, "values", (4, 6)).to_delayed().ravel():
        found = block.compute(scheduler="synchronous")
        assert np.shares_memory(found.data, values.data)


def test_blocks_hold_a_cell_at_least():
    assert cells_per_block(10**9) == 1
    assert cells_per_block(0) > 1
    assert cells_per_block(100, block_bytes=8000) == 10


def test_entries_stored_twice_are_summed_and_the_input_is_left_alone():
    entries = (np.array([1, 2, 5]), np.array([0, 0, 1]), np.array([0, 2, 3]))
    twice = scipy.sparse.csc_array(entries, shape=(2, 2))
    found = as_matrix(twice, "values").compute()
    assert found.nnz == 2
    np.testing.assert_array_equal(found.toarray(), [[3, 0], [0, 5]])
    assert twice.nnz == 3


def test_rows_take_the_chunks_of_cells_of_the_matrix_they_go_with():
    like = laid_out(VALUES, "dask", CHUNKS)
    for kind in DENSE_KINDS + SPARSE_KINDS:
        in_one = kind in ("numpy", "scipy")  # of rows in memory, chunks are put together
        chunks = as_rows(laid_out(VALUES, kind, ((6,), (1, 9))), "rows", like).chunks
        assert chunks == ((6,), (10,) if in_one else (3, 7))
    with pytest.raises(ValueError, match=r"expected rows with 10 cells \(columns\), found 9"):
        as_rows(VALUES[:, 1:], "rows", like)


def test_sparse_rows_in_memory_are_cut_into_few_chunks():
    like = da.zeros((10, 100_000), chunks=(10, 1_000))
    chunks = as_rows(scipy.sparse.csr_array((3, 100_000)), "rows", like).chunks[1]
    assert len(chunks) == 7
    assert max(chunks) <= CELLS_PER_LONG_BLOCK
    assert all(size % 1_000 == 0 for size in chunks)


@pytest.mark.parametrize("values", [[1, 2, 3], np.arange(3), da.arange(3, chunks=1)], ids=["list", "NumPy", "Dask"])
def test_vectors(values):
    found = as_vector(values, "w", 3, "cells")
    assert isinstance(found, da.Array)
    assert found.shape == (3,)
    with pytest.raises(ValueError, match=r"expected w with one value for each of 4 cells, found shape \(3,\)"):
        as_vector(values, "w", 4, "cells")


@pytest.mark.parametrize("container", [scipy.sparse.csc_array, scipy.sparse.csr_array, scipy.sparse.csr_matrix])
def test_dask_knows_the_size_of_sparse_chunks(container):
    block = container(scipy.sparse.random_array((1000, 1000), density=0.05, rng=0))
    assert sizeof(block) >= block.data.nbytes + block.indices.nbytes


def test_only_matrices_of_few_non_zeros_become_sparse():
    few, many = np.eye(30), np.ones((2, 3))
    assert scipy.sparse.issparse(sparse_if_few(few, 0.05))
    np.testing.assert_array_equal(sparse_if_few(few, 0.05).toarray(), few)
    assert sparse_if_few(few, 0.02) is few
    assert sparse_if_few(many, 0.05) is many
    lazy = da.from_array(few)
    assert sparse_if_few(lazy, 0.05) is lazy
