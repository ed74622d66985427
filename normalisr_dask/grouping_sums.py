"""The sums of genes × groupings that tests are made of: how large they are, and how many are made together."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from normalisr_dask.graph.calls import CHAINED_SUM_BYTES, LARGE_SUM_BYTES, MOST_LINKS, SPLIT_EVERY, n_ranges
from normalisr_dask.steps.exclusive import PART_BYTES

#: Bytes of genes × groupings sums that one task makes; and where each task adds to those of the one before.
PRODUCT_BYTES, MOST_SUM_BYTES = 16 << 20, 256 << 20
#: Sums that are there at a time where tasks add to those of the one before: these, their own, and what is made of them
#: in turn; measured.
SUMS_OF_CHAIN = 4
#: Parts of the moments of groupings that are there at a time where tests are made of them.
PARTS_OF_TESTS = 8


@dataclass(frozen=True)
class GroupingSums:
    """The sums of genes × groupings over all cells, and how they are shared out.

    Attributes
    ----------
    n_genes, n_groupings, n_covariates, single
        As of the run.
    """

    n_genes: int
    n_groupings: int
    n_covariates: int
    single: int

    @property
    def chained(self) -> bool:
        """Whether a task adds to the sums of the one before it: then any number of groupings gives the same bits."""
        return self.n_bytes(self.n_groupings) >= CHAINED_SUM_BYTES

    def n_bytes(self, n_groupings: int) -> int:
        """Return the bytes of the sums of so many groupings: one number a gene, or several where each is alone."""
        return 8 * self.n_genes * n_groupings * (2 * self.n_covariates + 3 if self.single == 1 else 1)

    def groupings_per_block(self, at_a_time: int) -> int:
        """Return how many groupings a task sums up together, if memory allows: so many that all tasks have some."""
        largest = MOST_SUM_BYTES if self.chained else PRODUCT_BYTES
        n_blocks = math.ceil(self.n_bytes(self.n_groupings) / largest)
        if self.chained:
            n_blocks = math.ceil(n_blocks / at_a_time) * at_a_time
        return max(1, math.ceil(self.n_groupings / max(1, n_blocks)))

    def fewer_per_block(self, groupings_per_block: int, at_a_time: int) -> int:
        """Return how many groupings a task sums up in the next larger number of blocks."""
        n_blocks = math.ceil(self.n_groupings / groupings_per_block) + at_a_time
        return max(1, min(groupings_per_block - 1, math.ceil(self.n_groupings / n_blocks)))

    def task_bytes(self, groupings_per_block: int) -> int:
        """Return the bytes of the largest task beside its block of counts."""
        copies = SUMS_OF_CHAIN if self.chained else SPLIT_EVERY + 3
        return copies * self.n_bytes(groupings_per_block) + (PARTS_OF_TESTS * PART_BYTES if self.single == 1 else 0)

    def blocks_per_submission(self, groupings_per_block: int, cell_blocks: int, at_a_time: int, allowed: int) -> int:
        """Return of how many blocks of groupings the sums that there are at a time take at most half of the memory."""
        if self.single == 4:
            return max(1, math.ceil(self.n_groupings / groupings_per_block))  # each test needs the sums of all
        if self.chained:
            return at_a_time
        sum_bytes = max(1, self.n_bytes(groupings_per_block))
        n_sums = math.ceil(cell_blocks / SPLIT_EVERY) if sum_bytes >= LARGE_SUM_BYTES else cell_blocks
        return max(1, allowed // (2 * n_sums * sum_bytes))


class GroupingBlocks(NamedTuple):
    """How many groupings a task tests together, and of how many the scheduler learns together."""

    per_block: int
    per_submission: int


@dataclass(frozen=True)
class GroupingPlanner:
    """What decides on the groupings that are tested together; with fewer genes these are more.

    Attributes
    ----------
    sums
        Of all genes.
    beside_bytes
        Bytes of the largest task beside its sums.
    cell_blocks
        Blocks of cells.
    at_a_time
        Tasks that run at a time.
    task_bytes
        Bytes that each of them may use.
    total_bytes
        Bytes that the tasks of all workers may use, with one thread each.
    """

    sums: GroupingSums
    beside_bytes: int
    cell_blocks: int
    at_a_time: int
    task_bytes: int
    total_bytes: int

    def blocks(self, n_genes: int, *, begun_with: int = 0) -> GroupingBlocks:
        """Return the most groupings whose sums over so many genes fit into memory.

        Parameters
        ----------
        n_genes
            Genes that are tested.
        begun_with
            Groupings a block of an interrupted run, which are kept if they fit, whatever the number of workers now;
            0 for none.
        """
        sums = replace(self.sums, n_genes=n_genes)
        per_block = begun_with
        if not begun_with or not self._fits(begun_with, sums):
            per_block = sums.groupings_per_block(self.at_a_time)
        while per_block > 1 and not self._fits(per_block, sums):
            per_block = sums.fewer_per_block(per_block, self.at_a_time)
        together = sums.blocks_per_submission(per_block, self.cell_blocks, self.at_a_time, self.total_bytes)
        return GroupingBlocks(per_block, per_block * together)

    def _fits(self, per_block: int, sums: GroupingSums) -> bool:
        return self.beside_bytes + sums.task_bytes(per_block) <= self.task_bytes

    def tasks(self, n_genes: int) -> int:
        """Return about how many tasks the tests are, fitted to what Dask's scheduler has counted in runs."""
        blocks, sums = self.blocks(n_genes), replace(self.sums, n_genes=n_genes)
        n_blocks, ranges = math.ceil(sums.n_groupings / blocks.per_block), n_ranges(self.cell_blocks)
        of_a_block = min(ranges, MOST_LINKS) if sums.chained else self.cell_blocks
        return 8 * ranges + n_blocks * (3 * of_a_block + (250 if self.sums.single == 1 else 60))
