"""The product of a genes × cells matrix with itself, tile by tile, and what is made of the tiles.

Two routes make the tiles. :func:`tiles_of_blocks` multiplies the blocks of a dense Dask array; its blocks are held, or
spilled, by the workers. :func:`tiles_of_counts` has tasks that read counts block by block and hold nothing else than
the sums of their tiles: for counts that do not fit in memory, and certainly not when made dense.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np

from normalisr_dask.graph.calls import SPLIT_EVERY, Arrays
from normalisr_dask.graph.inputs import columns_of
from normalisr_dask.graph.passes import reader_of
from normalisr_dask.graph.tile_plan import Tile, TilePlan
from normalisr_dask.graph.vectors import in_cell_chunks, in_one_piece, positions, task_arguments, whole_arguments

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Tiles:
    """Tiles on and above the diagonal, lazy.

    Attributes
    ----------
    sides
        Genes of every row of tiles.
    rows
        A Dask array for every row of tiles: its tiles from the diagonal on.
    """

    sides: tuple[int, ...]
    rows: tuple[da.Array, ...]

    def map(self, kernel: Kernel, by_gene: Arrays, *, meta: Any, **constants: Any) -> "Tiles":
        """Return what ``kernel(tile, is_diagonal=…, **arguments_i, **arguments_j, **constants)`` makes of every tile.

        Parameters
        ----------
        kernel
            Keeps the shape of the tile.
        by_gene
            One-dimensional arrays by name, of which the kernel gets the slices that belong to the tile's rows and
            columns, their names after ``row_`` and ``column_``.
        meta
            An empty array of the result's kind.
        **constants
            Further arguments.
        """
        slices = [array.rechunk((self.sides,)) for array in (positions(self.sides), *by_gene.values())]
        call = partial(_call, kernel=partial(kernel, **constants), names=tuple(by_gene))
        rows = []
        for row, tiles in enumerate(self.rows):
            arguments: list[Any] = []
            for array in slices:
                arguments += [array.blocks[row], ("row",), array.blocks[row:], ("column",)]
            rows.append(
                da.blockwise(
                    call,
                    ("row", "column"),
                    tiles,
                    ("row", "column"),
                    *arguments,
                    dtype=meta.dtype,
                    meta=meta,
                    token=getattr(kernel, "__name__", "tile"),
                )
            )
        return Tiles(self.sides, tuple(rows))

    def panel(self, row: int) -> da.Array:
        """Return a whole row of tiles; those below the diagonal are mirror images."""
        below = [self.rows[column].blocks[0, row - column].T for column in range(row)]
        return da.concatenate([*below, self.rows[row]], axis=1)

    def above(self, row: int) -> da.Array | None:
        """Return the tiles above the diagonal in a column of tiles, of which a row's other tiles are mirror images."""
        tiles = [self.rows[other].blocks[0, row - other] for other in range(row)]
        return da.concatenate(tiles) if tiles else None

    def array(self) -> da.Array:
        """Return the whole symmetric matrix."""
        if not self.rows:
            return da.zeros((0, 0))
        return da.concatenate([self.panel(row) for row in range(len(self.rows))])


def tiles_of_blocks(kernel: Kernel, matrix: da.Array) -> Tiles:
    """Return the tiles of matrix × matrixᵀ.

    Parameters
    ----------
    kernel
        ``kernel(block_i, block_j)`` to the tile's sum over one chunk of cells.
    matrix
        Dense (genes, cells); its gene chunks are the tiles' sides.
    """
    rows = []
    for row in range(matrix.numblocks[0]):
        partial_sums = da.blockwise(
            partial(_multiplied, kernel=kernel),
            ("row", "column", "cells"),
            matrix.blocks[row],
            ("row", "cells"),
            matrix.blocks[row:],
            ("column", "cells"),
            adjust_chunks={"cells": 1},
            dtype=np.float64,
            meta=np.empty((0, 0, 0)),
            token=kernel.__name__,
        )
        rows.append(_sum_of_parts(partial_sums, SPLIT_EVERY))
    return Tiles(matrix.chunks[0], tuple(rows))


