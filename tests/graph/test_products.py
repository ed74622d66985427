"""Products over cells, and the tiles of a symmetric product."""

import dask.array as da
import numpy as np
import pytest
from dask.utils import key_split
from hypothesis import given
from hypothesis import strategies as st
from layouts import EXPENSIVE, SPARSE_CHUNKS, laid_out, partitions

from normalisr_dask.graph.products import product_over_cells, symmetric_tiles

GENES = np.random.default_rng(0).integers(-3, 4, size=(19, 26)).astype(np.float64)
ROWS = np.random.default_rng(1).integers(0, 2, size=(7, 26)).astype(np.float64)
SHIFT = np.arange(7.0)
SCALE = np.arange(1.0, 20.0)
WEIGHTS = np.random.default_rng(2).integers(1, 4, size=26).astype(np.float64)


def weighted(block, rows, *, shift, scale, weights):
    return np.asarray(rows @ (block * weights).T) * scale + shift[:, None] * block.shape[1]


def times(first, second):
    return first @ second.T


def finish(total, *, is_diagonal, row_scale, column_scale, constant):
    scaled = total * row_scale[:, None] * column_scale + constant
    if is_diagonal:
        np.fill_diagonal(scaled, 0.0)
    return scaled, total


@EXPENSIVE
@given(partitions(19), partitions(7), partitions(26), st.sampled_from(["dask", *SPARSE_CHUNKS]))
def test_every_pair_of_blocks_meets_its_own_slices(gene_chunks, row_chunks, cell_chunks, kind):
    found = product_over_cells(
        weighted,
        laid_out(ROWS, kind, (row_chunks, cell_chunks)),
        laid_out(GENES, "dask", (gene_chunks, cell_chunks)),
        by_row={"shift": da.from_array(SHIFT, chunks=2)},
        by_gene={"scale": da.from_array(SCALE, chunks=3)},
        by_cell={"weights": da.from_array(WEIGHTS, chunks=4)},
    )
    assert found.chunks == (row_chunks, gene_chunks)
    np.testing.assert_array_equal(found, weighted(GENES, ROWS, shift=SHIFT, scale=SCALE, weights=WEIGHTS))


@EXPENSIVE
@given(partitions(19), partitions(26))
def test_tiles_make_the_whole_symmetric_product(gene_chunks, cell_chunks):
    matrix = laid_out(GENES, "dask", (gene_chunks, cell_chunks))
    scaled, total = symmetric_tiles(
        times, matrix, finish=finish, by_gene={"scale": da.from_array(SCALE, chunks=5)}, constant=1.0
    )
    exact = GENES @ GENES.T
    np.testing.assert_array_equal(total, exact)
    expected = exact * np.outer(SCALE, SCALE) + 1
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_array_equal(scaled, expected)


@pytest.mark.parametrize("n_tiles", [1, 4])
def test_only_tiles_on_and_above_the_diagonal_are_computed(n_tiles):
    matrix = da.ones((4 * n_tiles, 10), chunks=(4, 10))
    results = symmetric_tiles(times, matrix, finish=finish, by_gene={"scale": da.ones(4 * n_tiles)}, constant=0.0)
    names = [key_split(key) for result in results for key in {*dict(result.__dask_graph__())}]
    assert names.count("times") == len(results) * n_tiles * (n_tiles + 1) // 2
