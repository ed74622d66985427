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

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import dask.array as da
import numpy as np

from normalisr_dask.graph.passes import reader_of

GENES, CELLS, WIDTH = "genes", "cells", "width"
Kernel = Callable[..., Any]
Arrays = Mapping[str, da.Array]

#: Partial sums that one task of a tree sum adds: few enough to stay small in memory, enough to keep the tree flat.
SPLIT_EVERY = 8
#: Bytes of a sum from which on a task adds up that of several blocks, where it reads them itself: one partial sum a
#: block would fill the workers' memory before they are added.
LARGE_SUM_BYTES = 4 << 20


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
    width: int,
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    **constants: Any,
) -> da.Array:
    """Return the sum over cell chunks of ``kernel(block, **arguments)``, genes × ``width``."""
    ranges = CellRanges.of(matrix, matrix.shape[0] * width)
    call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants, ranges)
    partial_sums = call.blockwise(
        (GENES, WIDTH, CELLS), dtype, expand=2, new_axes={WIDTH: width}, adjust_chunks={CELLS: 1}
    )
    return tree_sum(partial_sums, axis=2)


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
    call = _matrix_call(kernel, matrix, by_cell, by_gene, shared, constants)
    partial_sums = call.blockwise(
        (GENES, WIDTH, CELLS), dtype, expand=0, new_axes={WIDTH: width}, adjust_chunks={GENES: 1}
    )
    if matrix.numblocks[0] == 1:
        return partial_sums[0]
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
    call = _matrix_call(kernel, matrix, by_cell, by_gene, None, constants)
    packed = call.blockwise(
        (CELLS,), np.float64, adjust_chunks={CELLS: tuple(split + height * size for size in matrix.chunks[1])}
    )
    n_blocks = matrix.numblocks[1]
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
        chunks=((height,), matrix.chunks[1]),
        new_axis=0,
        meta=np.empty((0, 0)),
    )
    return tree_sum(over_cells, axis=2), over_genes


def tree_sum(partial_sums: da.Array, *, axis: int) -> da.Array:
    """Return the sum over an axis whose chunks have length 1, added in a tree that depends on the chunks alone."""
    return da.reduction(
        partial_sums,
        chunk=_partial_sum,
        combine=_add_blocks,
        aggregate=_add_blocks_and_drop,
        axis=axis,
        dtype=partial_sums.dtype,
        split_every=SPLIT_EVERY,
        concatenate=False,
        meta=np.empty((0,) * (partial_sums.ndim - 1), dtype=partial_sums.dtype),
    )


def _partial_sum(block: Any, axis: Any, keepdims: bool) -> Any:  # noqa: FBT001  as Dask calls it
    return block


def _add_blocks(blocks: Any, axis: Any, keepdims: bool) -> Any:  # noqa: FBT001  as Dask calls it
    """Add nested lists of blocks in their order; no block is changed, and none is copied but the first."""
    parts = list(_flat(blocks))
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def _add_blocks_and_drop(blocks: Any, axis: Any, keepdims: bool) -> Any:  # noqa: FBT001  as Dask calls it
    return np.squeeze(_add_blocks(blocks, axis, keepdims), axis=axis)


def _flat(blocks: Any) -> Iterator[Any]:
    if not isinstance(blocks, list):
        yield blocks
        return
    for block in blocks:
        yield from _flat(block)


def _unpacked_genes(packed: Any, *, shape: tuple[int, int, int]) -> Any:
    return packed[: shape[0] * shape[1]].reshape(shape)


