"""The product of a genes × cells matrix with itself, tile by tile, and what is made of the tiles.

Two routes make the tiles. :func:`tiles_of_blocks` multiplies the blocks of a dense Dask array; its blocks are held, or
spilled, by the workers. :func:`tiles_of_counts` has tasks that read counts block by block and hold nothing else than
the sums of their tiles: for counts that do not fit in memory, and certainly not when made dense.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import dask
import dask.array as da
import numpy as np
import scipy.sparse

from normalisr_dask.graph.layout import SPLIT_EVERY, Arrays
from normalisr_dask.graph.passes import reader_of
from normalisr_dask.graph.tile_plan import Tile, TileGroup, TilePlan

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Tiles:
    """Sums of all tiles on and above the diagonal, lazy.

    Attributes
    ----------
    sides
        Genes of every row of tiles.
    sums
        One delayed list of arrays a group, in the order of the group's tiles.
    groups
        Tiles of every group.
    """

    sides: tuple[int, ...]
    sums: Sequence[Any]
    groups: Sequence[list[Tile]]

    def arrays(self, finish: Mapping[str, Kernel], by_gene: Arrays) -> dict[str, da.Array]:
        """Return what each of ``finish`` makes of the tiles, genes × genes; those below the diagonal are mirrored.

        Parameters
        ----------
        finish
            By name of the result, ``finish(sum, is_diagonal=…, **arguments_i, **arguments_j)`` to a float64 tile,
            symmetric in the genes; the arguments are the ``by_gene`` slices, their names after ``row_``, ``column_``.
        by_gene
            One-dimensional arrays by name.
        """
        slices = {
            name: array.rechunk((self.sides,)).to_delayed(optimize_graph=False) for name, array in by_gene.items()
        }
        n_rows = len(self.sides)
        blocks: dict[str, list[list[Any]]] = {name: [[None] * n_rows for _ in range(n_rows)] for name in finish}
        for group_sums, tiles in zip(self.sums, self.groups, strict=True):
            for position, (i, j) in enumerate(tiles):
                arguments = {f"row_{name}": parts[i] for name, parts in slices.items()}
                arguments |= {f"column_{name}": parts[j] for name, parts in slices.items()}
                for name, kernel in finish.items():
                    close = dask.delayed(partial(_finish, kernel=kernel), pure=True)
                    tile = close(group_sums, position, is_diagonal=i == j, **arguments)
                    shape = (self.sides[i], self.sides[j])
                    upper = da.from_delayed(tile, shape=shape, dtype=np.float64, meta=np.empty((0, 0)))
                    blocks[name][i][j] = upper
                    if i != j:
                        blocks[name][j][i] = upper.T
        return {name: da.block(rows) if rows else da.zeros((0, 0)) for name, rows in blocks.items()}


def tiles_of_blocks(kernel: Kernel, matrix: da.Array) -> Tiles:
    """Return the tiles of matrix × matrixᵀ.

    Parameters
    ----------
    kernel
        ``kernel(block_i, block_j)`` to the tile's sum over one chunk of cells.
    matrix
        Dense (genes, cells); its gene chunks are the tiles' sides.
    """
    blocks = matrix.to_delayed(optimize_graph=False)
    add, multiply = (dask.delayed(function, pure=True) for function in (_added, partial(_multiplied, kernel=kernel)))
    n_rows = matrix.numblocks[0]
    groups = [[Tile(i, j)] for i in range(n_rows) for j in range(i, n_rows)]
    sums = []
    for ((i, j),) in groups:
        parts = [multiply(blocks[i, c], blocks[j, c]) for c in range(matrix.numblocks[1])]
        sums.append(_tree(add, parts, SPLIT_EVERY))
    return Tiles(matrix.chunks[0], sums, groups)


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
    sizes = counts.chunks[1]
    ranges = plan.ranges(len(sizes))
    range_sizes = tuple(sum(sizes[first:last]) for first, last in ranges)
    slices = {
        name: array.rechunk((*array.chunks[:-1], range_sizes)).rechunk(dict.fromkeys(range(array.ndim - 1), -1))
        for name, array in by_cell.items()
    }
    cell_parts = {name: array.to_delayed(optimize_graph=False).ravel() for name, array in slices.items()}
    genes = {name: array.rechunk(-1).to_delayed(optimize_graph=False).ravel()[0] for name, array in by_gene.items()}
    read, sources = _sources(counts, ranges, range_sizes)
    task = partial(
        _group_sums, sides=plan.sides, residuals=residuals, add_product=add_product, read=read, constants=constants
    )
    multiply, add = dask.delayed(task, pure=True), dask.delayed(_added, pure=True)
    groups = plan.groups
    sums = []
    for group in groups:
        parts = [
            multiply(
                sources[position],
                {name: array[position] for name, array in cell_parts.items()},
                genes,
                sizes=sizes[first:last],
                group=group,
            )
            for position, (first, last) in enumerate(ranges)
        ]
        sums.append(_tree(add, parts, 2))
    return Tiles(plan.sides, sums, [group.tiles for group in groups])


def _sources(
    counts: da.Array, ranges: list[tuple[int, int]], range_sizes: tuple[int, ...]
) -> tuple[Kernel | None, list[Any]]:
    """Return a function that reads a block, if tasks read, and what every range's tasks get to come by its blocks."""
    reader = reader_of(counts)
    if reader is None:
        blocks = counts.to_delayed(optimize_graph=False)
        return None, [[blocks[:, block].tolist() for block in range(first, last)] for first, last in ranges]
    cells = reader.cells.rechunk((range_sizes,)).to_delayed(optimize_graph=False)
    genes = reader.genes.rechunk(-1).to_delayed(optimize_graph=False).ravel()[0]
    return reader.read, [[part, genes] for part in cells]


