"""Clusters on which commands compute."""

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event, Thread

from distributed import Client, Future, KilledWorker
from rich.console import Console

from normalisr_dask.cli.options import ClusterOptions
from normalisr_dask.cluster import ClusterSettings, LocalOptionsError, connect
from normalisr_dask.process_memory import parse_memory

#: A worker above 80 % of its memory begins no task before it is below; where all are for so long, none will be.
SECONDS_OF_PATIENCE = 60.0


def settings_of(options: ClusterOptions) -> ClusterSettings:
    """Turn what was typed into settings, and names of these into options; reads the amount of memory."""
    values = asdict(options)
    if options.memory_limit is not None:
        values["memory_limit"] = parse_memory(options.memory_limit)
    try:
        return ClusterSettings(**values)
    except LocalOptionsError as error:
        raise LocalOptionsError([f"--{name.replace('_', '-')}" for name in error.names]) from error


@contextmanager
def computing(settings: ClusterSettings, *, patience: float = SECONDS_OF_PATIENCE) -> Iterator[Client]:
    """Connect to the cluster, and say what it means that workers are lost, or begin nothing for so many seconds."""
    ways = "--memory-limit) or have fewer of them (--workers" if settings.is_local else "dask worker --memory-limit"
    way_out = f"give them more memory ({ways}), and run the same command again to go on"
    try:
        with connect(settings) as client, _ended_when_paused(client, patience, way_out):
            if settings.dashboard:
                Console(stderr=True, highlight=False).print(f"dashboard: {client.dashboard_link}", markup=False)
            yield client
    except KilledWorker as error:
        msg = f"workers died over the same task, most likely out of memory, or killed by somebody; {way_out}"
        raise RuntimeError(msg) from error


@contextmanager
def _ended_when_paused(client: Client, patience: float, way_out: str) -> Iterator[None]:
    """Cancel all tasks once every worker has been paused for so many seconds: they would wait for ever."""
    ended, gave_up = Event(), Event()

    def watch() -> None:
        last_hope = time.monotonic()
        while not ended.wait(patience / 10):
            try:
                if not _is_stuck(client):
                    last_hope = time.monotonic()
                elif time.monotonic() - last_hope > patience:
                    gave_up.set()
                    client.cancel([Future(key, client) for key in list(client.futures)])
                    return
            except (OSError, ValueError, RuntimeError, TimeoutError):
                return  # the scheduler is gone; the computation itself will say so

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    except CancelledError as error:
        if not gave_up.is_set():
            raise
        msg = f"for {patience:.0f} seconds all workers have held more memory than lets them begin a task; {way_out}"
        raise RuntimeError(msg) from error
    finally:
        ended.set()
        watcher.join(timeout=10)


def _is_stuck(client: Client) -> bool:
    """Tell whether something is to be done, but every worker is paused and runs nothing."""
    if not any(state.status == "pending" for state in list(client.futures.values())):
        return False
    workers = client.sync(client.scheduler.identity)["workers"].values()
    return len(workers) > 0 and all(
        worker["status"] == "paused" and not worker["metrics"]["task_counts"].get("executing", 0) for worker in workers
    )
