"""Products of two matrices over their shared axis of cells, chunk by chunk."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from normalisr_dask.graph.calls import CELLS, GENES, Arrays, BlockCall, CellRanges, aligned, block_source

ROWS = "rows"
Kernel = Callable[..., Any]


def product_over_cells(
    kernel: Kernel,
    rows: da.Array,
    matrix: da.Array,
    *,
    by_row: Arrays | None = None,
    by_gene: Arrays | None = None,
    by_cell: Arrays | None = None,
    dtype: Any = np.float64,
    adds: bool = False,
) -> da.Array:
    """Return the sum over cell chunks of a product of two blocks, rows × genes.

    Parameters
    ----------
    kernel
        ``kernel(matrix block, row block, **arguments)`` to (rows of the block, genes of the block).
    rows, matrix
        Arrays (rows, cells) and (genes, cells) with the same cell chunks; dense or sparse chunks.
    by_row, by_gene, by_cell
        Arrays by name of which the kernel gets the block's slice, as in :mod:`normalisr_dask.graph.layout`.
    dtype
        Of the result.
    adds
        Whether the kernel takes ``sums`` to add to.
    """
    largest, n_genes = max(rows.chunks[0], default=0), matrix.shape[0]
    ranges = CellRanges.of(matrix, largest * n_genes, rows.shape[0] * n_genes if adds else 0)
    rows = rows.rechunk({1: ranges.sizes})
    by_chunk = [(by_row, ROWS, rows.chunks[0]), (by_gene, GENES, matrix.chunks[0]), (by_cell, CELLS, ranges.sizes)]
    names, arguments = aligned(by_chunk)
    read, source, new_axes = block_source(matrix, GENES, ranges.sizes)
    call = BlockCall(
        kernel,
        names,
        (rows, (ROWS, CELLS), *source, *arguments),
        constants={},
        read=partial(_block_and_rows, read=read),
        n_source=1 + len(source) // 2,
        new_axes=new_axes,
        ranges=ranges,
    )
    return call.sum((ROWS, GENES), dtype)


def _block_and_rows(rows: Any, *source: Any, read: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
    return (*read(*source), rows)
