"""How a kernel is laid over the chunks of a genes × cells matrix: four patterns, built with ``dask.array.blockwise``.

=====================  ========================================  ======================================
pattern                kernel(block, **arguments) returns        result
=====================  ========================================  ======================================
:func:`map_matrix`     one value for every entry of the block    genes × cells, chunks of the matrix
:func:`sum_over_cells` (genes of the block, width)               genes × width, added over cell chunks
:func:`sum_over_genes` (width, cells of the block)               width × cells, added over gene chunks
:func:`sum_of_vectors` any two-dimensional array                 the sum; only vectors over cells go in
=====================  ========================================  ======================================

A kernel gets, beside the block, those slices of other arrays that belong to the block's genes and cells,
by name: ``by_cell`` arrays end in the axis of cells, ``by_gene`` arrays begin with the axis of genes, ``shared``
arrays come whole. Sums are added in a tree whose shape depends on the chunks alone, so that every
scheduler and number of workers gives the same bits.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

from normalisr_dask.graph.calls import (
    CELLS,
    GENES,
    SPLIT_EVERY,
    WIDTH,
    Arrays,
    BlockCall,
    CellRanges,
    Kernel,
    aligned,
    as_given,
    block_source,
    no_block,
    tree_sum,
)
from normalisr_dask.graph.vectors import in_one_piece

#: Chunks of vectors above which some are put together.
MANY_CHUNKS = 32


def map_matrix(
    kernel: Kernel,
    matrix: da.Array,
    *,
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return ``kernel(block, **arguments)`` for every block; the kernel keeps the block's shape."""
    call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants)
    return call.blockwise((GENES, CELLS), dtype)


def sum_over_cells(
    kernel: Kernel,
    matrix: da.Array,
    *,
    width: int | tuple[int, ...],
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    chained_width: int = 0,
    **constants: Any,
) -> da.Array:
    """Return the sum over cell chunks of ``kernel(block, **arguments)``, genes × ``width``, which may be several.

    ``chained_width`` is the width of this sum with all those beside it, if the kernel takes ``sums`` to add to.
    """
    widths = width if isinstance(width, tuple) else (width,)
    ranges = CellRanges.of(matrix, matrix.shape[0] * math.prod(widths), matrix.shape[0] * chained_width)
    call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants, ranges)
    axes = {f"{WIDTH}-{axis}": size for axis, size in enumerate(widths)}
    return call.sum((GENES, *axes), dtype, new_axes=axes)


