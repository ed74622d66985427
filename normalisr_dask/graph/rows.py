"""Kernels over the rows of a genes × samples matrix whose rows stay whole: in memory at once, or block after block.

A fit of many genes to few or many samples goes several times over its rows, and what one pass finds decides the next.
So these passes compute: results of a few numbers a gene come back as NumPy arrays. What is as large as the matrix stays
lazy where the matrix is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import dask
import dask.array as da
import numpy as np
import scipy.sparse
from distributed import futures_of, wait
from numpy.typing import NDArray

from normalisr_dask.graph.calls import GENES, WIDTH, BlockCall, aligned, no_block

Matrix: TypeAlias = NDArray[np.float64] | da.Array
Arrays = Mapping[str, Any]

#: Bytes of a block of rows as float64: a task holds a few arrays of this size.
ROW_BLOCK_BYTES = 16 << 20


def as_rows_of_samples(matrix: da.Array) -> da.Array:
    """Return a lazy matrix as float64 with whole rows, in blocks of rows that fit into a task; dense chunks."""
    n_rows, n_columns = matrix.shape
    if scipy.sparse.issparse(matrix._meta):
        matrix = matrix.map_blocks(_dense, dtype=np.float64, meta=np.empty((0, 0)))
    rows = max(1, min(n_rows, ROW_BLOCK_BYTES // (8 * max(1, n_columns))))
    if len(matrix.chunks[1]) == 1 and max(matrix.chunks[0]) <= rows:
        return matrix.astype(np.float64)
    return matrix.rechunk((rows, n_columns)).astype(np.float64)


def _dense(block: Any) -> Any:
    return block.toarray().astype(np.float64) if scipy.sparse.issparse(block) else block


@dataclass(frozen=True)
class RowPasses:
    """Passes of kernels over the rows of one matrix.

    Attributes
    ----------
    expression
        float64 (genes, samples): an array in memory, or a Dask array with whole rows.

    Notes
    -----
    Kernels are called by the names of their arguments: arrays of ``by_gene`` begin with the genes, those of ``shared``
    come whole, and ``constants`` are what is no array.
    """

    expression: Matrix

    @property
    def is_lazy(self) -> bool:
        """Whether the matrix is a Dask array."""
        return isinstance(self.expression, da.Array)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and samples."""
        n_genes, n_samples = self.expression.shape
        return int(n_genes), int(n_samples)

    def values(
        self,
        kernel: Callable[..., Any],
        *,
        width: int,
        by_gene: Arrays,
        shared: Arrays | None = None,
        **constants: Any,
    ) -> NDArray[np.float64]:
        """Return ``kernel`` of all genes, (genes, width); computes where the matrix is lazy."""
        if not self.is_lazy:
            return np.asarray(kernel(**by_gene, **(shared or {}), **constants))
        return np.asarray(self._lazy(kernel, width, by_gene, shared, constants).compute())

    def matrix(
        self, kernel: Callable[..., Any], *, by_gene: Arrays, shared: Arrays | None = None, **constants: Any
    ) -> Matrix:
        """Return ``kernel`` of all genes, (genes, samples); lazy where the matrix is."""
        if not self.is_lazy:
            return np.asarray(kernel(**by_gene, **(shared or {}), **constants))
        return self._lazy(kernel, self.shape[1], by_gene, shared, constants)

    def total(
        self, kernel: Callable[..., Any], *, by_gene: Arrays, shared: Arrays | None = None, **constants: Any
    ) -> NDArray[np.float64]:
        """Return the sum of ``kernel`` over blocks of genes, in their order; computes where the matrix is lazy."""
        total: Any = 0.0
        for part in self._parts(by_gene):
            call = dask.delayed(kernel)(**part, **(shared or {}), **constants) if self.is_lazy else None
            total = total + (kernel(**part, **(shared or {}), **constants) if call is None else call.compute())
        return np.asarray(total)

    def fold(
        self,
        kernel: Callable[..., Any],
        first: Callable[[], Any],
        last: Callable[[Any], Any],
        *,
        by_gene: Arrays,
        shared: Arrays | None = None,
    ) -> Any:
        """Return ``last(state)`` after all genes: from ``first()`` on, ``kernel(state, …)`` of each block in turn.

        Computes. Where the matrix is lazy, the state stays with the worker that made it, and a block is asked for when
        the one before the last is done: were all one graph, the readers would run ahead of the chain.
        """
        if not self.is_lazy:
            return last(kernel(first(), **by_gene, **(shared or {})))
        state = dask.delayed(first)()
        before: list[Any] = []
        for part in self._parts(by_gene):
            state = dask.delayed(kernel)(state, **part, **(shared or {})).persist()
            if before:  # there are futures on a cluster only
                wait(before)
            before = futures_of(state)
        return dask.delayed(last)(state).compute()

    def _parts(self, by_gene: Arrays) -> list[dict[str, Any]]:
        """Return the arrays of each block of genes."""
        if not isinstance(self.expression, da.Array):
            return [dict(by_gene)]
        bounds = np.cumsum([0, *self.expression.chunks[0]])
        return [{name: array[start:stop] for name, array in by_gene.items()} for start, stop in pairwise(bounds)]

    def _lazy(
        self, kernel: Callable[..., Any], width: int, by_gene: Arrays, shared: Arrays | None, constants: Arrays
    ) -> da.Array:
        chunks = self.expression.chunks[0] if isinstance(self.expression, da.Array) else ()
        arrays = {name: _as_dask(array, chunks) for name, array in by_gene.items()}
        whole = {name: da.from_array(np.asarray(array), chunks=-1) for name, array in (shared or {}).items()}
        names, arguments = aligned([(arrays, GENES, chunks), (whole, "shared", None)])
        call = BlockCall(kernel, names, tuple(arguments), constants, read=no_block, n_source=0)
        return call.blockwise((GENES, WIDTH), np.float64, new_axes={WIDTH: width})


def _as_dask(array: Any, chunks: tuple[int, ...]) -> da.Array:
    if isinstance(array, da.Array):
        return array
    values = np.asarray(array)
    return da.from_array(values, chunks=(chunks, *values.shape[1:]))