def _group_sums(
    source: Any,
    by_cell: Mapping[str, Any],
    by_gene: Mapping[str, Any],
    *,
    sizes: tuple[int, ...],
    group: TileGroup,
    sides: tuple[int, ...],
    residuals: Kernel,
    add_product: Kernel,
    read: Kernel | None,
    constants: Mapping[str, Any],
) -> list[Any]:
    """Read a range of cells block by block and add the products of each; what a task runs."""
    edges = np.cumsum((0, *sides)).tolist()
    tiles = group.tiles
    sums = [np.zeros((sides[i], sides[j])) for i, j in tiles]
    runs = tuple((edges[first], edges[last]) for first, last in dict.fromkeys((group.rows, group.columns)))
    first_row, first_column = runs[0][0], runs[-1][0]
    for number, (start, stop) in enumerate(pairwise(np.cumsum((0, *sizes)).tolist())):
        if read is None:
            parts = source[number]
            block = parts[0] if len(parts) == 1 else scipy.sparse.vstack(parts, format="csc")
        else:
            block = read(source[0][start:stop], source[1])
        slices = {name: values[..., start:stop] for name, values in by_cell.items()}
        made = residuals(block, runs=runs, **slices, **by_gene, **constants)
        rows, columns = made[0], made[-1]
        for total, (i, j) in zip(sums, tiles, strict=True):
            left = rows[edges[i] - first_row : edges[i + 1] - first_row]
            add_product(total, left, columns[edges[j] - first_column : edges[j + 1] - first_column])
    return sums


def _multiplied(left: Any, right: Any, *, kernel: Kernel) -> list[Any]:
    return [kernel(left, right)]


def _added(parts: list[list[Any]]) -> list[Any]:
    """Add the sums of ranges, tile by tile; what came in stays as it is."""
    return [sum(tiles[1:], tiles[0]) for tiles in zip(*parts, strict=True)]


def _tree(add: Kernel, parts: list[Any], split_every: int) -> Any:
    """Add parts in a tree that adds ``split_every`` at a time."""
    while len(parts) > 1:
        starts = range(0, len(parts), split_every)
        parts = [
            parts[start] if start + 1 == len(parts) else add(parts[start : start + split_every]) for start in starts
        ]
    return parts[0]


def _finish(sums: list[Any], position: int, *, kernel: Kernel, **arguments: Any) -> Any:
    return kernel(sums[position], **arguments)
