"""Passes over a matrix too large to keep: every pass reads its own blocks, inside the task that uses them.

Two passes over one Dask array share its blocks: Dask keeps each from the first pass until the second has used it,
which for passes that wait for each other is the whole matrix. An array that knows how to read its blocks is therefore
not passed to a kernel's tasks as an array: they read the block themselves and let go of it. Arrays made by the caller
are left as they are: persist or compute them as you like.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dask.array as da

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


def reader_of(array: da.Array) -> BlockReader | None:
    """Return how the array's blocks are read, if it knows."""
    reader: BlockReader | None = getattr(array, _READER, None)
    return reader
