"""Passes over a matrix too large to keep: every pass reads its own blocks, inside the task that uses them.

Two passes over one Dask array share its blocks: Dask keeps each from the first pass until the second has used it,
which for passes that wait for each other is the whole matrix. An array that knows how to read its blocks is therefore
not passed to a kernel's tasks as an array: they read the block themselves and let go of it. Arrays made by the caller
are left as they are: persist or compute them as you like.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import dask.array as da
import numpy as np
from numpy.typing import NDArray

_READER = "normalisr_dask_reader"


@dataclass(frozen=True)
class BlockReader:
    """How a task reads its block of a genes × cells matrix.

    Attributes
    ----------
    read
        ``read(cells, genes)`` to the block.
    cells
        Positions of the matrix's cells where they are read from, chunked as the matrix.
    genes
        Whatever ``read`` needs to know of the genes, one chunk.
    """

    read: Callable[[Any, Any], Any]
    cells: da.Array
    genes: da.Array


def with_reader(array: da.Array, reader: BlockReader) -> da.Array:
    """Return the array, which from now on is read anew by every pass."""
    setattr(array, _READER, reader)
    return array


def blocks_of(reader: BlockReader, n_rows: int, meta: Any, name: str) -> da.Array:
    """Return rows × cells in chunks like ``meta`` with all rows, whose blocks every pass reads anew."""
    blocks = da.blockwise(
        reader.read,
        ("rows", "cells"),
        reader.cells,
        ("cells",),
        reader.genes,
        ("chosen",),
        new_axes={"rows": n_rows},
        concatenate=True,
        dtype=meta.dtype,
        meta=meta,
        name=f"{name}-{uuid4().hex}",
    )
    return with_reader(blocks, reader)


def reader_of(array: da.Array) -> BlockReader | None:
    """Return how the array's blocks are read, if it knows."""
    reader: BlockReader | None = getattr(array, _READER, None)
    return reader


def rows_of(array: da.Array, positions: NDArray[np.int64]) -> da.Array:
    """Return some rows in one chunk of rows; what every pass reads anew stays so.

    Parameters
    ----------
    array
        Rows × cells.
    positions
        Of the rows, ascending; few, since they go into the graph.
    """
    reader = reader_of(array)
    chosen = array[positions].rechunk({0: -1})
    if reader is None:
        return chosen
    read = partial(_read_rows, read=reader.read, positions=positions)
    return with_reader(chosen, BlockReader(read, reader.cells, reader.genes))


def _read_rows(cells: Any, genes: Any, *, read: Callable[[Any, Any], Any], positions: NDArray[np.int64]) -> Any:
    return read(cells, genes)[positions]
