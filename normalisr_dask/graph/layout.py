"""How a kernel is laid over the chunks of a genes × cells matrix: three patterns, built with ``dask.array.blockwise``.

=====================  ========================================  ======================================
pattern                kernel(block, **arguments) returns        result
=====================  ========================================  ======================================
:func:`map_matrix`     one value for every entry of the block    genes × cells, chunks of the matrix
:func:`sum_over_cells` (genes of the block, width)               genes × width, added over cell chunks
:func:`sum_over_genes` (width, cells of the block)               width × cells, added over gene chunks
=====================  ========================================  ======================================

A kernel gets, beside the block, those slices of other arrays that belong to the block's genes and cells,
by name: ``by_cell`` arrays end in the axis of cells, ``by_gene`` arrays begin with the axis of genes, ``shared``
arrays come whole. Sums are added in a tree whose shape depends on the chunks alone, so that every
scheduler and number of workers gives the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np

GENES, CELLS, WIDTH = "genes", "cells", "width"
Kernel = Callable[..., Any]
Arrays = Mapping[str, da.Array]

#: Partial sums that one task of a tree sum adds: few enough to stay small in memory, enough to keep the tree flat.
SPLIT_EVERY = 8


def map_matrix(
    kernel: Kernel,
    matrix: da.Array,
    *,
    by_cell: Arrays | None = None,
    by_gene: Arrays | None = None,
    shared: Arrays | None = None,
    dtype: Any = np.float64,
    meta: Any = None,
    **constants: Any,
) -> da.Array:
    """Return ``kernel(block, **arguments)`` for every block; the kernel keeps the block's shape."""
    names, arguments = _matrix_arguments(matrix, by_cell, by_gene, shared)
    return da.blockwise(
        partial(named_call, kernel=kernel, names=names, constants=constants),
        (GENES, CELLS),
        matrix,
        (GENES, CELLS),
        *arguments,
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0, 0), dtype=dtype) if meta is None else meta,
        token=_layer_name(kernel),
    )


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
    names, arguments = _matrix_arguments(matrix, by_cell, by_gene, shared)
    partial_sums = da.blockwise(
        partial(_partial_over_cells, kernel=kernel, names=names, constants=constants),
        (GENES, WIDTH, CELLS),
        matrix,
        (GENES, CELLS),
        *arguments,
        new_axes={WIDTH: width},
        adjust_chunks={CELLS: 1},
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype=dtype),
        token=_layer_name(kernel),
    )
    return partial_sums.sum(axis=2, dtype=dtype, split_every=SPLIT_EVERY)


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
    names, arguments = _matrix_arguments(matrix, by_cell, by_gene, shared)
    partial_sums = da.blockwise(
        partial(_partial_over_genes, kernel=kernel, names=names, constants=constants),
        (GENES, WIDTH, CELLS),
        matrix,
        (GENES, CELLS),
        *arguments,
        new_axes={WIDTH: width},
        adjust_chunks={GENES: 1},
        concatenate=True,
        dtype=dtype,
        meta=np.empty((0, 0, 0), dtype=dtype),
        token=_layer_name(kernel),
    )
    return partial_sums.sum(axis=0, dtype=dtype, split_every=SPLIT_EVERY)


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
        token=_layer_name(kernel),
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
        token=_layer_name(kernel),
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


def _matrix_arguments(
    matrix: da.Array, by_cell: Arrays | None, by_gene: Arrays | None, shared: Arrays | None
) -> tuple[tuple[str, ...], list[Any]]:
    gene_chunks, cell_chunks = matrix.chunks
    return aligned([(by_cell, CELLS, cell_chunks), (by_gene, GENES, gene_chunks), (shared, "shared", None)])


def named_call(block: Any, *arrays: Any, kernel: Kernel, names: tuple[str, ...], constants: Mapping[str, Any]) -> Any:
    """Call the kernel with the arrays by name; what a task runs."""
    return kernel(block, **dict(zip(names, arrays, strict=True)), **constants)


def _partial_over_cells(block: Any, *arrays: Any, **call: Any) -> Any:
    return named_call(block, *arrays, **call)[:, :, None]


def _partial_over_genes(block: Any, *arrays: Any, **call: Any) -> Any:
    return named_call(block, *arrays, **call)[None, :, :]


def _constant_call(*arrays: Any, kernel: Kernel, constants: Mapping[str, Any]) -> Any:
    return kernel(*arrays, **constants)


def _layer_name(kernel: Kernel) -> str:
    return str(kernel.__name__)
