"""What a run will do, from metadata alone: blocks, tasks, bytes read and written, and the peak memory of a task."""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal

from normalisr_dask.command_memory import command_bytes
from normalisr_dask.gene_pair_plan import GenePairPlanner, notes_of_gene_pairs, rows_of_edges, tasks_of_gene_pairs
from normalisr_dask.graph.calls import SPLIT_EVERY, n_ranges
from normalisr_dask.graph.inputs import BLOCK_ENTRIES, cells_per_block_of_run
from normalisr_dask.graph.memory import (
    TaskPlan,
    check_fits,
    dense_block_bytes,
    sparse_block_bytes,
    sufficient_limit,
    task_allowance,
)
from normalisr_dask.graph.tile_plan import TilePlan
from normalisr_dask.grouping_sums import GroupingPlanner, GroupingSums
from normalisr_dask.kernels.chebyshev import N_NODES, PIECE_BYTES
from normalisr_dask.kernels.principal_component import PANEL_VALUES
from normalisr_dask.schema import kind_of, stage_of_level
from normalisr_dask.storage.count_store import CountStore
from normalisr_dask.wording import counted

#: Copies of a dense block that tests of reference controls hold.
DENSE_COPIES = 4
#: Rounds of read quality control that real data need, more or less.
QC_ROUNDS = 4
#: Stages that each level of gene sets has.
LEVEL_STAGES = ("coex", "edges", "go")
#: Copies of covariates of cells beside a block of counts, and of a piece of what is interpolated to genes.
ROWS_OF_CELLS, PIECES = 4, 4
#: Genes of a gene set that are planned for; few have more.
GENES_OF_SET = 2_000
#: Compressed bytes of a stored entry, more or less.
STORED_ENTRY_BYTES = 2.5
#: Seconds of a core for each entry that a stage reads, and for each task; about. Only their ratios matter.
ENTRY_SECONDS = {"qc": 40e-9, "normalisation": 70e-9, "de": 50e-9, "go": 70e-9}
TASK_SECONDS = 2e-3


@dataclass(frozen=True)
class StagePlan:
    """What a stage will do.

    Attributes
    ----------
    name
        Stage of the result store.
    tasks
        Number of tasks, about.
    bytes_read, bytes_written
        From and to the stores, about.
    peak_task_bytes
        Projected peak memory of its largest task.
    seconds
        Projected time; good for comparing stages.
    note
        Its blocks, and what else to know.
    """

    name: str
    tasks: int
    bytes_read: int
    bytes_written: int
    peak_task_bytes: int
    seconds: float
    note: str


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes
    ----------
    stages
        In order.
    memory_limit, workers, threads_per_worker
        What it was planned for.
    cells_per_block
        Cells a task reads together.
    groupings
        What decides on the groupings that are tested together.
    gene_pairs
        What decides on the tiles of gene pairs.
    """

    stages: tuple[StagePlan, ...]
    memory_limit: int
    workers: int
    threads_per_worker: int
    cells_per_block: int
    groupings: GroupingPlanner
    gene_pairs: GenePairPlanner

    def tiles(self, n_genes: int, n_cells: int) -> TilePlan:
        """Return how the tests of the gene pairs of so many genes and cells are shared out."""
        return self.gene_pairs.tiles(n_genes, n_cells, self.cells_per_block)

    @property
    def made_for(self) -> dict[str, int]:
        """What the manifest says of the blocks of a stage: their cells, and what decided on them."""
        names = ("cells_per_block", "memory_limit", "workers", "threads_per_worker")
        return {name: getattr(self, name) for name in names}

    def warn_of_other_blocks(self, output: str, begun_with: int) -> None:
        """Warn where the stages of an output that are done were made in blocks of more cells than now fit."""
        if begun_with not in (0, self.cells_per_block):
            msg = (
                f"{output} was begun in blocks of {begun_with:,} cells, for which a worker has too little memory now: "
                f"what is not done is made in blocks of {self.cells_per_block:,}, so that last digits may differ from "
                "those of one run; give the --memory-limit that it was begun with for the same"
            )
            warnings.warn(msg, stacklevel=2)

    @property
    def largest_task_bytes(self) -> int:
        """What a worker that joins later must have for a task, as those that are there have."""
        allowed = task_allowance(self.memory_limit, self.threads_per_worker)
        return min(allowed, max(stage.peak_task_bytes for stage in self.stages))

    @property
    def cells_per_dense_block(self) -> int:
        """Cells of a block that a task makes dense, of which it holds some copies."""
        bytes_of_cell = dense_block_bytes(self.groupings.sums.n_genes, 1, DENSE_COPIES)
        allowed = task_allowance(self.memory_limit, self.threads_per_worker)
        return max(1, min(self.cells_per_block, allowed // max(1, bytes_of_cell)))

    @property
    def command_bytes(self) -> int:
        """Projected peak memory of the command itself, for which there is no limit."""
        sums, tasks = self.groupings.sums, max(stage.tasks for stage in self.stages if stage.name != "calibration")
        return command_bytes(self.gene_pairs.n_cells, sums.n_genes * sums.n_groupings, tasks)

    def rows_of_edges(self, n_genes: int) -> int:
        """Return of how many of so many genes a task looks for edges among stored P-values."""
        return rows_of_edges(n_genes, self.gene_pairs.task_bytes)

    def of_genes(self, n_genes: int) -> tuple[StagePlan, ...]:
        """Return the stages, about, if so many genes are left: tests have fewer tasks then."""
        n_tasks = self.gene_pairs.tasks(n_genes, self.groupings.cell_blocks, self.cells_per_block)
        seconds = self.gene_pairs.seconds(n_genes, self.cells_per_block)
        of_groupings = {stage.name: stage for stage in self.stages}.get("de")
        share = 1.0 if of_groupings is None else self.groupings.tasks(n_genes) / max(1, of_groupings.tasks)
        return tuple(
            replace(stage, tasks=n_tasks[kind], seconds=seconds[kind])
            if kind in n_tasks
            else replace(stage, tasks=int(share * stage.tasks))
            if kind in ("de", "calibration")
            else stage
            for stage in self.stages
            for kind in [kind_of(stage.name)]
        )


def _tasks(cell_blocks: int) -> dict[str, int]:
    """Return about how many tasks the stages have that read all cells, fitted to what Dask's scheduler has counted."""
    return {
        "qc": int(QC_ROUNDS * (2.5 * n_ranges(cell_blocks) + 11)),
        "normalisation": 8 * n_ranges(cell_blocks) + 60,
        "go": 40 * cell_blocks + 40,
    }