def sum_over_genes(
    kernel: Kernel,
    matrix: da.Array,
    *,
    width: int,
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return the sum over gene chunks of ``kernel(block, **arguments)``, ``width`` × cells."""
    if matrix.numblocks[0] == 1:
        ranges = CellRanges.of(matrix, 0)
        call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants, ranges, joined=_side_by_side)
        return call.blockwise((WIDTH, CELLS), dtype, new_axes={WIDTH: width})
    call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants)
    partial_sums = call.blockwise(
        (GENES, WIDTH, CELLS), dtype, expand=0, new_axes={WIDTH: width}, adjust_chunks={GENES: 1}
    )
    return tree_sum(partial_sums, axis=0)


def sum_both_ways(
    kernel: Kernel,
    matrix: da.Array,
    *,
    width: int,
    height: int,
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    **constants: Any,
) -> tuple[da.Array, da.Array]:
    """Return the sums over cells (genes × ``width``) and over genes (``height`` × cells) of one pass.

    ``kernel(block, **arguments)`` gives both parts, (genes, width) and (height, cells), flat and one after the other,
    so that a block is let go of by the one task that reads it. The matrix has one chunk of genes.
    """
    n_genes = matrix.shape[0]
    split = n_genes * width
    ranges = CellRanges.of(matrix, 0)
    joined = partial(_packed_together, split=split, height=height)
    call = _matrix_call(kernel, matrix, by_cell, by_gene, None, constants, ranges, joined=joined)
    packed = call.blockwise(
        (CELLS,), np.float64, adjust_chunks={CELLS: tuple(split + height * size for size in ranges.sizes)}
    )
    n_blocks = len(ranges.sizes)
    over_cells = packed.map_blocks(
        _unpacked_genes,
        shape=(n_genes, width, 1),
        dtype=np.float64,
        chunks=((n_genes,), (width,), (1,) * n_blocks),
        new_axis=[0, 1],
        meta=np.empty((0, 0, 0)),
    )
    over_genes = packed.map_blocks(
        _unpacked_cells,
        start=split,
        height=height,
        dtype=np.float64,
        chunks=((height,), ranges.sizes),
        new_axis=0,
        meta=np.empty((0, 0)),
    )
    return tree_sum(over_cells, axis=2), over_genes


def _side_by_side(parts: list[Any]) -> Any:
    return np.concatenate(parts, axis=-1)


def _packed_together(parts: list[Any], *, split: int, height: int) -> Any:
    """Add what blocks say of the genes, and put what they say of their cells side by side."""
    of_cells = np.concatenate([part[split:].reshape(height, -1) for part in parts], axis=1)
    return np.concatenate([np.sum([part[:split] for part in parts], axis=0), of_cells.ravel()])


def _unpacked_genes(packed: Any, *, shape: tuple[int, int, int]) -> Any:
    return packed[: shape[0] * shape[1]].reshape(shape)


def _unpacked_cells(packed: Any, *, start: int, height: int) -> Any:
    return packed[start:].reshape(height, -1).copy()  # a view would keep the sums of the genes, of every block


def map_columns(
    kernel: Kernel,
    rows: da.Array,
    *,
    height: int,
    by_cell: Arrays | None = None,
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return ``kernel(rows of the chunk, **slices)`` per chunk of cells, ``height`` × cells; rows are one chunk."""
    names, arguments = aligned([(by_cell, CELLS, rows.chunks[1])])
    source = (rows, ("rows", CELLS))
    call = BlockCall(kernel, names, (*source, *arguments), constants, read=as_given, n_source=1)
    return call.blockwise((WIDTH, CELLS), dtype, new_axes={WIDTH: height})


def _few(chunks: tuple[int, ...]) -> tuple[int, ...]:
    """Put many chunks together, some at a time: vectors are short where a matrix fills its chunks."""
    step = SPLIT_EVERY if len(chunks) > MANY_CHUNKS else 1
    return tuple(sum(chunks[start : start + step]) for start in range(0, len(chunks), step))


def sum_of_vectors(
    kernel: Kernel,
    by_cell: Arrays,
    *,
    shape: tuple[int, int],
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return the sum over cell chunks of ``kernel(**slices, **shared)``, of the given shape; needs no matrix."""
    cell_chunks = _few(next(iter(by_cell.values())).chunks[-1])
    names, arguments = aligned([(by_cell, CELLS, cell_chunks), (shared, "shared", None)])
    call = BlockCall(kernel, names, tuple(arguments), constants=constants, read=no_block, n_source=0)
    partial_sums = call.blockwise(
        ("row", "column", CELLS),
        dtype,
        expand=2,
        new_axes={"row": shape[0], "column": shape[1]},
        adjust_chunks={CELLS: 1},
    )
    return tree_sum(partial_sums, axis=2)


def _matrix_call(
    kernel: Kernel,
    matrix: da.Array,
    by_cell: Arrays | None,
    by_gene: Arrays | None,
    shared: Arrays | None,
    constants: Mapping[str, Any],
    ranges: CellRanges | None = None,
    joined: Callable[[list[Any]], Any] | None = None,
) -> BlockCall:
    gene_chunks, cell_chunks = matrix.chunks
    if ranges is not None:
        cell_chunks = ranges.sizes
    read, source, new_axes = block_source(matrix, GENES, cell_chunks)
    names, arguments = aligned([(by_cell, CELLS, cell_chunks), (by_gene, GENES, gene_chunks), (shared, "shared", None)])
    return BlockCall(kernel, names, (*source, *arguments), constants, read, len(source) // 2, new_axes, ranges, joined)


def call_once(
    kernel: Kernel, *arrays: da.Array, shape: tuple[int, ...], dtype: Any = np.float64, **constants: Any
) -> da.Array:
    """Return ``kernel(*arrays)`` of whole (small) arrays as a one-chunk array of ``shape``: one task."""
    arguments: list[Any] = []
    for position, array in enumerate(arrays):
        arguments += [array, tuple(f"{position}-{axis}" for axis in range(array.ndim))]
    return da.blockwise(
        partial(_constant_call, kernel=kernel, constants=constants),
        tuple(f"out-{axis}" for axis in range(len(shape))),
        *arguments,
        new_axes={f"out-{axis}": size for axis, size in enumerate(shape)},
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0,) * len(shape), dtype=dtype),
        token=kernel.__name__,
    )


def map_genes(
    kernel: Kernel,
    *by_gene: da.Array,
    shared: tuple[da.Array, ...] = (),
    shape: tuple[int, ...] = (),
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return ``kernel(*by_gene slices, *shared)`` per block of genes, of shape (genes, and then ``shape``)."""
    arguments: list[Any] = []
    for position, array in enumerate(by_gene):
        arguments += [array, (GENES, *(f"{position}-{axis}" for axis in range(1, array.ndim)))]
    for position, array in enumerate(shared):
        arguments += [array, tuple(f"shared-{position}-{axis}" for axis in range(array.ndim))]
    return da.blockwise(
        partial(_constant_call, kernel=kernel, constants=constants),
        (GENES, *(f"out-{axis}" for axis in range(len(shape)))),
        *arguments,
        new_axes={f"out-{axis}": size for axis, size in enumerate(shape)},
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0,) * (1 + len(shape)), dtype=dtype),
        token=kernel.__name__,
    )


def map_pairs(
    kernel: Kernel,
    pairs: da.Array,
    *,
    by_row: tuple[da.Array, ...],
    by_gene: tuple[da.Array, ...],
    shared: tuple[da.Array, ...],
) -> da.Array:
    """Return ``kernel(block, *by_row slices, *by_gene slices, *shared)`` per block of rows × genes, of its shape."""
    arguments: list[Any] = [pairs, ("rows", GENES)]
    for label, chunks, arrays in (("rows", pairs.chunks[0], by_row), (GENES, pairs.chunks[1], by_gene)):
        for position, array in enumerate(arrays):
            axes = tuple(f"{label}-{position}-{axis}" for axis in range(1, array.ndim))
            arguments += [array.rechunk((chunks, *(-1 for _ in axes))), (label, *axes)]
    for position, array in enumerate(shared):
        arguments += [array, tuple(f"shared-{position}-{axis}" for axis in range(array.ndim))]
    return da.blockwise(
        kernel,
        ("rows", GENES),
        *arguments,
        concatenate=True,
        dtype=np.float64,
        meta=np.empty((0, 0)),
        token=kernel.__name__,
    )


def _constant_call(*arrays: Any, kernel: Kernel, constants: Mapping[str, Any]) -> Any:
    return kernel(*map(in_one_piece, arrays), **constants)