def tiles_of_counts(
    counts: da.Array,
    plan: TilePlan,
    *,
    residuals: Kernel,
    add_product: Kernel,
    by_cell: Arrays,
    by_gene: Arrays,
    **constants: Any,
) -> Tiles:
    """Return the tiles of residuals × residualsᵀ, the residuals made of counts, block by block, in the tasks.

    Parameters
    ----------
    counts
        (genes, cells), sparse chunks; with a reader, tasks read their blocks themselves.
    plan
        Groups of tiles and ranges of cells.
    residuals
        ``residuals(block, runs=…, **slices, **constants)`` to one matrix (genes, cells) for every run of genes, a run
        being first gene and last + 1; the slices are those of ``by_cell`` that belong to the block, and ``by_gene``
        whole.
    add_product
        ``add_product(sum, block_i, block_j)`` adds to a tile, in place, in such a way that the order does not matter.
    by_cell, by_gene
        Arrays by name; cells are the last axis.
    **constants
        Further arguments of ``residuals``.
    """
    if not plan.n_genes:
        return Tiles((), ())
    sizes = counts.chunks[1]
    ranges = [sizes[first:last] for first, last in plan.ranges(len(sizes))]
    range_sizes = tuple(sum(blocks) for blocks in ranges)
    read, source = _source(counts, range_sizes)
    arguments = [*_numbered(len(plan.groups), "groups"), *_numbered(len(ranges), "ranges"), *source]
    for name, array in by_cell.items():
        axes = (*(f"{name}-{axis}" for axis in range(array.ndim - 1)), "ranges")
        arguments += task_arguments(in_cell_chunks(array, range_sizes), axes, "ranges")
    for name, array in by_gene.items():
        arguments += whole_arguments(array.rechunk(-1), [f"{name}-{axis}" for axis in range(array.ndim)])
    task = _GroupTask(plan, ranges, residuals, add_product, read, tuple(by_cell), tuple(by_gene), constants)
    partial_sums = da.blockwise(
        task,
        ("groups", "ranges"),
        *arguments,
        adjust_chunks={"groups": tuple(plan.values_of(group) for group in plan.groups), "ranges": 1},
        align_arrays=False,
        concatenate=True,
        dtype=np.float64,
        meta=np.empty((0, 0)),
        token="group-sums",
    )
    sums = _sum_of_parts(partial_sums, 2)
    group_of = {tile: number for number, group in enumerate(plan.groups) for tile in group.tiles}
    sides = plan.sides
    rows = []
    for row, side in enumerate(sides):
        columns = range(row, len(sides))
        rows.append(
            da.blockwise(
                partial(_tile_of_group, row=row, plan=plan),
                ("row", "column"),
                sums.blocks[[group_of[Tile(row, column)] for column in columns]],
                ("column",),
                *_numbered(len(columns), "column", first=row),
                new_axes={"row": side},
                adjust_chunks={"column": sides[row:]},
                align_arrays=False,
                dtype=np.float64,
                meta=np.empty((0, 0)),
                token="tile",
            )
        )
    return Tiles(sides, tuple(rows))


@dataclass(frozen=True)
class _GroupTask:
    """What a task of a group of tiles and a range of cells runs."""

    plan: TilePlan
    ranges: list[tuple[int, ...]]
    residuals: Kernel
    add_product: Kernel
    read: Kernel
    by_cell: tuple[str, ...]
    by_gene: tuple[str, ...]
    constants: Mapping[str, Any]

    def __call__(self, group_number: Any, range_number: Any, *arrays: Any) -> Any:
        """Read the range block by block and return the sums of all tiles, one after the other, (values, 1)."""
        n_source = len(arrays) - len(self.by_cell) - len(self.by_gene)
        source, vectors = arrays[:n_source], [in_one_piece(array) for array in arrays[n_source:]]
        cell_vectors = dict(zip(self.by_cell, vectors, strict=False))
        of_genes = dict(zip(self.by_gene, vectors[len(self.by_cell) :], strict=True))
        group = self.plan.groups[int(group_number[0])]
        edges = np.cumsum((0, *self.plan.sides)).tolist()
        # a row of tiles by itself: BLAS would round otherwise in a longer run of genes, and every plan has other runs
        rows = sorted({*range(*group.rows), *range(*group.columns)})
        runs = tuple((edges[row], edges[row + 1]) for row in rows)
        sums = np.zeros((self.plan.values_of(group), 1))
        tiles = [(tile, _tile_of(sums, tile, self.plan, group.tiles)) for tile in group.tiles]
        for start, stop in pairwise(np.cumsum((0, *self.ranges[int(range_number[0])])).tolist()):
            slices = {name: values[..., start:stop] for name, values in cell_vectors.items()}
            block = self.read(source, start, stop)
            made = self.residuals(block, runs=runs, **slices, **of_genes, **self.constants)
            of_row = dict(zip(rows, made, strict=True))
            for (row, column), total in tiles:
                self.add_product(total, of_row[row], of_row[column])
        return sums


