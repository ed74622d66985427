"""Products over cells."""

import dask.array as da
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from layouts import EXPENSIVE, SPARSE_CHUNKS, laid_out, partitions

from normalisr_dask.graph.products import product_over_cells

GENES = np.random.default_rng(0).integers(-3, 4, size=(19, 26)).astype(np.float64)
ROWS = np.random.default_rng(1).integers(0, 2, size=(7, 26)).astype(np.float64)
SHIFT = np.arange(7.0)
SCALE = np.arange(1.0, 20.0)
WEIGHTS = np.random.default_rng(2).integers(1, 4, size=26).astype(np.float64)


def weighted(block, rows, *, shift, scale, weights):
    return np.asarray(rows @ (block * weights).T) * scale + shift[:, None] * block.shape[1]


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
