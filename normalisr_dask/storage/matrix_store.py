"""Dense matrices in Zarr arrays, rows × columns: from text, from Dask, and back, by rows or by columns.

Text goes row by row and statistics go cell by cell, so a matrix between them is cut both ways: a shard, which is one
file, holds what is written at once, and its chunks are short enough the other way to be read by themselves.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from normalisr_dask.graph.inputs import cells_per_block
from normalisr_dask.graph.passes import BlockReader, blocks_of
from normalisr_dask.storage.damage import reading
from normalisr_dask.storage.locations import ALL_CHUNKS, HAS_ALL_CHUNKS

#: Largest run of whole rows that is held in memory.
ROWS_BYTES = 32 << 20
#: What a reader reads at least.
CHUNK_BYTES = 1 << 19
#: Of an array in a store of its own.
WITH_ALL_CHUNKS: Any = {"config": ALL_CHUNKS, "attributes": {HAS_ALL_CHUNKS: True}}


def store_rows(store: Path | str, blocks: Iterable[NDArray[Any]], dtype: Any = np.float64) -> zarr.Array:
    """Write a matrix that comes some rows at a time.

    Parameters
    ----------
    store
        Where to make the array.
    blocks
        Rows, as many columns in each; at least one block. A matrix of one column becomes one row, as it does when
        normalisr reads text.
    dtype
        Of the array.

    Returns
    -------
    zarr.Array

    Notes
    -----
    Memory: `ROWS_BYTES`, or a few rows where those are longer.
    """
    array: zarr.Array | None = None
    columns: list[NDArray[Any]] = []
    waiting: list[NDArray[Any]] = []
    n_waiting = 0
    for block in blocks:
        if block.shape[1] == 1:
            columns.append(block)
            continue
        if array is None:
            array = _create_by_rows(store, block.shape[1], dtype)
        waiting.append(block)
        n_waiting += block.shape[0]
        height = _height(block.shape[1], dtype)
        if n_waiting >= height:
            rows = np.concatenate(waiting)
            n_whole = n_waiting // height * height
            _append(array, rows[:n_whole])
            waiting, n_waiting = [rows[n_whole:].copy()], n_waiting - n_whole
    if array is None:
        row = np.concatenate(columns).T
        array = _create_by_rows(store, row.shape[1], dtype)
        waiting, n_waiting = [row], 1
    if n_waiting:
        _append(array, np.concatenate(waiting))
    return array


def create_like(store: Path | str, matrix: da.Array) -> zarr.Array:
    """Make an array into which the blocks of a Dask array are stored, each a shard; the array's chunks are regular."""
    height, width = (max(1, size) for size in matrix.chunksize)
    rows = height
    if matrix.numblocks[0] == 1:
        rows = max(1, min(height, ROWS_BYTES // (matrix.dtype.itemsize * max(1, matrix.shape[1]))))
        height = rows * -(-height // rows)
    return zarr.create_array(
        store,
        shape=matrix.shape,
        dtype=matrix.dtype,
        chunks=(rows, width),
        shards=(height, width),
        zarr_format=3,
        **WITH_ALL_CHUNKS,
    )


def regular(matrix: da.Array) -> da.Array:
    """Return the matrix in chunks of one size, all but the last."""
    return matrix.rechunk(tuple(max(1, *sizes) for sizes in matrix.chunks))


def by_columns(array: zarr.Array, path: Path | str) -> da.Array:
    """Return an array as blocks of columns with all rows, read anew by every pass.

    Parameters
    ----------
    array
        Rows × columns.
    path
        Where tasks open it.
    """
    n_rows, n_columns = array.shape
    width = max(1, cells_per_block(n_rows) // array.chunks[1]) * array.chunks[1]
    reader = BlockReader(
        partial(_read_columns, path=str(path)),
        da.arange(n_columns, chunks=max(1, min(width, n_columns)), dtype=np.int64),
        da.zeros(0, chunks=-1, dtype=np.int64),
    )
    return blocks_of(reader, n_rows, np.empty((0, 0), dtype=array.dtype), "read-columns")


def by_rows(array: zarr.Array) -> da.Array:
    """Return an array as blocks of whole rows."""
    return da.from_zarr(array, chunks=(_rows_at_a_time(array), array.shape[1]))


def row_blocks(array: zarr.Array) -> Iterator[NDArray[Any]]:
    """Read an array some rows at a time; a vector whole."""
    if array.ndim == 1:
        yield np.asarray(array[:])
        return
    height = _rows_at_a_time(array)
    for start in range(0, array.shape[0], height):
        yield np.asarray(array[start : start + height])


def _rows_at_a_time(array: zarr.Array) -> int:
    """Return how many rows to read together: whole chunks, as many as fit."""
    fitting = ROWS_BYTES // (array.dtype.itemsize * max(1, array.shape[1]))
    return max(1, fitting // array.chunks[0]) * array.chunks[0]


def _create_by_rows(store: Path | str, n_columns: int, dtype: Any) -> zarr.Array:
    """Make an empty array to which rows are appended; a shard is a run of whole rows."""
    height = _height(n_columns, dtype)
    width = max(1, min(n_columns, CHUNK_BYTES // (np.dtype(dtype).itemsize * height)))
    return zarr.create_array(
        store,
        shape=(0, n_columns),
        dtype=dtype,
        chunks=(height, width),
        shards=(height, width * -(-n_columns // width)),
        compressors=None,
        zarr_format=3,
        **WITH_ALL_CHUNKS,
    )


def _height(n_columns: int, dtype: Any) -> int:
    """Return the rows of a shard of whole rows."""
    return max(1, min(1024, ROWS_BYTES // (np.dtype(dtype).itemsize * n_columns)))


def _append(array: zarr.Array, rows: NDArray[Any]) -> None:
    start = array.shape[0]
    array.resize((start + rows.shape[0], array.shape[1]))
    array[start:] = rows


def _read_columns(columns: NDArray[np.int64], none: Any, *, path: str) -> NDArray[Any]:
    """Read a block of columns; the positions of a block are ascending, with gaps where columns were left out."""
    array = zarr.open_array(path, mode="r")
    if columns.size == 0:
        return np.empty((array.shape[0], 0), dtype=array.dtype)
    first, last = int(columns[0]), int(columns[-1])
    with reading(path, "a part of it", "copy it or make it again"):
        block = np.asarray(array[:, first : last + 1])
    return block if columns.size == block.shape[1] else block[:, columns - first]