def plan_run(
    store: CountStore,
    *,
    n_groupings: int,
    n_covariates: int,
    single: int,
    coex: Literal["all", "edges"] | None,
    go_levels: int | None,
    memory_limit: int,
    workers: int,
    threads_per_worker: int,
    begun_with: int = 0,
) -> RunPlan:
    """Plan a run over a whole store; quality control will make it smaller.

    Parameters
    ----------
    store
        The counts.
    n_groupings, n_covariates
        Numbers of groupings (0 for no differential expression) and of covariates with those of log-CPM.
    single
        How differential expression treats other groupings, as ``de`` takes it.
    coex
        What to store of co-expression, None if it is not asked for.
    go_levels
        How many gene sets to remove from co-expression, None if none is looked for.
    memory_limit
        Bytes of a worker.
    workers, threads_per_worker
        Of the cluster.
    begun_with
        Cells a block of stages that are done, which are kept if they fit: others would give other last digits. 0 for
        none.

    Raises
    ------
    ValueError
        If the largest task does not fit into the memory limit even with the smallest blocks.
    """
    allowed = task_allowance(memory_limit, threads_per_worker)
    at_a_time = workers * threads_per_worker
    sums = GroupingSums(store.n_genes, n_groupings, n_covariates, single)
    gene_pairs = GenePairPlanner(
        coex == "all",
        store.n_entries / max(1, store.n_cells),
        store.n_cells,
        n_covariates + (go_levels or 0),
        at_a_time,
        allowed,
    )
    sizes = _block_sizes(store, sums, gene_pairs, coex, go_levels, begun_with)
    sufficient, then = memory_limit, sizes
    while then.largest.n_bytes > task_allowance(sufficient, threads_per_worker):  # a larger limit makes another plan
        sufficient = sufficient_limit(then.largest, threads_per_worker)
        with_more = replace(gene_pairs, task_bytes=task_allowance(sufficient, threads_per_worker))
        then = _block_sizes(store, sums, with_more, coex, go_levels, begun_with)
    check_fits(sizes.largest, memory_limit, threads_per_worker, sufficient=sufficient)
    cells_per_block = sizes.cells_per_block
    cell_blocks = math.ceil(store.n_cells / cells_per_block)
    groupings = GroupingPlanner(
        sums,
        _beside_sums(store, cells_per_block, n_covariates),
        cell_blocks,
        at_a_time,
        allowed,
        allowed * workers,
    )
    blocks = groupings.blocks(store.n_genes)
    grouping_blocks, submissions = (math.ceil(n_groupings / size) for size in blocks)
    n_tasks = _tasks(cell_blocks) | {"de": groupings.tasks(store.n_genes)}
    n_tasks |= gene_pairs.tasks(store.n_genes, cell_blocks, cells_per_block)
    tiles = gene_pairs.tiles(store.n_genes, store.n_cells, cells_per_block)
    n_bytes = _stage_bytes(store, grouping_blocks, n_groupings, n_covariates) | _gene_pair_bytes(store, tiles, coex)
    seconds = {
        name: ENTRY_SECONDS[name] * n_bytes[name][0] / STORED_ENTRY_BYTES / at_a_time + TASK_SECONDS * n_tasks[name]
        for name in ENTRY_SECONDS
    } | gene_pairs.seconds(store.n_genes, cells_per_block)
    notes = dict.fromkeys(ENTRY_SECONDS, f"blocks: {cell_blocks:,} × {cells_per_block:,} cells")
    notes |= notes_of_gene_pairs(tiles, coex, allowed)
    notes["qc"] += f", about {QC_ROUNDS} rounds"
    of_groupings = counted(submissions, "submission", "submissions")
    notes["de"] += f", {grouping_blocks:,} × {blocks.per_block:,} groupings in {of_groupings}"
    stages = tuple(
        StagePlan(name, n_tasks[name], *n_bytes[name], task.n_bytes, seconds[name], notes[name])
        for name, task in sizes.tasks.items()
    )
    stages = _of_all_levels(stages, go_levels or 0)
    return RunPlan(stages, memory_limit, workers, threads_per_worker, cells_per_block, groupings, gene_pairs)


