"""A matrix that knows how to read its blocks is read by the tasks that use them."""

import dask
import dask.array as da
import numpy as np
from dask.utils import key_split

from normalisr_dask.graph.layout import sum_over_cells
from normalisr_dask.graph.passes import BlockReader, reader_of, with_reader

MATRIX = np.arange(30.0).reshape(3, 10)


def read(cells, genes):
    return MATRIX[np.ix_(genes, cells)]


def readable() -> da.Array:
    reader = BlockReader(read, da.arange(10, chunks=4), da.arange(3, chunks=-1))
    blocks = da.blockwise(
        read, ("genes", "cells"), reader.cells, ("cells",), reader.genes, ("genes",), dtype=float, meta=np.empty((0, 0))
    )
    return with_reader(blocks, reader)


def row_total(block):
    return block.sum(axis=1, keepdims=True)


def test_a_pass_holds_no_block_of_its_own():
    matrix = readable()
    total = sum_over_cells(row_total, matrix, width=1)
    np.testing.assert_array_equal(total, MATRIX.sum(axis=1, keepdims=True))
    names = {key_split(key) for key in dict(total.__dask_graph__())}
    assert "read" not in names
    np.testing.assert_array_equal(matrix, MATRIX)


def test_two_passes_agree_and_computing_the_array_itself_works():
    matrix = readable()
    first, second, whole = dask.compute(
        sum_over_cells(row_total, matrix, width=1), sum_over_cells(row_total, matrix, width=1), matrix
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(whole, MATRIX)


def test_what_is_made_of_it_is_an_ordinary_array():
    matrix = readable()
    assert reader_of(matrix) is not None
    for other in (matrix[:2], matrix + 1, matrix.rechunk(5), da.ones(3)):
        assert reader_of(other) is None
    np.testing.assert_array_equal(
        sum_over_cells(row_total, matrix[:, 3:], width=1), MATRIX[:, 3:].sum(axis=1, keepdims=True)
    )
