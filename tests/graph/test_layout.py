"""The patterns: every block meets its slices of the other arrays, sums are complete, and nothing is computed early."""

import math

import dask
import dask.array as da
import numpy as np
import pytest
from dask.core import get_dependencies
from hypothesis import given
from layouts import EXPENSIVE, chunkings, laid_out

import normalisr_dask as nd
from normalisr_dask.graph.calls import MANY_BLOCKS, SPLIT_EVERY, CellRanges
from normalisr_dask.graph.layout import (
    call_once,
    map_genes,
    map_matrix,
    sum_both_ways,
    sum_of_vectors,
    sum_over_cells,
    sum_over_genes,
)
from normalisr_dask.graph.vectors import positions
from normalisr_dask.testing import raise_if_computes

MATRIX = np.random.default_rng(0).integers(0, 9, size=(23, 31)).astype(np.float64)
SCALE = np.random.default_rng(1).integers(1, 5, size=31).astype(np.float64)
ROWS = np.random.default_rng(2).integers(0, 5, size=(2, 31)).astype(np.float64)
OFFSET = np.random.default_rng(3).integers(0, 5, size=23).astype(np.float64)
FACTOR = np.float64(3.0)


def combine(block, *, scale, offset, factor, power):
    """Use each kind of argument, so that a slice of the wrong block shows."""
    return (block * scale + offset[:, None]) ** power * factor


def row_sums(block, *, rows, offset, factor, power):
    return (block + offset[:, None]) ** power @ rows.T * factor


def column_sums(block, *, scale, offset, factor, power):
    return np.stack([((block + offset[:, None]) ** power * scale).sum(axis=0) * factor, block.sum(axis=0)])


def both(block, *, rows, offset, power):
    first = row_sums(block, rows=rows, offset=offset, factor=1.0, power=power)
    return np.concatenate([first.ravel(), block.sum(axis=0, keepdims=True).ravel()])


def product(*, rows, scale, factor):
    return rows * scale @ rows.T * factor


def weigh(scale, offset, matrix, *, power):
    return offset**power @ matrix * scale


def arguments(*names: str) -> dict:
    """Return arguments by name, chunked unlike the matrix."""
    by_cell = {"scale": da.from_array(SCALE, chunks=7), "rows": da.from_array(ROWS, chunks=(1, 11))}
    by_gene = {"offset": da.from_array(OFFSET, chunks=5)}
    return {
        "by_cell": {name: array for name, array in by_cell.items() if name in names},
        "by_gene": {name: array for name, array in by_gene.items() if name in names},
        "shared": {"factor": da.asarray(FACTOR)},
    }


@EXPENSIVE
@given(chunkings(MATRIX.shape))
def test_every_block_meets_its_own_slices(chunks):
    matrix = laid_out(MATRIX, "dask", chunks)
    with raise_if_computes():
        mapped = map_matrix(combine, matrix, **arguments("scale", "offset"), power=2)
        by_gene = sum_over_cells(row_sums, matrix, width=2, **arguments("rows", "offset"), power=2)
        by_cell = sum_over_genes(column_sums, matrix, width=2, **arguments("scale", "offset"), power=2)
    constants = {"offset": OFFSET, "factor": FACTOR, "power": 2}
    assert mapped.chunks == chunks
    np.testing.assert_array_equal(mapped, combine(MATRIX, scale=SCALE, **constants))
    assert by_gene.chunks == (chunks[0], (2,))
    np.testing.assert_array_equal(by_gene, row_sums(MATRIX, rows=ROWS, **constants))
    assert by_cell.chunks == ((2,), chunks[1])
    np.testing.assert_array_equal(by_cell, column_sums(MATRIX, scale=SCALE, **constants))


@EXPENSIVE
@given(chunkings((1, 31)))
def test_sums_both_ways_in_one_pass(chunks):
    matrix = laid_out(MATRIX, "dask", ((23,), chunks[1]))
    given = arguments("rows", "offset")
    del given["shared"]
    by_gene, by_cell = sum_both_ways(both, matrix, width=2, height=1, **given, power=1)
    assert by_gene.shape == (23, 2)
    assert by_cell.chunks == ((1,), chunks[1])
    np.testing.assert_array_equal(by_gene, row_sums(MATRIX, rows=ROWS, offset=OFFSET, factor=1.0, power=1))
    np.testing.assert_array_equal(by_cell, MATRIX.sum(axis=0, keepdims=True))


def test_sums_of_cells_let_go_of_those_of_genes():
    """They stay in memory until the last block is read; as views they would keep the sums of genes of every block."""
    matrix = laid_out(MATRIX, "dask", ((23,), (10, 21)))
    given = arguments("rows", "offset")
    del given["shared"]
    _, by_cell = sum_both_ways(both, matrix, width=2, height=1, **given, power=1)
    assert all(block.flags.owndata for block in dask.compute(*by_cell.to_delayed().ravel()))


def test_many_blocks_are_added_up_several_a_task(count_store):
    few, many = (nd.open_counts(count_store, cells_per_block=cells).matrix for cells in (20, 1))
    assert CellRanges.of(few, 1).sizes == few.chunks[1]
    assert many.numblocks[1] > MANY_BLOCKS
    assert len(CellRanges.of(many, 1).sizes) == math.ceil(many.numblocks[1] / SPLIT_EVERY)


@pytest.mark.parametrize("chunk", [1, 8, 31])
def test_sums_of_vectors_need_no_matrix(chunk):
    by_cell = {"rows": da.from_array(ROWS, chunks=(2, chunk)), "scale": da.from_array(SCALE, chunks=chunk)}
    found = sum_of_vectors(product, by_cell, shape=(2, 2), shared={"factor": da.asarray(FACTOR)})
    np.testing.assert_array_equal(found, product(rows=ROWS, scale=SCALE, factor=FACTOR))


def test_a_long_chain_of_cell_chunks_is_summed_in_a_tree():
    """No task adds up more than a few parts, and there are not many more tasks than chunks."""
    matrix = da.ones((2, 1000), chunks=(2, 1))
    total = sum_over_cells(row_total, matrix, width=1)
    graph = dict(total.__dask_graph__())
    assert max(len(get_dependencies(graph, key)) for key in graph) <= SPLIT_EVERY
    assert len(graph) < 3.3 * 1000
    np.testing.assert_array_equal(total, [[1000], [1000]])


def row_total(block):
    return block.sum(axis=1, keepdims=True)


def test_call_once_is_one_task_with_whole_arrays():
    scale, matrix = da.from_array(SCALE, chunks=-1), da.from_array(MATRIX, chunks=-1)
    found = call_once(weigh, scale, da.from_array(OFFSET, chunks=-1), matrix, shape=(31,), power=2)
    assert found.numblocks == (1,)
    np.testing.assert_array_equal(found, weigh(SCALE, OFFSET, MATRIX, power=2))


def test_map_genes_meets_slices_and_whole_arrays():
    gene_chunks = (3, 1, 19)
    values = da.from_array(MATRIX, chunks=(gene_chunks, 8))
    offset = da.from_array(OFFSET, chunks=(gene_chunks,))
    found = map_genes(difference, values, offset, shared=(da.from_array(SCALE, chunks=9),), shape=(31,), factor=2)
    assert found.chunks == (gene_chunks, (31,))
    np.testing.assert_array_equal(found, difference(MATRIX, OFFSET, SCALE, factor=2))


def difference(values, offset, scale, *, factor):
    return factor * (values - offset[:, None]) * scale


def test_positions_count_on_over_chunks():
    found = positions((3, 1, 4))
    assert found.chunks == ((3, 1, 4),)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.arange(8))
