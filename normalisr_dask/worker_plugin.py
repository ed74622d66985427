"""What every worker is set to before it runs a task."""

import warnings

import scipy.linalg  # noqa: F401  brings its own BLAS, which can be limited once it is loaded
from distributed import Worker
from distributed.diagnostics.plugin import WorkerPlugin
from threadpoolctl import threadpool_limits

from normalisr_dask.kernels.association import UntestableGroupingWarning


class OneThreadInLibraries(WorkerPlugin):
    """Holds a worker's BLAS and OpenMP libraries to one thread, and keeps it from warning where the run does."""

    name = "normalisr-dask-one-thread-in-libraries"

    def setup(self, worker: Worker) -> None:
        """Dask calls this once in every worker, also in those that join later."""
        self.limits = threadpool_limits(limits=1)
        # a run names these groupings itself; a worker knows but their positions
        warnings.filterwarnings("ignore", category=UntestableGroupingWarning)

    def teardown(self, worker: Worker) -> None:
        """Give back the numbers of threads from before."""
        self.limits.restore_original_limits()
