"""How co-expression is shared out on clusters of all sizes: the table of docs/scaling.md, by the planner itself.

    python benchmarks/scaling.py

Reads no data and computes nothing; the plans are those that `normalisr-dask run --coex` makes.
"""

from normalisr_dask.gene_pair_plan import GenePairPlanner
from normalisr_dask.graph.inputs import cells_per_sparse_block
from normalisr_dask.graph.memory import task_allowance
from normalisr_dask.planning import one_pass_bytes

N_GENES, ENTRIES_PER_CELL, N_COVARIATES = 20_000, 1_600, 4
CELLS, WORKERS = (10_000, 1_000_000, 10_000_000), (2, 8, 64, 1024)
MEMORY_LIMIT = 4_000_000_000
COLUMNS = (
    "cells",
    "workers",
    "groups × ranges",
    "tasks",
    "per worker",
    "passes",
    "GB read",
    "GB read per worker",
    "GB from worker to worker",
    "GB peak of a task",
)


def rows() -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    return [_row(n_cells, workers) for n_cells in CELLS for workers in WORKERS]


def _row(n_cells: int, workers: int) -> tuple[str, ...]:
    n_entries = ENTRIES_PER_CELL * n_cells
    planner = GenePairPlanner(
        stored=True,
        entries_per_cell=ENTRIES_PER_CELL,
        n_cells=n_cells,
        n_covariates=N_COVARIATES,
        workers=workers,
        task_bytes=task_allowance(MEMORY_LIMIT, 1),
    )
    plan = planner.tiles(N_GENES, n_cells, cells_per_sparse_block(N_GENES, n_cells, n_entries))
    passes = len(plan.groups)
    gigabytes_read = passes * one_pass_bytes(n_entries, n_cells) / 1e9
    return (
        f"{n_cells:,}",
        f"{workers:,}",
        f"{passes} × {plan.n_ranges:,}",
        f"{plan.n_tasks:,}",
        f"{plan.n_tasks / workers:,.1f}",
        f"{passes}",
        f"{gigabytes_read:,.1f}",
        f"{gigabytes_read / workers:,.2f}",
        f"{plan.bytes_handed_over / 1e9:,.1f}",
        f"{plan.task_bytes / 1e9:.2f}",
    )


def table() -> str:
    """Return the table in Markdown."""
    lines = [COLUMNS, ("--:",) * len(COLUMNS), *rows()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(table())
