"""Clusters on which commands compute."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from distributed import Client, KilledWorker
from rich.console import Console

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
        remedy = (
            "--memory-limit) or have fewer of them (--workers" if settings.is_local else "dask worker --memory-limit"
        )
        msg = (
            "workers died over the same task, most likely out of memory; "
            f"give them more ({remedy}), and run the same command again to go on"
        )
        raise RuntimeError(msg) from error
