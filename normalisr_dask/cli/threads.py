"""Threads of this process, where commands compute that need no cluster."""

from collections.abc import Iterator
from contextlib import contextmanager

import dask
import dask.threaded
from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits


@contextmanager
def of_this_process(n_threads: int) -> Iterator[None]:
    """Compute in so many threads, or in as many as there are cores if 0; libraries start none of their own."""
    # given as a function: Dask looks for a cluster, and imports what that takes, where its scheduler is named
    with dask.config.set(scheduler=dask.threaded.get, num_workers=n_threads or CPU_COUNT), threadpool_limits(1):
        yield
