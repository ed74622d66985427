"""A kernel and the slices of arrays that its tasks get, called by ``dask.array.blockwise``; and sums of results."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, product
from typing import Any

import dask.array as da
import numpy as np
import scipy.sparse
from dask.base import tokenize

from normalisr_dask.graph.inputs import columns_of
from normalisr_dask.graph.passes import reader_of
from normalisr_dask.graph.vectors import (
    CellSlices,
    in_cell_chunks,
    in_one_piece,
    source_of,
    task_arguments,
    whole_arguments,
)

GENES, CELLS, WIDTH = "genes", "cells", "width"
Kernel = Callable[..., Any]
Arrays = Mapping[str, da.Array]

#: Partial sums that one task of a tree sum adds: few enough to stay small in memory, enough to keep the tree flat.
SPLIT_EVERY = 8
#: Bytes of a sum from which on a task adds up that of several blocks, where it reads them itself: one partial sum a
#: block would fill the workers' memory before they are added.
LARGE_SUM_BYTES = 4 << 20
#: Bytes of a sum and all those beside it, such as those of other groupings, from which on partial ones are too large to
#: wait for each other: each task adds to that of the one before it. The others give other workers something to do.
CHAINED_SUM_BYTES = 64 << 20
#: What the tasks at the beginning of chains are called.
NO_SUMS = "no-sums"
#: Most tasks of a chain.
MOST_LINKS = 64
#: Blocks of cells above which a task adds up several in any case: small sums of many blocks take room, too, and time.
MANY_BLOCKS = 64


@dataclass(frozen=True)
class CellRanges:
    """Ranges of cells of which a task makes one sum, block by block.

    Attributes
    ----------
    sizes
        Cells of each range.
    cells_per_block
        Cells that the task reads at a time.
    chained
        Whether the task of a range adds to the sum of those before it.
    """

    sizes: tuple[int, ...]
    cells_per_block: int
    chained: bool = False

    @classmethod
    def of(cls, matrix: da.Array, n_values: int, n_chained: int = 0) -> "CellRanges":
        """Return ranges of one block, or of several where their sums of ``n_values`` numbers are large, or many.

        ``n_chained`` is how many numbers they have with all those beside them, if the kernel takes sums to add to: the
        order of additions must not depend on how many are made together.
        """
        blocks = matrix.chunks[1]
        reads = reader_of(matrix) is not None
        chained = reads and 8 * n_chained >= CHAINED_SUM_BYTES
        several = chained or len(blocks) > MANY_BLOCKS or 8 * n_values >= LARGE_SUM_BYTES
        step = SPLIT_EVERY if reads and several else 1
        if chained:
            step = max(step, math.ceil(len(blocks) / MOST_LINKS))
        sizes = tuple(sum(blocks[start : start + step]) for start in range(0, len(blocks), step))
        return cls(sizes, max(blocks, default=1), chained)


def n_ranges(n_blocks: int) -> int:
    """Return how many tasks go through so many blocks of cells that they read themselves, where sums are small."""
    return math.ceil(n_blocks / SPLIT_EVERY) if n_blocks > MANY_BLOCKS else n_blocks


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
        Pairs of array and indices, flat, as ``blockwise`` takes them (None for a literal); first what the block comes
        from.
    constants
        Further keyword arguments.
    read
        Makes the kernel's positional arguments of the first ``n_source`` arrays.
    n_source
        Number of arrays that ``read`` takes.
    new_axes
        Axes of the result that no array has.
    ranges
        If given, a task goes through a range of cells, a block at a time.
    joined
        Makes the result of a range from the list of those of its blocks; None for their sum.
    """

    kernel: Kernel
    names: tuple[str, ...]
    arguments: tuple[Any, ...]
    constants: Mapping[str, Any]
    read: Callable[..., tuple[Any, ...]]
    n_source: int
    new_axes: Mapping[str, int] = field(default_factory=dict)
    ranges: CellRanges | None = None
    joined: Callable[[list[Any]], Any] | None = None

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
        call = self._of_range()
        return self._blockwise(
            call if expand is None else partial(_expanded, call=call, axis=expand),
            out,
            self.arguments,
            dtype,
            dict(new_axes or {}),
            dict(adjust_chunks or {}),
        )

    def sum(self, out: tuple[str, ...], dtype: Any, *, new_axes: Mapping[str, int] | None = None) -> da.Array:
        """Return the sum over the cells of what the kernel returns, with the axes ``out``."""
        if self.ranges is None or not self.ranges.chained:
            axes = (*out, CELLS)
            partial_sums = self.blockwise(axes, dtype, expand=len(out), new_axes=new_axes, adjust_chunks={CELLS: 1})
            return tree_sum(partial_sums, axis=len(out))
        link, total = partial(_added, call=self._of_range()), self._no_sums(out, dtype, new_axes or {})
        for number in range(len(self.ranges.sizes)):
            arguments = [
                _block_of_cells(argument, number) if _has_cells(indices) else argument
                for argument, indices in zip(self.arguments[::2], self.arguments[1::2], strict=True)
            ]
            pairs = list(chain.from_iterable(zip(arguments, self.arguments[1::2], strict=True)))
            total = self._blockwise(link, out, [total, out, *pairs], dtype, {})
        return total

    def _no_sums(self, out: tuple[str, ...], dtype: Any, new_axes: Mapping[str, int]) -> da.Array:
        """Return zeros in the shape and chunks of the sum, in tasks of their own: where these run, the chain stays."""
        chunks = {axis: (size,) for axis, size in {**self.new_axes, **new_axes}.items()}
        for argument, indices in zip(self.arguments[::2], self.arguments[1::2], strict=True):
            if indices is not None:
                chunks |= dict(zip(indices, argument.chunks, strict=True))
        of_sum = tuple(chunks[axis] for axis in out)
        name = f"{NO_SUMS}-{tokenize(self.kernel, self.constants, self.arguments)}"
        blocks = product(*(list(enumerate(sizes)) for sizes in of_sum))
        numbers_and_sizes = [tuple(zip(*block, strict=True)) for block in blocks]
        graph = {(name, *numbers): (partial(np.zeros, sizes, dtype),) for numbers, sizes in numbers_and_sizes}
        return da.Array(graph, name, of_sum, dtype=dtype)

    def _of_range(self) -> Callable[..., Any]:
        """Return what a task runs, a function of the arrays' blocks."""
        call = partial(
            _call,
            kernel=self.kernel,
            names=self.names,
            constants=self.constants,
            read=self.read,
            n_source=self.n_source,
        )
        if self.ranges is None:
            return call
        by_cell = tuple(_has_cells(indices) for indices in self.arguments[1::2])
        if self.joined is not None:
            return partial(_joined_blocks, call=call, by_cell=by_cell, ranges=self.ranges, joined=self.joined)
        return partial(_sum_of_blocks, call=call, by_cell=by_cell, ranges=self.ranges)

    def _blockwise(
        self,
        call: Callable[..., Any],
        out: tuple[str, ...],
        arguments: Sequence[Any],
        dtype: Any,
        new_axes: dict[str, int],
        adjust_chunks: Mapping[str, int | tuple[int, ...]] | None = None,
    ) -> da.Array:
        of_arrays = set(chain.from_iterable(filter(None, arguments[1::2])))
        axes = {axis: size for axis, size in self.new_axes.items() if axis in out and axis not in of_arrays}
        return da.blockwise(
            call,
            out,
            *arguments,
            new_axes=axes | new_axes,
            adjust_chunks=dict(adjust_chunks or {}),
            concatenate=True,
            dtype=dtype,
            meta=np.empty((0,) * len(out), dtype=dtype),
            token=self.kernel.__name__,
            align_arrays=False,  # they are
        )


