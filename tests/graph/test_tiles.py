"""The tiles of a symmetric product, from dense blocks and from counts that tasks read."""

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from dask.utils import key_split
from hypothesis import given
from hypothesis import strategies as st
from layouts import EXPENSIVE, laid_out, partitions

from normalisr_dask.graph.passes import BlockReader, with_reader
from normalisr_dask.graph.tile_plan import TilePlan
from normalisr_dask.graph.tiles import tiles_of_blocks, tiles_of_counts

GENES = np.random.default_rng(0).integers(0, 4, size=(19, 26)).astype(np.float64)
SCALE = np.arange(1.0, 20.0)
WEIGHTS = np.random.default_rng(2).integers(1, 4, size=26).astype(np.float64)


def times(first, second):
    return first @ second.T


def add_times(total, first, second):
    total += first @ second.T


def weighted(block, *, runs, weights, scale, shift):
    dense = (block.toarray() + shift) * weights * scale[:, None]
    return [dense[first:last] for first, last in runs]


def scaled(total, *, is_diagonal, row_scale, column_scale, shift):
    result = total * row_scale[:, None] * column_scale + shift
    if is_diagonal:
        np.fill_diagonal(result, 0.0)
    return result


def finished(tiles) -> dict[str, np.ndarray]:
    by_gene = {"scale": da.from_array(SCALE, chunks=5)}
    found = {
        "scaled": tiles.map(scaled, by_gene, meta=np.empty((0, 0)), shift=1.0).array(),
        "total": tiles.array(),
    }
    assert all(array.chunks == (tiles.sides, tiles.sides) for array in found.values())
    return dask.compute(found)[0]


def check(found: dict[str, np.ndarray], matrix: np.ndarray) -> None:
    exact = matrix @ matrix.T
    np.testing.assert_array_equal(found["total"], exact)
    expected = exact * np.outer(SCALE, SCALE) + 1
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_array_equal(found["scaled"], expected)


@EXPENSIVE
@given(partitions(19), partitions(26))
def test_dense_blocks_make_the_whole_product(gene_chunks, cell_chunks):
    check(finished(tiles_of_blocks(times, laid_out(GENES, "dask", (gene_chunks, cell_chunks)))), GENES)


@EXPENSIVE
@given(
    partitions(19),
    partitions(26),
    st.integers(1, 19),
    st.integers(1, 5),
    st.integers(1, 30),
    st.sampled_from(["csc_array", "csr_array", "reader"]),
)
def test_counts_make_the_whole_product(gene_chunks, cell_chunks, side, tiles_per_side, n_ranges, kind):
    """Integers add up exactly, so that however the work is shared out nothing may differ."""
    if kind == "reader":
        counts = read_in_tasks((19,), cell_chunks)
    else:
        counts = laid_out(GENES, kind, (gene_chunks, cell_chunks))
    tiles = tiles_of_counts(
        counts,
        TilePlan(19, 26, side, tiles_per_side, n_ranges, task_bytes=0, seconds=0),
        residuals=weighted,
        add_product=add_times,
        by_cell={"weights": da.from_array(WEIGHTS, chunks=4)},
        by_gene={"scale": da.from_array(SCALE, chunks=3)},
        shift=1.0,
    )
    check(finished(tiles), (GENES + 1) * WEIGHTS * SCALE[:, None])


def read_in_tasks(gene_chunks, cell_chunks) -> da.Array:
    """Counts whose array cannot be computed: only its reader gives blocks."""

    def fail(block):
        msg = "the array itself was computed"
        raise AssertionError(msg)

    array = laid_out(GENES, "dask", (gene_chunks, cell_chunks)).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    reader = BlockReader(
        lambda cells, genes: scipy.sparse.csc_array(GENES[:, cells]),
        da.from_array(np.arange(26), chunks=(cell_chunks,)),
        da.from_array(np.arange(0), chunks=-1),
    )
    return with_reader(array, reader)


@pytest.mark.parametrize("n_tiles", [1, 4])
def test_only_tiles_on_and_above_the_diagonal_are_computed(n_tiles):
    tiles = tiles_of_blocks(times, da.ones((4 * n_tiles, 10), chunks=(4, 10)))
    found = tiles.map(scaled, {"scale": da.ones(4 * n_tiles)}, meta=np.empty((0, 0)), shift=0.0).array()
    names = [key_split(key) for key in {*dict(found.__dask_graph__())}]
    assert names.count("times") == names.count("scaled") == n_tiles * (n_tiles + 1) // 2


def test_panels_are_whole_rows():
    tiles = tiles_of_blocks(times, laid_out(GENES, "dask", ((7, 7, 5), (26,))))
    exact = GENES @ GENES.T
    for row, part in enumerate(np.split(exact, [7, 14])):
        np.testing.assert_array_equal(tiles.panel(row), part)


def test_a_task_gets_its_own_cells_only():
    """What is sent with a task grows with its cells, not with all."""
    counts = laid_out(GENES, "csc_array", ((19,), (5,) * 4 + (6,)))
    seen = []

    def look(block, *, runs, weights):
        seen.append((block.shape[1], weights.tolist()))
        return [np.zeros((last - first, block.shape[1])) for first, last in runs]

    tiles = tiles_of_counts(
        counts,
        TilePlan(19, 26, side=19, tiles_per_side=1, n_ranges=2, task_bytes=0, seconds=0),
        residuals=look,
        add_product=add_times,
        by_cell={"weights": da.from_array(WEIGHTS, chunks=26)},
        by_gene={},
    )
    dask.compute(*tiles.rows, scheduler="synchronous")
    expected = [(part.size, part.tolist()) for part in np.split(WEIGHTS, [5, 10, 15, 20])]
    assert sorted(seen) == sorted(expected)
