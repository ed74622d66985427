"""Workers of a local cluster that are killed come back, however long that takes."""

import os
import time

import psutil
import pytest

from normalisr_dask.cluster import ClusterSettings, connect

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS = 60
#: Dask gives up a worker that has not come back after 15 seconds.
SECONDS_WITHOUT_WORKERS = 17.0


def worker_process(*, other_than: int = 0) -> psutil.Process:
    """Wait for a worker process that this process has started."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        for child in psutil.Process().children():
            if child.pid != other_than and any("spawn_main" in word for word in child.cmdline()):
                return child
        time.sleep(0.01)
    msg = "no worker process has started"
    raise TimeoutError(msg)


def test_a_worker_that_is_killed_again_before_it_has_started_comes_back() -> None:
    with connect(ClusterSettings(workers=1, memory_limit=600_000_000)) as client:
        process = worker_process()
        assert client.submit(os.getpid, pure=False).result() == process.pid
        end = time.monotonic() + SECONDS_WITHOUT_WORKERS
        while time.monotonic() < end:
            process.kill()
            process = worker_process(other_than=process.pid)
            time.sleep(0.3)
        assert client.submit(os.getpid, pure=False).result(SECONDS) == process.pid
