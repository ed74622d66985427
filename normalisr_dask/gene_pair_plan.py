"""What the tests of gene pairs will take: tiles, tasks, bytes and seconds of their two stages."""

import math
from dataclasses import dataclass
from typing import Literal

from dask.utils import format_bytes

from normalisr_dask.graph.memory import TaskPlan, dense_block_bytes
from normalisr_dask.graph.tile_plan import TilePlan, genes_per_tile, plan_tiles
from normalisr_dask.wording import counted

#: Bytes of a gene pair in a task that looks for edges among stored P-values, if every pair may be one.
EDGE_BYTES = 24
#: Seconds of a core for each stored gene pair that is looked at; about.
EDGE_SECONDS = 30e-9


@dataclass(frozen=True)
class GenePairPlanner:
    """What the plans of the stages ``coex`` and ``edges`` depend on.

    Attributes
    ----------
    stored
        Whether P-values of all pairs are stored, so that edges are found in these.
    entries_per_cell
        Stored counts of a cell, on average.
    n_cells, n_covariates
        Numbers of cells of the store and of covariates.
    workers, task_bytes
        Tasks that run at a time, and the bytes that each may use.
    """

    stored: bool
    entries_per_cell: float
    n_cells: int
    n_covariates: int
    workers: int
    task_bytes: int

    def tiles(self, n_genes: int, n_cells: int, cells_per_block: int) -> TilePlan:
        """Return how the tests of the gene pairs of so many genes and cells are shared out."""
        return plan_tiles(
            n_genes,
            n_cells,
            n_entries=int(self.entries_per_cell * n_cells),
            cells_per_block=cells_per_block,
            rows_of_cells=2 * self.n_covariates + 4,
            workers=self.workers,
            task_bytes=self.task_bytes,
        )

    def tasks(self, n_genes: int, cell_blocks: int, cells_per_block: int) -> dict[str, int]:
        """Return about how many tasks the two stages have."""
        plan = self.tiles(n_genes, self.n_cells, cells_per_block)
        n_tiles = plan.n_tile_rows * (plan.n_tile_rows + 1) // 2
        tests = 22 * cell_blocks + 2 * plan.n_tasks + 12 * n_tiles + 50
        edges = math.ceil(n_genes / max(1, rows_of_edges(n_genes, self.task_bytes)))
        return {"coex": tests, "edges": edges if self.stored else tests}

    def seconds(self, n_genes: int, cells_per_block: int) -> dict[str, float]:
        """Return about how long the two stages take."""
        tests = self.tiles(n_genes, self.n_cells, cells_per_block).seconds
        return {"coex": tests, "edges": EDGE_SECONDS * n_genes**2 / self.workers if self.stored else tests}


def rows_of_edges(n_genes: int, allowed: int) -> int:
    """Return how many rows of stored P-values a task of so many bytes looks at: a tile, or an even share of one."""
    side = genes_per_tile(n_genes)
    shares = math.ceil(EDGE_BYTES * side * max(1, n_genes) / (0.8 * max(1, allowed)))
    return max(1, side // shares)


def tasks_of_gene_pairs(tiles: TilePlan, coex: Literal["all", "edges"], allowed: int) -> dict[str, TaskPlan]:
    """Return the largest task of each stage of gene pairs."""
    sums = TaskPlan("sums of a group of tiles of gene pairs", tiles.task_bytes)
    if coex == "edges":
        return {"edges": sums}
    height = rows_of_edges(tiles.n_genes, allowed)
    rows = TaskPlan(
        "rows of gene pairs", EDGE_BYTES * height * tiles.n_genes + dense_block_bytes(height, tiles.side, 3)
    )
    return {"coex": sums, "edges": rows}


def notes_of_gene_pairs(tiles: TilePlan, coex: Literal["all", "edges"] | None, allowed: int) -> dict[str, str]:
    """Return what to know of the stages of gene pairs."""
    handed_over = format_bytes(tiles.bytes_handed_over) if tiles.bytes_handed_over else "nothing"
    passes = counted(len(tiles.groups), "pass", "passes")
    tests = (
        f"tiles of {tiles.side:,} × {tiles.side:,} genes, {passes} over the counts, "
        f"ranges of cells: {tiles.n_ranges:,}, {handed_over} from worker to worker"
    )
    rows = f"blocks of {rows_of_edges(tiles.n_genes, allowed):,} × {tiles.n_genes:,} genes"
    return {"coex": tests, "edges": rows if coex == "all" else tests}