def _source(counts: da.Array, range_sizes: tuple[int, ...]) -> tuple[Kernel, list[Any]]:
    """Return how a task comes by a block of its range, and the (array, indices) pairs that it needs for that."""
    reader = reader_of(counts)
    if reader is None:
        return _cut_block, [counts.rechunk((-1, range_sizes)), ("counts", "ranges")]
    cells = task_arguments(in_cell_chunks(reader.cells, range_sizes), ("ranges",), "ranges")
    return partial(_read_block, read=reader.read), [*cells, *whole_arguments(reader.genes, ("genes-read",))]


def _read_block(source: Any, start: int, stop: int, *, read: Kernel) -> Any:
    cells, genes = source
    return read(cells[start:stop], genes)


def _cut_block(source: Any, start: int, stop: int) -> Any:
    (counts,) = source
    return columns_of(counts, slice(start, stop)) if counts.format == "csc" else counts[:, start:stop]


def _numbered(size: int, label: str, first: int = 0) -> list[Any]:
    """Return the (array, indices) pair by which a task gets the number of its block along an axis."""
    return [da.arange(first, first + size, chunks=1, dtype=np.int64), (label,)]


def _tile_of_group(sums: Any, column: Any, *, row: int, plan: TilePlan) -> Any:
    tile = Tile(row, int(column[0]))
    group = next(group for group in plan.groups if tile in group.tiles)
    return _tile_of(sums, tile, plan, group.tiles)


def _tile_of(sums: Any, tile: Tile, plan: TilePlan, tiles: list[Tile]) -> Any:
    """Return the view of a tile in its group's sums."""
    sides = plan.sides
    start = sum(sides[i] * sides[j] for i, j in tiles[: tiles.index(tile)])
    shape = (sides[tile.row], sides[tile.column])
    return sums.ravel()[start : start + shape[0] * shape[1]].reshape(shape)


def _sum_of_parts(parts: da.Array, split_every: int) -> da.Array:
    """Add up an array along its last axis, whose blocks are of length 1; a single block is not copied."""
    return da.reduction(
        parts,
        chunk=_as_it_is,
        combine=_added,
        aggregate=partial(_added, keepdims=False),
        axis=parts.ndim - 1,
        split_every=split_every,
        dtype=np.float64,
        concatenate=False,
        meta=np.empty((0,) * (parts.ndim - 1)),
    )


def _as_it_is(part: Any, axis: Any, keepdims: Any) -> Any:
    del axis, keepdims
    return part


def _added(parts: Any, axis: Any, *, keepdims: bool = True) -> Any:
    """Add parts; what came in stays as it is."""
    del axis
    while isinstance(parts, list) and len(parts) == 1:
        parts = parts[0]
    total: Any = sum(parts[1:], parts[0]) if isinstance(parts, list) else parts
    return total if keepdims else total[..., 0]


def _multiplied(left: Any, right: Any, *, kernel: Kernel) -> Any:
    return kernel(in_one_piece(left), in_one_piece(right))[..., None]


def _call(
    tile: Any, row_positions: Any, column_positions: Any, *slices: Any, kernel: Kernel, names: tuple[str, ...]
) -> Any:
    arguments = {f"row_{name}": values for name, values in zip(names, slices[::2], strict=True)}
    arguments |= {f"column_{name}": values for name, values in zip(names, slices[1::2], strict=True)}
    return kernel(tile, is_diagonal=bool(row_positions[0] == column_positions[0]), **arguments)