def with_calibration(plan: RunPlan, permutations: int, *, of_reference: bool) -> RunPlan:
    """Return the plan with ``calibration`` after ``de``: permuted tests, or those of reference controls alone."""
    (of_de,) = (stage for stage in plan.stages if stage.name == "de")
    times = max(1, permutations)
    dense = dense_block_bytes(plan.groupings.sums.n_genes, plan.cells_per_dense_block, DENSE_COPIES)
    calibration = replace(
        of_de,
        name="calibration",
        peak_task_bytes=max(of_de.peak_task_bytes, dense * of_reference),
        tasks=times * of_de.tasks,
        bytes_read=times * of_de.bytes_read,
        bytes_written=0,
        seconds=times * of_de.seconds,
    )
    after = plan.stages.index(of_de) + 1
    return replace(plan, stages=(*plan.stages[:after], calibration, *plan.stages[after:]))


def _of_all_levels(stages: tuple[StagePlan, ...], last_level: int) -> tuple[StagePlan, ...]:
    """Return the stages with those of gene pairs and gene sets once more for every further level."""
    once = [stage for stage in stages if stage.name not in LEVEL_STAGES]
    of_level = [stage for stage in stages if stage.name in LEVEL_STAGES]
    for level in range(last_level + 1):
        once += [replace(stage, name=stage_of_level(stage.name, level)) for stage in of_level]
    return tuple(once)


@dataclass(frozen=True)
class _BlockSizes:
    """Sizes of blocks, and the largest task of each stage that they make."""

    cells_per_block: int
    groupings_per_block: int
    tasks: dict[str, TaskPlan]

    @property
    def largest(self) -> TaskPlan:
        """The largest task of all."""
        return max(self.tasks.values(), key=lambda task: task.n_bytes)


def _block_sizes(
    store: CountStore,
    sums: GroupingSums,
    gene_pairs: GenePairPlanner,
    coex: Literal["all", "edges"] | None,
    go_levels: int | None,
    begun_with: int,
) -> _BlockSizes:
    """Return the largest blocks whose tasks fit into the bytes of a task, or the smallest if none do."""
    allowed, at_a_time = gene_pairs.task_bytes, gene_pairs.workers
    block_entries, groupings_per_block = BLOCK_ENTRIES, sums.groupings_per_block(at_a_time)
    while True:
        planned = cells_per_block_of_run(store.n_genes, store.n_cells, store.n_entries, block_entries)
        cells_per_block = begun_with or planned
        tasks = _largest_tasks(store, cells_per_block, groupings_per_block, sums)
        if coex is not None:
            tasks |= tasks_of_gene_pairs(gene_pairs.tiles(store.n_genes, store.n_cells, cells_per_block), coex, allowed)
        if go_levels is not None:
            tasks["go"] = _gene_set_task(store, cells_per_block)
        sizes = _BlockSizes(cells_per_block, groupings_per_block, tasks)
        if sizes.largest.n_bytes <= allowed:
            return sizes
        if sizes.largest is tasks.get("de") and groupings_per_block > 1:
            groupings_per_block = sums.fewer_per_block(groupings_per_block, at_a_time)
        elif begun_with:
            begun_with, groupings_per_block = 0, sums.groupings_per_block(at_a_time)
        elif cells_per_block > 1:
            block_entries //= 2
        else:
            return sizes


