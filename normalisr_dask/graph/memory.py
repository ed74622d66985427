"""The memory of tasks, projected from the shapes of their blocks before any work starts.

A worker holds its process, and for each of its threads one task with its inputs and temporaries. What a task may use is

    (share of the limit − process) / threads,

with the share below the one at which Dask's workers begin to spill. Block sizes depend on the data's shape alone as
long as they fit, so that the same data give the same bits whatever the cluster; only a small limit makes them smaller.
"""

import math
from dataclasses import dataclass

from dask.utils import format_bytes

from normalisr_dask.wording import counted

#: Share of a worker's memory limit that is planned with: Dask spills from 0.6 on.
USABLE_SHARE = 0.6
#: Python with its libraries and compiled kernels, before any data.
PROCESS_BYTES = 300 << 20
FLOAT_BYTES = 8
#: Limits that are named to people are whole multiples of so many bytes.
LIMIT_STEP = 10_000_000


@dataclass(frozen=True)
class TaskPlan:
    """The largest task of a stage.

    Attributes
    ----------
    name
        What the task does.
    n_bytes
        Projected peak of its memory, in bytes.
    """

    name: str
    n_bytes: int


class TaskTooLargeError(ValueError):
    """A task that does not fit into a worker; says which options of a local cluster to turn.

    Parameters
    ----------
    found
        What the task needs and what is allowed.
    sufficient
        Limit of a worker that suffices, in bytes.
    threads_per_worker
        Tasks a worker runs at a time.

    Attributes
    ----------
    of_started_workers
        The same of workers that others have started, which take no options of ours.
    """

    def __init__(self, found: str, sufficient: int, threads_per_worker: int) -> None:
        limit, several = f"--memory-limit {sufficient / 1e9:.2f}GB or more", threads_per_worker > 1
        super().__init__(f"{found}; give {limit}{', or fewer --threads-per-worker' if several else ''}")
        threads = ", or fewer threads (--nthreads)" if several else ""
        self.of_started_workers = f"{found}; start workers with more memory (dask worker {limit}){threads}"


def task_allowance(memory_limit: int, threads_per_worker: int) -> int:
    """Return the bytes that a task may use.

    Parameters
    ----------
    memory_limit
        Of a worker, in bytes.
    threads_per_worker
        Tasks a worker runs at a time.
    """
    return int((USABLE_SHARE * memory_limit - PROCESS_BYTES) / threads_per_worker)


def sufficient_limit(task: TaskPlan, threads_per_worker: int) -> int:
    """Return the smallest limit of a worker, rounded up as it is named to people, in which a task fits.

    Parameters
    ----------
    task
        What is to fit.
    threads_per_worker
        Tasks a worker runs at a time.
    """
    needed = ((task.n_bytes + 1) * threads_per_worker + PROCESS_BYTES) / USABLE_SHARE
    return LIMIT_STEP * math.ceil(needed / LIMIT_STEP)


def check_fits(task: TaskPlan, memory_limit: int, threads_per_worker: int, *, sufficient: int | None = None) -> None:
    """Refuse a task that would not fit.

    Parameters
    ----------
    task
        What is to fit.
    memory_limit
        Of a worker, in bytes.
    threads_per_worker
        Tasks a worker runs at a time.
    sufficient
        Limit to name, where that of this task may not do: with a larger limit, the largest task may be larger.

    Raises
    ------
    TaskTooLargeError
        With the bytes needed and allowed, and which options to turn.
    """
    allowed = task_allowance(memory_limit, threads_per_worker)
    if task.n_bytes <= allowed:
        return
    enough = sufficient or sufficient_limit(task, threads_per_worker)
    found = (
        f"the largest task ({task.name}) needs {format_bytes(task.n_bytes)}, allowed are "
        f"{format_bytes(max(allowed, 0))} of a worker's {format_bytes(memory_limit)} "
        f"({counted(threads_per_worker, 'thread', 'threads')}, {format_bytes(PROCESS_BYTES)} for the process)"
    )
    raise TaskTooLargeError(found, enough, threads_per_worker)


def sparse_block_bytes(n_entries: int) -> int:
    """Return the bytes of a task on a block of counts: stored, chosen, as float64 deviations, and temporaries."""
    return 64 * n_entries


def dense_block_bytes(n_genes: int, n_cells: int, copies: int) -> int:
    """Return the bytes of ``copies`` dense float64 blocks."""
    return FLOAT_BYTES * n_genes * n_cells * copies
