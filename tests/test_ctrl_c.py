"""Ctrl-C while a local cluster starts, works, has a new worker, and ends."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.alone]

SECONDS = 60
#: Dask gives a cluster that is half closed ten.
SECONDS_TO_END = 8.0
PROGRAM = """
import sys, time
from normalisr_dask.cluster import ClusterSettings, connect

if __name__ == "__main__":
    try:
        with connect(ClusterSettings(workers=1, memory_limit=600_000_000)) as client:
            try:
                print("started", flush=True)
                tasks = client.map(time.sleep, [float(sys.argv[1])])
                time.sleep(10)
                client.gather(tasks)
            finally:
                print("ends", flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


class Run:
    """The program in a group of processes of its own, as a terminal starts it."""

    def __init__(self, folder: Path, seconds_of_task: float) -> None:
        path = folder / "program.py"
        path.write_text(PROGRAM)
        self.process = subprocess.Popen(
            [sys.executable, path, str(seconds_of_task)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        self.children: set[psutil.Process] = set()

    def line(self) -> str:
        """Wait for a line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def worker(self, *, other_than: psutil.Process | None = None) -> psutil.Process:
        """Wait for a worker process."""
        give_up = time.monotonic() + SECONDS
        while time.monotonic() < give_up:
            self.children.update(psutil.Process(self.process.pid).children(recursive=True))
            for child in self.children - {other_than}:
                if is_worker(child):
                    return child
            time.sleep(0.01)
        msg = "no worker process has started"
        raise TimeoutError(msg)

    def press_ctrl_c(self) -> None:
        """Send what a terminal sends to every process of the group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def expect_silent_end(self) -> str:
        """Wait for the end, and return what was printed before."""
        printed, errors = self.process.communicate(timeout=SECONDS)
        assert errors == ""
        assert self.process.returncode == 130
        _, alive = psutil.wait_procs(self.children, timeout=5)
        assert alive == []
        return printed


def is_worker(process: psutil.Process) -> bool:
    """Tell by its command; one that has just been killed has none."""
    try:
        return any("spawn_main" in word for word in process.cmdline())
    except psutil.Error:
        return False


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    run = Run(tmp_path, getattr(request, "param", 0.0))
    yield run
    if run.process.poll() is None:
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.communicate()


@pytest.mark.parametrize("run", [60.0], indirect=True)
def test_it_ends_a_cluster_that_works_and_says_nothing(run: Run) -> None:
    run.worker()
    assert run.line() == "started"
    run.press_ctrl_c()
    assert run.expect_silent_end() == "ends\n"


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_it_is_not_lost_while_workers_start(run: Run, seconds: float) -> None:
    run.worker()
    time.sleep(seconds)
    run.press_ctrl_c()
    assert run.expect_silent_end() == ""


@pytest.mark.parametrize("seconds", [0.05, 0.3, 0.8])
def test_it_does_not_reach_a_worker_that_has_come_back(run: Run, seconds: float) -> None:
    killed = run.worker()
    assert run.line() == "started"
    killed.kill()
    run.worker(other_than=killed)
    time.sleep(seconds)
    run.press_ctrl_c()
    assert run.expect_silent_end() == "ends\n"


def test_a_second_one_does_not_come_between_while_the_cluster_ends(run: Run) -> None:
    run.worker()
    assert run.line() == "started"
    run.press_ctrl_c()
    assert run.line() == "ends"
    time.sleep(0.1)
    second = time.monotonic()
    run.press_ctrl_c()
    assert run.expect_silent_end() == ""
    assert time.monotonic() - second < SECONDS_TO_END
