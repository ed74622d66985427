"""Workers of a local cluster that are killed come back, however long that takes, and while they start, too."""

import os
import signal
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

from normalisr_dask.cluster import ClusterSettings, cluster_size, connect

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS, LIMIT = 60, 600_000_000
#: Dask gives up a worker that has not come back after 15 seconds.
SECONDS_WITHOUT_WORKERS = 17.0


def worker_processes() -> list[psutil.Process]:
    """Return the worker processes that this process has started."""
    return [child for child in psutil.Process().children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    """Tell by its command; one that has just been killed has none."""
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def worker_process(*, other_than: int = 0) -> psutil.Process:
    """Wait for a worker process that this process has started."""
    give_up = time.monotonic() + SECONDS
    while time.monotonic() < give_up:
        for child in worker_processes():
            if child.pid != other_than:
                return child
        time.sleep(0.01)
    msg = "no worker process has started"
    raise TimeoutError(msg)


def die_five_times(folder: Path) -> int:
    """Kill the process that runs this, and count how often."""
    times = len(list(folder.iterdir()))
    if times < 5:
        (folder / str(times)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return times


def test_a_worker_that_is_killed_again_before_it_has_started_comes_back() -> None:
    with connect(ClusterSettings(workers=1, memory_limit=LIMIT)) as client:
        process = worker_process()
        assert client.submit(os.getpid, pure=False).result() == process.pid
        end = time.monotonic() + SECONDS_WITHOUT_WORKERS
        while time.monotonic() < end:
            process.kill()
            process = worker_process(other_than=process.pid)
            time.sleep(0.3)
        assert client.submit(os.getpid, pure=False).result(SECONDS) == process.pid


@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6, 0.9])
def test_a_worker_that_is_killed_while_it_starts_ends_nothing(seconds: float) -> None:
    def kill_one() -> None:
        process = worker_process()
        time.sleep(seconds)
        process.kill()

    killer = Thread(target=kill_one)
    killer.start()
    with connect(ClusterSettings(workers=1, memory_limit=LIMIT)) as client:
        assert cluster_size(client) == (1, 1, LIMIT)
        killer.join()
        assert client.submit(abs, -1).result(SECONDS) == 1
    assert worker_processes() == []


def test_the_size_of_a_cluster_waits_for_workers_that_have_all_been_killed() -> None:
    with connect(ClusterSettings(workers=1, memory_limit=LIMIT)) as client:
        worker_process().kill()
        assert cluster_size(client) == (1, 1, LIMIT)


def test_a_task_is_done_though_it_has_lost_five_workers(tmp_path: Path) -> None:
    with connect(ClusterSettings(workers=2, memory_limit=LIMIT)) as client:
        assert client.submit(die_five_times, tmp_path).result(SECONDS) == 5
