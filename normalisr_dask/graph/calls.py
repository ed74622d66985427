"""A kernel and the slices of arrays that its tasks get, called by ``dask.array.blockwise``; and sums of results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse

from normalisr_dask.graph.inputs import columns_of
from normalisr_dask.graph.passes import reader_of

GENES, CELLS, WIDTH = "genes", "cells", "width"
Kernel = Callable[..., Any]
Arrays = Mapping[str, da.Array]

#: Partial sums that one task of a tree sum adds: few enough to stay small in memory, enough to keep the tree flat.
SPLIT_EVERY = 8
#: Bytes of a sum from which on a task adds up that of several blocks, where it reads them itself: one partial sum a
#: block would fill the workers' memory before they are added.
LARGE_SUM_BYTES = 4 << 20


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
        return as_given, [matrix, (rows, CELLS)], {}
    return (
        partial(_read_one, read=reader.read),
        [reader.cells.rechunk((cell_chunks,)), (CELLS,), reader.genes, (f"{rows}-read",)],
        {rows: matrix.shape[0]},
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
    if n_cells <= cells_per_block:
        return call(*arrays)
    total: Any = None
    for start in range(0, n_cells, cells_per_block):
        cells = slice(start, min(start + cells_per_block, n_cells))
        of_block = [_last_axis(array, cells) if cut else array for array, cut in zip(arrays, by_cell, strict=True)]
        part = call(*of_block)
        if total is None:
            total = part
        else:
            total += part
    return total


def _last_axis(array: Any, cells: slice) -> Any:
    if scipy.sparse.issparse(array):
        return columns_of(scipy.sparse.csc_array(array), cells)
    return array[..., cells]


def _expanded(*arrays: Any, call: Callable[..., Any], axis: int) -> Any:
    return np.expand_dims(call(*arrays), axis)


def as_given(*blocks: Any) -> tuple[Any, ...]:
    """Read nothing: the blocks are what was given."""
    return blocks


def _read_one(cells: Any, genes: Any, *, read: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
    return (read(cells, genes),)


def no_block() -> tuple[Any, ...]:
    """Read nothing, where a kernel takes no block."""
    return ()


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