def _largest_tasks(
    store: CountStore, cells_per_block: int, groupings_per_block: int, sums: GroupingSums
) -> dict[str, TaskPlan]:
    """Return the largest task of each stage."""
    n_genes, n_covariates = store.n_genes, sums.n_covariates
    block, beside_sums = _block_bytes(store, cells_per_block), _beside_sums(store, cells_per_block, n_covariates)
    per_gene = dense_block_bytes(n_genes, n_covariates + 4, 2 * SPLIT_EVERY)
    tasks = {
        "qc": TaskPlan("sums of a block of counts", block + dense_block_bytes(n_genes, 3, SPLIT_EVERY)),
        "normalisation": TaskPlan("fit of a block of counts", beside_sums + per_gene),
    }
    if sums.n_groupings:
        n_bytes = beside_sums + sums.task_bytes(groupings_per_block)
        tasks["de"] = TaskPlan("genes x groupings sums of a block", n_bytes)
        if sums.single == 4:
            inverse = dense_block_bytes(sums.n_groupings, sums.n_groupings, 4)
            tasks["de"] = max(
                tasks["de"], TaskPlan("inverse of groupings x groupings", inverse), key=lambda task: task.n_bytes
            )
    return tasks


def _block_bytes(store: CountStore, cells_per_block: int) -> int:
    """Return the bytes of a task on a block of counts."""
    return sparse_block_bytes(math.ceil(store.n_entries * cells_per_block / max(1, store.n_cells)))


def _beside_sums(store: CountStore, cells_per_block: int, n_covariates: int) -> int:
    """Return the bytes of a task on a block of counts and rows of its cells, or of one that completes sums of genes."""
    of_genes = min(PIECE_BYTES, dense_block_bytes(store.n_genes, N_NODES * (n_covariates + 2), 1))
    of_cells = dense_block_bytes(n_covariates + 2, cells_per_block, ROWS_OF_CELLS)
    return max(_block_bytes(store, cells_per_block) + of_cells, PIECES * of_genes)


def one_pass_bytes(n_entries: int, n_cells: int) -> int:
    """Return about how many bytes of a store a pass over its counts reads."""
    return int(STORED_ENTRY_BYTES * n_entries) + 8 * n_cells


def _stage_bytes(
    store: CountStore, grouping_blocks: int, n_groupings: int, n_covariates: int
) -> dict[str, tuple[int, int]]:
    """Return about how many bytes each stage reads and writes."""
    n_genes, n_cells = store.n_genes, store.n_cells
    one_pass = one_pass_bytes(store.n_entries, n_cells)
    return {
        "qc": (QC_ROUNDS * one_pass, 17 * (n_genes + n_cells)),
        "normalisation": (4 * one_pass, 8 * (n_covariates + 4) * (n_cells + n_genes)),
        "go": (3 * one_pass, 8 * (n_cells + n_genes)),
        "de": ((2 + grouping_blocks) * one_pass, 48 * n_groupings * n_genes),
    }


def _gene_set_task(store: CountStore, cells_per_block: int) -> TaskPlan:
    """Return the largest task that makes the principal component of a gene set."""
    genes = min(store.n_genes, GENES_OF_SET)
    block = _block_bytes(store, cells_per_block)
    return TaskPlan("products of the genes of a set", block + 4 * 8 * PANEL_VALUES + dense_block_bytes(genes, genes, 3))


def _gene_pair_bytes(store: CountStore, tiles: TilePlan, coex: str | None) -> dict[str, tuple[int, int]]:
    """Return about how many bytes each stage of gene pairs reads and writes; of the edges nobody knows yet."""
    one_pass = one_pass_bytes(store.n_entries, store.n_cells)
    passes, pairs = (1 + len(tiles.groups)) * one_pass, 16 * store.n_genes**2
    return {"coex": (passes, pairs), "edges": (pairs if coex == "all" else passes, 8 * store.n_genes)}