def _has_cells(indices: tuple[str, ...] | None) -> bool:
    """Return whether an argument of ``blockwise``, None for a literal, has an axis of cells."""
    return indices is not None and CELLS in indices


def _block_of_cells(argument: Any, number: int) -> Any:
    """Return one of the blocks of cells of an array, or of slices of one."""
    if isinstance(argument, CellSlices):
        return argument.block(number)
    return argument.blocks[(slice(None),) * (argument.ndim - 1) + (number,)]


def block_source(
    matrix: da.Array, rows: str, cell_chunks: tuple[int, ...]
) -> tuple[Callable[..., tuple[Any, ...]], list[Any], dict[str, int]]:
    """Return how a task comes by its block: a reader, the (array, indices) pairs it takes, and axes these lack."""
    reader = reader_of(matrix)
    if reader is None:
        if source_of(matrix) is None:
            return as_given, [matrix, (rows, CELLS)], {}
        return as_given, task_arguments(in_cell_chunks(matrix, cell_chunks), (rows, CELLS), CELLS), {rows: len(matrix)}
    cells = task_arguments(in_cell_chunks(reader.cells, cell_chunks), (CELLS,), CELLS)
    genes = whole_arguments(reader.genes, (f"{rows}-read",))
    return partial(_read_one, read=reader.read), [*cells, *genes], {rows: matrix.shape[0]}


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
            names.append(name)
            if label == CELLS and chunks is not None:
                arguments += task_arguments(in_cell_chunks(array, chunks), axes, CELLS)
                continue
            layout = [-1 if axis != position else chunks for axis in range(array.ndim)]
            arguments += whole_arguments(array.rechunk(tuple(layout)), axes)
    return tuple(names), arguments


