"""What every worker is set to before it runs a task."""

import warnings
from typing import Any

import scipy.linalg  # noqa: F401  brings its own BLAS, which can be limited once it is loaded
from dask.typing import Key
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin
from threadpoolctl import threadpool_limits

from normalisr_dask.kernels.association import UntestableGroupingWarning


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
