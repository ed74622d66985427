"""Where a command computes: on a cluster, or in threads of its own process."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

import dask
from dask.system import CPU_COUNT
from distributed import Client, KilledWorker
from rich.console import Console
from threadpoolctl import threadpool_limits

from normalisr_dask.cli.messages import PROGRAM
from normalisr_dask.cli.options import ClusterOptions
from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.process_memory import parse_memory


def settings_of(options: ClusterOptions) -> ClusterSettings:
    """Turn what was typed into settings; reads the amount of memory."""
    values = asdict(options)
    if options.memory_limit is not None:
        values["memory_limit"] = parse_memory(options.memory_limit)
    return ClusterSettings(**values)


@contextmanager
def computing(settings: ClusterSettings) -> Iterator[Client]:
    """Connect to the cluster, and say what the loss of a worker means."""
    try:
        with connect(settings) as client:
            if settings.dashboard:
                Console(stderr=True, highlight=False).print(f"dashboard: {client.dashboard_link}", markup=False)
            yield client
    except KilledWorker as error:
        msg = (
            "workers died over the same task, most likely out of memory; "
            "give them more (--memory-limit) or have fewer of them (--workers), and run the same command again to go on"
        )
        raise RuntimeError(msg) from error


@contextmanager
def computing_in_threads(cluster: ClusterOptions, n_threads: int) -> Iterator[None]:
    """Compute in threads of this process, as many as there are cores if 0; on a cluster where one was asked for."""
    if cluster != ClusterOptions():
        with computing(settings_of(cluster)):
            yield
        return
    with dask.config.set(scheduler="threads", num_workers=n_threads or CPU_COUNT), threadpool_limits(1):
        yield


def log_to_stderr() -> None:
    """Tell on stderr what this program does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger(__package__.partition(".")[0])
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