def _call(
    *arrays: Any,
    kernel: Kernel,
    names: tuple[str, ...],
    constants: Mapping[str, Any],
    read: Callable[..., tuple[Any, ...]],
    n_source: int,
    **sums: Any,
) -> Any:
    """Make the block and call the kernel, with the sums to add to, if there are any; what a task runs."""
    arrays = tuple(in_one_piece(array) for array in arrays)
    blocks = read(*arrays[:n_source])
    return kernel(*blocks, **dict(zip(names, arrays[n_source:], strict=True)), **constants, **sums)


def _added(total: Any, *arrays: Any, call: Callable[..., Any]) -> Any:
    """Add what the call gives to the sum of the ranges before, which is Dask's and stays as it is."""
    return call(*arrays, sums=total.copy(order="K"))


def _sum_of_blocks(
    *arrays: Any, call: Callable[..., Any], by_cell: tuple[bool, ...], ranges: CellRanges, sums: Any = None
) -> Any:
    """Add up what the call gives for the blocks of a range of cells, one after the other."""
    total = sums
    for of_block in _blocks_of_range(arrays, by_cell, ranges.cells_per_block):
        if ranges.chained:
            total = call(*of_block, sums=total)
            continue
        part = call(*of_block)
        if total is None:
            total = part
        else:
            total += part
    return total


def _joined_blocks(
    *arrays: Any,
    call: Callable[..., Any],
    by_cell: tuple[bool, ...],
    ranges: CellRanges,
    joined: Callable[[list[Any]], Any],
) -> Any:
    """Put together what the call gives for the blocks of a range of cells."""
    return joined([call(*of_block) for of_block in _blocks_of_range(arrays, by_cell, ranges.cells_per_block)])


def _blocks_of_range(
    arrays: tuple[Any, ...], by_cell: tuple[bool, ...], cells_per_block: int
) -> Iterator[tuple[Any, ...]]:
    """Cut the arrays that have cells into blocks of these; one block, also of no cells, is taken as it is."""
    n_cells = arrays[by_cell.index(True)].shape[-1]
    if n_cells <= cells_per_block:
        yield arrays
        return
    for start in range(0, n_cells, cells_per_block):
        cells = slice(start, min(start + cells_per_block, n_cells))
        yield tuple(_last_axis(array, cells) if cut else array for array, cut in zip(arrays, by_cell, strict=True))


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
    if partial_sums.numblocks[axis] <= SPLIT_EVERY:  # the same sum in one layer: Dask takes a millisecond for each
        axes = tuple(range(partial_sums.ndim))
        return da.blockwise(
            partial(_add_blocks_and_drop, axis=axis, keepdims=False),
            axes[:axis] + axes[axis + 1 :],
            partial_sums,
            axes,
            dtype=partial_sums.dtype,
            meta=np.empty((0,) * (partial_sums.ndim - 1), dtype=partial_sums.dtype),
        )
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
