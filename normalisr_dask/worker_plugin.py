"""What every worker is set to before it runs a task."""

import warnings
from typing import Any

import scipy.linalg  # noqa: F401  brings its own BLAS, which can be limited once it is loaded
from dask.typing import Key
from dask.utils import format_bytes
from distributed import Status, Worker
from distributed.diagnostics.plugin import WorkerPlugin
from threadpoolctl import threadpool_limits

from normalisr_dask.graph.memory import task_allowance
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.wording import counted


def turn_away(worker: Worker, why: str, way_out: str) -> None:
    """Have a worker leave before it runs a task."""
    text = f"the worker at {worker.address} {why}, and was turned away; {way_out}"
    worker.log_event("warn", text)  # clients warn of it
    worker.status = Status.paused  # tasks that are on their way go to others
    worker.loop.add_callback(worker.close, reason=text)


class EnoughMemory(WorkerPlugin):
    """Has workers leave that join later with too little memory for what was planned for the others.

    Parameters
    ----------
    task_bytes
        Of the largest task; 0 lets all join.
    """

    name = "normalisr-dask-enough-memory"

    def __init__(self, task_bytes: int) -> None:
        self.task_bytes = task_bytes

    def setup(self, worker: Worker) -> None:
        """Dask calls this before the worker reads a task."""
        limit = worker.memory_manager.memory_limit
        if limit and self.task_bytes and task_allowance(limit, worker.state.nthreads) < self.task_bytes:
            why = f"has {format_bytes(limit)} for {counted(worker.state.nthreads, 'thread', 'threads')}, too little"
            turn_away(worker, f"{why} for blocks as they were planned", "start workers like the first ones")


class WorkerSettings(WorkerPlugin):
    """Holds BLAS and OpenMP to one thread, lets go of what tasks were given, and does not warn where the run does."""

    name = "normalisr-dask-worker-settings"

    def setup(self, worker: Worker) -> None:
        """Dask calls this once in every worker, also in those that join later."""
        self.worker = worker
        self.limits = threadpool_limits(limits=1)
        # a run names these groupings itself; a worker knows but their positions
        warnings.filterwarnings("ignore", category=UntestableGroupingWarning)

    def transition(self, key: Key, start: str, finish: str, **kwargs: Any) -> None:
        """Let go of a task's arguments once its result is there.

        Dask keeps them for as long as it knows of tasks that use the result, and with them the slices of vectors that
        came with the task: those of all cells, in the end. A task that must run again comes with its arguments.
        """
        if finish == "memory" and (task := self.worker.state.tasks.get(key)) is not None:
            task.run_spec = None

    def teardown(self, worker: Worker) -> None:
        """Give back the numbers of threads from before."""
        self.limits.restore_original_limits()
