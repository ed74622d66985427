"""Vectors that lie in memory: a task that uses them carries its own slices.

Dask makes a task of every chunk of an array in memory, and further ones wherever chunks are put together or cut: with
the four or five vectors that a pass over the counts takes, several times as many as there are blocks to read, and each
keeps its piece on some worker until the last task has used it. Here the pieces lie in the tasks that use them, and no
worker keeps any. Nor does one worker get all tasks because it is the one that holds a small array which all need.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import dask
import dask.array as da
import numpy as np
from dask.layers import ArrayBlockwiseDep
from dask.tokenize import normalize_token
from numpy.typing import NDArray

_SOURCE = "normalisr_dask_source"
#: Bytes of a chunk of rows of cells, where these are all that a task takes.
CHUNK_BYTES = 4 << 20
#: Bytes up to which each task gets a whole array of its own; Dask makes a task of 1 MB.
SMALL_BYTES = 1 << 19
#: An array whose last axis is cells, or what makes those of a range: ``make(start, stop)``.
Source = NDArray[Any] | Callable[[int, int], NDArray[Any]]


def in_memory(values: NDArray[Any], cell_chunks: Sequence[int]) -> da.Array:
    """Return an array in memory, whose last axis is cells, as a Dask array with all else in one chunk.

    The values are not copied: leave them as they are until the results are computed.
    """
    chunks = (*values.shape[:-1], tuple(cell_chunks))
    return _with_source(da.from_array(values, chunks=chunks), values)


def in_one_chunk(values: NDArray[Any]) -> da.Array:
    """Return an array in memory as a Dask array of one chunk."""
    return _with_source(da.from_array(values, chunks=-1), values)


def long_chunks(cell_chunks: Sequence[int], bytes_a_cell: int) -> tuple[int, ...]:
    """Put chunks of cells together, so that those of a chunk take some megabytes: a few tasks, not many."""
    largest = CHUNK_BYTES // max(1, bytes_a_cell)
    together: list[int] = []
    for size in cell_chunks:
        if together and together[-1] + size <= largest:
            together[-1] += size
        else:
            together.append(size)
    return tuple(together)


def positions(sizes: Sequence[int]) -> da.Array:
    """Return 0, 1, … as int64 in chunks of the given sizes."""
    return _with_source(
        da.arange(sum(sizes), chunks=(tuple(sizes),), dtype=np.int64), partial(np.arange, dtype=np.int64)
    )


def with_ones(rows: da.Array) -> da.Array:
    """Return rows of cells with a last row of ones, in one chunk of rows."""
    source, cell_chunks = source_of(rows), rows.chunks[1]
    if isinstance(source, np.ndarray):
        return in_memory(np.concatenate([source, np.ones((1, source.shape[1]))]), cell_chunks)
    return da.concatenate([rows, da.ones((1, rows.shape[1]), chunks=(1, cell_chunks))]).rechunk({0: -1})


def in_cell_chunks(array: da.Array, cell_chunks: tuple[int, ...]) -> da.Array:
    """Return an array of any dimensions, the last of which is cells, with these chunks of cells and one of all else."""
    source = source_of(array)
    if isinstance(source, np.ndarray):
        return array if array.chunks[-1] == cell_chunks else in_memory(source, cell_chunks)
    if source is not None:
        return positions(cell_chunks)
    return array.rechunk((*(-1,) * (array.ndim - 1), cell_chunks))


def source_of(array: da.Array) -> Source | None:
    """Return where tasks get slices of the array from, if it lies in memory."""
    source: Source | None = getattr(array, _SOURCE, None)
    return source


def task_arguments(array: da.Array, axes: Sequence[str], cells: str) -> list[Any]:
    """Return what ``blockwise`` takes to hand a task its chunk: the array with its axes, or slices of its source.

    Parameters
    ----------
    array
        Of any dimensions, the last of which is cells.
    axes
        Labels of its axes.
    cells
        That of the axis of cells.
    """
    source = source_of(array)
    if source is None or dask.config.get("array.query-planning", default=False):  # planned arrays know no such slices
        return [array, tuple(axes)]
    return [CellSlices(source, array.name, array.chunks[-1]), (cells,)]


def whole_arguments(array: da.Array, axes: Sequence[str]) -> list[Any]:
    """Return what ``blockwise`` takes to hand every task all of a small array: its values, if they are in memory."""
    source = source_of(array)
    if isinstance(source, np.ndarray) and array.npartitions == 1 and source.nbytes <= SMALL_BYTES:
        return [source, None]
    return [array, tuple(axes)]


def _with_source(array: da.Array, source: Source) -> da.Array:
    setattr(array, _SOURCE, source)
    return array


def in_one_piece(array: Any) -> Any:
    """Return an array as it would lie in memory had it come in a message: without gaps, and with aligned numbers.

    NumPy and BLAS add up others in another order, so that the last bits would tell whether a worker has made an array,
    of which it may have a view, or got it from another one.
    """
    if not isinstance(array, np.ndarray):
        return array
    has_gaps = not (array.flags.c_contiguous or array.flags.f_contiguous)
    return np.require(array, requirements=["C", "A"] if has_gaps else "A")


class CellSlices(ArrayBlockwiseDep):
    """Slices of a source along its last axis, for ``blockwise``.

    Parameters
    ----------
    source
        Where they come from.
    token
        Names the source's content.
    sizes
        Cells of each slice.
    first
        Cell at which the first one begins.
    """

    def __init__(self, source: Source, token: str, sizes: Sequence[int], first: int = 0) -> None:
        super().__init__((tuple(sizes),))
        self.source, self.token = source, token
        self.edges = tuple(accumulate(sizes, initial=first))

    def __getitem__(self, index: tuple[int | list[int], ...]) -> Any:
        """Return a slice, or that of all blocks of an axis that the result lacks."""
        (blocks,) = index
        first, last = (blocks[0], blocks[-1]) if isinstance(blocks, list) else (blocks, blocks)
        start, stop = self.edges[first], self.edges[last + 1]
        return self.source(start, stop) if callable(self.source) else np.ascontiguousarray(self.source[..., start:stop])

    def block(self, number: int) -> "CellSlices":
        """Return one of the slices by itself."""
        return CellSlices(self.source, self.token, self.chunks[0][number : number + 1], self.edges[number])


@normalize_token.register(CellSlices)
def _token_of_slices(slices: CellSlices) -> tuple[Any, ...]:
    return CellSlices.__name__, slices.token, slices.edges
