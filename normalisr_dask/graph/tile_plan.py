"""How the product of a genes × cells matrix with itself is shared out: tiles, groups of tiles, ranges of cells.

The product is made in square tiles on and above its diagonal. A task holds the sums of a group of tiles, a square of
them, reads a range of cells block by block, makes the residuals of the genes of its rows and columns, and adds their
products to its tiles. The larger the groups, the fewer times the counts are read; the more groups and ranges, the more
tasks share the work. :func:`plan_tiles` weighs this for a memory limit and a number of tasks at a time. The numbers
that come out do not depend on the plan, to the last bit: see :mod:`normalisr_dask.kernels.coexpression`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from normalisr_dask.graph.memory import FLOAT_BYTES, sparse_block_bytes

#: Genes a side of a tile: products of blocks of so many rows run at nearly the speed of a processor.
GENES_PER_TILE = 1000
#: What a task may use and how many run at a time, where nobody says.
TASK_BYTES, WORKERS = 1 << 30, 8
#: Seconds for each stored entry that is read, value of a residual that is made, multiplication, and value that is
#: handed from task to task; of one core, about. Only their ratios matter.
READ_SECONDS, RESIDUAL_SECONDS, PRODUCT_SECONDS, HAND_OVER_SECONDS = 40e-9, 6e-9, 0.05e-9, 10e-9
#: Products of sparse counts take the share SPARSE_SHARE · density² + FACTOR_COLUMNS / cells of a block of the time of
#: dense ones, where that is less; the columns are those of usual weights and covariates.
SPARSE_SHARE, FACTOR_COLUMNS = 20, 100
#: Seconds of the scheduler for each task, one after the other; and tasks of one submission that it copes with.
SCHEDULING_SECONDS, MOST_TASKS = 1e-3, 40_000
#: Copies of a group's sums in a worker: one waits to be finished and two results of it to be stored while the next is
#: made; of ranges, two more are added.
COPIES_OF_ONE_RANGE, COPIES_OF_RANGES = 4, 5
#: Arrays as large as a tile that a task holds besides.
TILES_IN_WORK = 6
#: Panels of residuals in work, and index arrays, of a task.
PANEL_BYTES = 4 << 20


class Tile(NamedTuple):
    """Position of a tile: its row of tiles and its column of tiles, row ≤ column."""

    row: int
    column: int


@dataclass(frozen=True)
class TileGroup:
    """Tiles that a task makes together.

    Attributes
    ----------
    rows, columns
        Rows and columns of tiles, each the first and the one after the last.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]

    @property
    def is_diagonal(self) -> bool:
        """Whether rows and columns are the same genes."""
        return self.rows == self.columns

    @property
    def tiles(self) -> list[Tile]:
        """The group's tiles on and above the diagonal."""
        return [Tile(i, j) for i in range(*self.rows) for j in range(*self.columns) if i <= j]


@dataclass(frozen=True)
class TilePlan:
    """How the product is shared out.

    Attributes
    ----------
    n_genes, n_cells
        Of the matrix.
    side
        Genes a side of a tile; the last tile may be smaller.
    tiles_per_side
        Tiles a side of a group.
    n_ranges
        Ranges of cells; each is read by a task of its own.
    task_bytes
        Projected peak memory of a worker's tasks of this plan, one at a time.
    seconds
        Projected time on the cluster it was planned for; good for comparing plans.
    """

    n_genes: int
    n_cells: int
    side: int
    tiles_per_side: int
    n_ranges: int
    task_bytes: int
    seconds: float

    @property
    def sides(self) -> tuple[int, ...]:
        """Genes of every row of tiles."""
        full, rest = divmod(self.n_genes, self.side)
        return (self.side,) * full + ((rest,) if rest else ())

    @property
    def n_tile_rows(self) -> int:
        """Number of rows of tiles."""
        return math.ceil(self.n_genes / self.side)

    @property
    def groups(self) -> list[TileGroup]:
        """The groups, on and above the diagonal."""
        runs = _even_runs(self.n_tile_rows, math.ceil(self.n_tile_rows / self.tiles_per_side))
        return [TileGroup(rows, columns) for i, rows in enumerate(runs) for columns in runs[i:]]

    @property
    def n_tasks(self) -> int:
        """Number of tasks that read cells and multiply: groups × ranges."""
        return len(self.groups) * self.n_ranges

    @property
    def bytes_handed_over(self) -> int:
        """Bytes of the sums of ranges that are sent from task to task, about."""
        if self.n_ranges == 1:
            return 0
        n_tiles = sum(len(group.tiles) for group in self.groups)
        return FLOAT_BYTES * self.side**2 * n_tiles * (self.n_ranges - 1)

    def values_of(self, group: TileGroup) -> int:
        """Return the number of values of a group's tiles."""
        return sum(self.sides[i] * self.sides[j] for i, j in group.tiles)

    def ranges(self, n_blocks: int) -> list[tuple[int, int]]:
        """Return first and last + 1 block of cells of every range."""
        return _even_runs(n_blocks, min(self.n_ranges, n_blocks))


