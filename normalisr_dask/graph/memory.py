"""The memory of tasks, projected from the shapes of their blocks before any work starts.

A worker holds its process, and for each of its threads one task with its inputs and temporaries. What a task may use is

    (share of the limit − process) / threads,

with the share below the one at which Dask's workers begin to spill. Block sizes depend on the data's shape alone as
long as they fit, so that the same data give the same bits whatever the cluster; only a small limit makes them smaller.
"""

from dataclasses import dataclass

from dask.utils import format_bytes

#: Share of a worker's memory limit that is planned with: Dask spills from 0.6 on.
USABLE_SHARE = 0.6
#: Python with its libraries, before any data.
PROCESS_BYTES = 300 << 20
FLOAT_BYTES = 8


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


def check_fits(task: TaskPlan, memory_limit: int, threads_per_worker: int) -> None:
    """Refuse a task that would not fit.

    Raises
    ------
    ValueError
        With the bytes needed and allowed, and which options to turn.
    """
    allowed = task_allowance(memory_limit, threads_per_worker)
    if task.n_bytes <= allowed:
        return
    needed = int((task.n_bytes * threads_per_worker + PROCESS_BYTES) / USABLE_SHARE) + (1 << 20)
    fewer_threads = ", or fewer --threads-per-worker" if threads_per_worker > 1 else ""
    msg = (
        f"the largest task ({task.name}) needs {format_bytes(task.n_bytes)}, allowed are "
        f"{format_bytes(max(allowed, 0))} of a worker's {format_bytes(memory_limit)} ({threads_per_worker} threads, "
        f"{format_bytes(PROCESS_BYTES)} for the process); give --memory-limit {needed / 1e9:.2f}GB or more"
        f"{fewer_threads}"
    )
    raise ValueError(msg)


def sparse_block_bytes(n_entries: int) -> int:
    """Return the bytes of a task on a block of counts: stored, chosen, as float64 deviations, and temporaries."""
    return 64 * n_entries


def dense_block_bytes(n_genes: int, n_cells: int, copies: int) -> int:
    """Return the bytes of ``copies`` dense float64 blocks."""
    return FLOAT_BYTES * n_genes * n_cells * copies
