"""The sums of genes × groupings that tests are made of: how large they are, and how many are made together."""

import math
from dataclasses import dataclass

from normalisr_dask.graph.calls import CHAINED_SUM_BYTES, LARGE_SUM_BYTES, SPLIT_EVERY
from normalisr_dask.steps.exclusive import PART_BYTES

#: Bytes of genes × groupings sums that one task makes; and where each task adds to those of the one before.
PRODUCT_BYTES, MOST_SUM_BYTES = 16 << 20, 256 << 20
#: Sums that are there at a time where tasks add to those of the one before: these, their own, and what is made of them.
SUMS_OF_CHAIN = 3
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