def _unpacked_cells(packed: Any, *, start: int, height: int) -> Any:
    return packed[start:].reshape(height, -1)


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
    call = BlockCall(kernel, names, (*source, *arguments), constants, read=_as_given, n_source=1)
    return call.blockwise((WIDTH, CELLS), dtype, new_axes={WIDTH: height})


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
    cell_chunks = next(iter(by_cell.values())).chunks[-1]
    names, arguments = aligned([(by_cell, CELLS, cell_chunks), (shared, "shared", None)])
    call = BlockCall(kernel, names, tuple(arguments), constants=constants, read=_no_block, n_source=0)
    partial_sums = call.blockwise(
        ("row", "column", CELLS),
        dtype,
        expand=2,
        new_axes={"row": shape[0], "column": shape[1]},
        adjust_chunks={CELLS: 1},
    )
    return tree_sum(partial_sums, axis=2)


@dataclass(frozen=True)
class CellRanges:
    """Ranges of cells of which a task makes one sum, block by block.

    Attributes
    ----------
    sizes
        Cells of each range.
    cells_per_block
        Cells that the task reads at a time.
    """

    sizes: tuple[int, ...]
    cells_per_block: int

    @classmethod
    def of(cls, matrix: da.Array, n_values: int) -> "CellRanges":
        """Return ranges of one block, or of several where their sums of ``n_values`` numbers are large."""
        blocks = matrix.chunks[1]
        many = reader_of(matrix) is not None and 8 * n_values >= LARGE_SUM_BYTES
        step = SPLIT_EVERY if many else 1
        sizes = tuple(sum(blocks[start : start + step]) for start in range(0, len(blocks), step))
        return cls(sizes, max(blocks, default=1))


@dataclass(frozen=True)
class BlockCall:
    """A kernel with the arrays that its tasks get: what ``blockwise`` is called with.

    Attributes
    ----------
    kernel
        Called with the block (if any) and the other arrays by name.
    names
        Names of the arguments after the block.
    arguments
        Pairs of array and indices, flat, as ``blockwise`` takes them; first what the block comes from.
    constants
        Further keyword arguments.
    read
        Makes the kernel's positional arguments of the first ``n_source`` arrays.
    n_source
        Number of arrays that ``read`` takes.
    new_axes
        Axes of the result that no array has.
    cells_per_block
        If given, a task takes so many cells at a time and adds up the results.
    """

    kernel: Kernel
    names: tuple[str, ...]
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any]
    read: Callable[..., tuple[Any, ...]]
    n_source: int
    new_axes: Mapping[str, int] = field(default_factory=dict)
    cells_per_block: int | None = None

    def blockwise(
        self,
        out: tuple[str, ...],
        dtype: Any,
        *,
        expand: int | None = None,
        new_axes: Mapping[str, int] | None = None,
        adjust_chunks: Mapping[str, int | tuple[int, ...]] | None = None,
    ) -> da.Array:
        """Return the lazy array of all calls; ``expand`` puts an axis of length 1 into the kernel's results."""
        arrays_by_index = set(chain.from_iterable(self.arguments[1::2]))
        axes = {axis: size for axis, size in self.new_axes.items() if axis not in arrays_by_index}
        call = partial(
            _call,
            kernel=self.kernel,
            names=self.names,
            constants=self.constants,
            read=self.read,
            n_source=self.n_source,
        )
        if self.cells_per_block is not None:
            by_cell = tuple(CELLS in indices for indices in self.arguments[1::2])
            call = partial(_sum_of_blocks, call=call, by_cell=by_cell, cells_per_block=self.cells_per_block)
        return da.blockwise(
            call if expand is None else partial(_expanded, call=call, axis=expand),
            out,
            *self.arguments,
            new_axes=axes | dict(new_axes or {}),
            adjust_chunks=dict(adjust_chunks or {}),
            concatenate=True,
            dtype=dtype,
            meta=np.empty((0,) * len(out), dtype=dtype),
            token=self.kernel.__name__,
        )