def genes_per_tile(n_genes: int, side: int = 0) -> int:
    """Return the genes a side of a tile: as asked for, or such that tiles of about 1000 are equally large."""
    n_rows = max(1, math.ceil(n_genes / GENES_PER_TILE))
    return max(1, min(side or math.ceil(n_genes / n_rows), n_genes))


def plan_tiles(
    n_genes: int,
    n_cells: int,
    *,
    n_entries: int,
    cells_per_block: int,
    rows_of_cells: int = 16,
    side: int = 0,
    workers: int = WORKERS,
    task_bytes: int = TASK_BYTES,
    itemsize: int = FLOAT_BYTES,
) -> TilePlan:
    """Plan groups and ranges: the shortest time that fits into the memory of a task.

    Parameters
    ----------
    n_genes, n_cells
        Of the matrix.
    n_entries
        Stored entries of the counts, about.
    cells_per_block
        Cells that are read together.
    rows_of_cells
        Vectors of length cells that a task gets besides.
    side
        Genes a side of a tile; 0 for about 1000.
    workers
        Tasks that run at a time.
    task_bytes
        What a task may use.
    itemsize
        Bytes of a residual.

    Returns
    -------
    TilePlan
        Where no plan fits, the one that needs least; :func:`normalisr_dask.graph.memory.check_fits` refuses it.
    """
    side = genes_per_tile(n_genes, side)
    n_blocks = max(1, math.ceil(n_cells / cells_per_block))
    entries_per_cell = n_entries / max(1, n_cells)
    density = entries_per_cell / max(1, n_genes)
    sparse_share = SPARSE_SHARE * density**2 + FACTOR_COLUMNS / max(1, min(n_cells, cells_per_block))
    product_seconds = PRODUCT_SECONDS * min(itemsize / FLOAT_BYTES, sparse_share)
    fixed = sparse_block_bytes(math.ceil(entries_per_cell * cells_per_block)) + PANEL_BYTES
    plans = []
    for tiles_per_side, n_ranges in _choices(math.ceil(n_genes / side), n_blocks):
        genes = min(tiles_per_side * side, n_genes)
        cells_per_range = math.ceil(n_cells / n_ranges)
        n_bytes = (
            fixed
            + FLOAT_BYTES * genes**2 * (COPIES_OF_ONE_RANGE if n_ranges == 1 else COPIES_OF_RANGES)
            + FLOAT_BYTES * side**2 * TILES_IN_WORK
            + 2 * genes * cells_per_block * itemsize
            + FLOAT_BYTES * rows_of_cells * cells_per_range
        )
        seconds = _seconds(n_genes, genes, cells_per_range, n_ranges, entries_per_cell, workers, product_seconds)
        plans.append(TilePlan(n_genes, n_cells, side, tiles_per_side, n_ranges, n_bytes, seconds))
    fitting = [plan for plan in plans if plan.task_bytes <= task_bytes and plan.n_tasks <= MOST_TASKS]
    return min(fitting, key=lambda plan: plan.seconds) if fitting else min(plans, key=lambda plan: plan.task_bytes)


def _choices(n_tile_rows: int, n_blocks: int) -> Iterator[tuple[int, int]]:
    """Yield sides of groups, in tiles, and numbers of ranges: all that make even groups, and powers of two."""
    sides = sorted({math.ceil(n_tile_rows / n_runs) for n_runs in range(1, n_tile_rows + 1)}) or [1]
    n_ranges = [1 << power for power in range(n_blocks.bit_length()) if 1 << power <= n_blocks]
    for side in sides:
        yield from ((side, number) for number in n_ranges)


def _seconds(
    n_genes: int,
    genes: int,
    cells_per_range: int,
    n_ranges: int,
    entries_per_cell: float,
    workers: int,
    product_seconds: float,
) -> float:
    """Return about how long a plan takes: the work shared out evenly, and the last task to end."""
    n_runs = math.ceil(n_genes / max(1, genes))
    off_diagonal, diagonal = n_runs * (n_runs - 1) // 2 * n_ranges, n_runs * n_ranges
    product = genes**2 * cells_per_range * product_seconds
    reading = entries_per_cell * cells_per_range * READ_SECONDS
    residuals = genes * cells_per_range * RESIDUAL_SECONDS
    handing_over = genes**2 * HAND_OVER_SECONDS if n_ranges > 1 else 0.0
    largest = reading + 2 * residuals + product + handing_over
    total = off_diagonal * largest + diagonal * (reading + residuals + (product + handing_over) / 2)
    last = largest if off_diagonal else total / max(1, diagonal)
    return total / workers + last * (1 - 1 / workers) + (off_diagonal + diagonal) * SCHEDULING_SECONDS


def _even_runs(size: int, n_runs: int) -> list[tuple[int, int]]:
    """Cut 0 … size into runs of nearly equal length."""
    edges = np.linspace(0, size, n_runs + 1).round().astype(int).tolist()
    return list(pairwise(edges))
