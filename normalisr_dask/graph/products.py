"""Products of two matrices over their shared axis of cells, chunk by chunk."""

from collections.abc import Callable
from functools import partial
from typing import Any

import dask
import dask.array as da
import numpy as np

from normalisr_dask.graph.layout import CELLS, GENES, SPLIT_EVERY, Arrays, BlockCall, aligned, block_source

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
    """
    by_chunk = [(by_row, ROWS, rows.chunks[0]), (by_gene, GENES, matrix.chunks[0]), (by_cell, CELLS, matrix.chunks[1])]
    names, arguments = aligned(by_chunk)
    read, source, new_axes = block_source(matrix, GENES)
    call = BlockCall(
        kernel,
        names,
        (rows, (ROWS, CELLS), *source, *arguments),
        constants={},
        read=partial(_block_and_rows, read=read),
        n_source=1 + len(source) // 2,
        new_axes=new_axes,
    )
    partial_sums = call.blockwise((ROWS, GENES, CELLS), dtype, expand=2, adjust_chunks={CELLS: 1})
    return partial_sums.sum(axis=2, dtype=dtype, split_every=SPLIT_EVERY)


def _block_and_rows(rows: Any, *source: Any, read: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
    return (*read(*source), rows)


def symmetric_tiles(
    kernel: Kernel, matrix: da.Array, *, finish: Kernel, by_gene: Arrays, **constants: Any
) -> tuple[da.Array, ...]:
    """Return what ``finish`` makes of every tile of matrix × matrixᵀ, genes × genes: only tiles i ≤ j are computed.

    Parameters
    ----------
    kernel
        ``kernel(block_i, block_j)`` to the tile's sum over one chunk of cells.
    matrix
        Dense (genes, cells); its gene chunks are the tiles' sides.
    finish
        ``finish(sum, is_diagonal=…, **arguments_i, **arguments_j, **constants)`` to a tuple of two tiles that are
        symmetric in the genes; the arguments are the ``by_gene`` slices, their names after ``row_`` and ``column_``.
    by_gene
        One-dimensional arrays by name.
    """
    blocks = matrix.to_delayed()
    sides = matrix.chunks[0]
    slices = {name: array.rechunk((sides,)).to_delayed() for name, array in by_gene.items()}
    add, multiply, close = (dask.delayed(function, pure=True) for function in (_add, kernel, finish))
    outputs: tuple[list[list[Any]], ...] = tuple([[None] * len(sides) for _ in sides] for _ in range(2))
    for i, j in zip(*np.triu_indices(len(sides)), strict=True):
        partial_sums = [multiply(blocks[i, c], blocks[j, c]) for c in range(matrix.numblocks[1])]
        while len(partial_sums) > 1:
            partial_sums = [
                add(partial_sums[start : start + SPLIT_EVERY]) for start in range(0, len(partial_sums), SPLIT_EVERY)
            ]
        arguments = {f"row_{name}": parts[i] for name, parts in slices.items()}
        arguments |= {f"column_{name}": parts[j] for name, parts in slices.items()}
        tile = close(partial_sums[0], is_diagonal=bool(i == j), **arguments, **constants)
        for position, output in enumerate(outputs):
            upper = da.from_delayed(
                tile[position], shape=(sides[i], sides[j]), dtype=np.float64, meta=np.empty((0, 0), dtype=np.float64)
            )
            output[i][j] = upper
            if i != j:
                output[j][i] = upper.T
    return tuple(da.block(output) for output in outputs)


def _add(parts: list[Any]) -> Any:
    return sum(parts[1:], parts[0])