def block_source(
    matrix: da.Array, rows: str, cell_chunks: tuple[int, ...]
) -> tuple[Callable[..., tuple[Any, ...]], list[Any], dict[str, int]]:
    """Return how a task comes by its block: a reader, the (array, indices) pairs it takes, and axes these lack."""
    reader = reader_of(matrix)
    if reader is None:
        return _as_given, [matrix, (rows, CELLS)], {}
    return (
        partial(_read_one, read=reader.read),
        [reader.cells.rechunk((cell_chunks,)), (CELLS,), reader.genes, (f"{rows}-read",)],
        {rows: matrix.shape[0]},
    )


def _matrix_call(
    kernel: Kernel,
    matrix: da.Array,
    by_cell: Arrays | None,
    by_gene: Arrays | None,
    shared: Arrays | None,
    constants: Mapping[str, Any],
    ranges: CellRanges | None = None,
) -> BlockCall:
    gene_chunks, cell_chunks = matrix.chunks
    if ranges is not None:
        cell_chunks = ranges.sizes
    read, source, new_axes = block_source(matrix, GENES, cell_chunks)
    names, arguments = aligned([(by_cell, CELLS, cell_chunks), (by_gene, GENES, gene_chunks), (shared, "shared", None)])
    cells_per_block = None if ranges is None else ranges.cells_per_block
    return BlockCall(kernel, names, (*source, *arguments), constants, read, len(source) // 2, new_axes, cells_per_block)


def _call(
    *arrays: Any,
    kernel: Kernel,
    names: tuple[str, ...],
    constants: Mapping[str, Any],
    read: Callable[..., tuple[Any, ...]],
    n_source: int,
) -> Any:
    """Make the block and call the kernel; what a task runs."""
    blocks = read(*arrays[:n_source])
    return kernel(*blocks, **dict(zip(names, arrays[n_source:], strict=True)), **constants)


def _sum_of_blocks(*arrays: Any, call: Callable[..., Any], by_cell: tuple[bool, ...], cells_per_block: int) -> Any:
    """Add up what the call gives for the blocks of a range of cells, one after the other."""
    n_cells = arrays[by_cell.index(True)].shape[-1]
    total: Any = None
    for start in range(0, max(n_cells, 1), cells_per_block):
        cells = slice(start, start + cells_per_block)
        of_block = [_last_axis(array, cells) if cut else array for array, cut in zip(arrays, by_cell, strict=True)]
        part = call(*of_block)
        if total is None:
            total = part
        else:
            total += part
    return total


def _last_axis(array: Any, cells: slice) -> Any:
    return array[cells] if array.ndim == 1 else array[:, cells]


def _expanded(*arrays: Any, call: Callable[..., Any], axis: int) -> Any:
    return np.expand_dims(call(*arrays), axis)


def _as_given(*blocks: Any) -> tuple[Any, ...]:
    return blocks


def _read_one(cells: Any, genes: Any, *, read: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
    return (read(cells, genes),)


def _no_block() -> tuple[Any, ...]:
    return ()


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


def aligned(
    by_chunk: Sequence[tuple[Arrays | None, str, tuple[int, ...] | None]],
) -> tuple[tuple[str, ...], list[Any]]:
    """Return argument names and the (array, indices) pairs of ``blockwise`` for arrays that follow chunked axes.

    Parameters
    ----------
    by_chunk
        (arrays by name, axis label, chunks of that axis); cells are the last axis of an array, any other labelled
        axis the first one; chunks None means the arrays are passed whole.
    """
    names: list[str] = []
    arguments: list[Any] = []
    for arrays, label, chunks in by_chunk:
        for name, array in (arrays or {}).items():
            position = None if chunks is None else array.ndim - 1 if label == CELLS else 0
            axes = [f"{name}-{axis}" if axis != position else label for axis in range(array.ndim)]
            layout = [-1 if axis != position else chunks for axis in range(array.ndim)]
            names.append(name)
            arguments += [array.rechunk(tuple(layout)), tuple(axes)]
    return tuple(names), arguments


def _constant_call(*arrays: Any, kernel: Kernel, constants: Mapping[str, Any]) -> Any:
    return kernel(*arrays, **constants)
