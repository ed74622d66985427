"""Schedulers, workers and runs as processes of their own, for tests of clusters."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
#: For a program to end or to come to a moment, on a busy machine and with kernels still to be compiled.
PROGRAM_SECONDS = 150
MEMORY_LIMIT = "1500MB"


@contextmanager
def running(*command: str | Path, **environment: str) -> Iterator[subprocess.Popen]:
    """Run a process beside the test, and end it."""
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:  # such as a worker that says good-bye to a scheduler it does not reach
            process.kill()
            process.wait(timeout=10)


def dask_command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "dask", *map(str, arguments)]


def scheduler_command(scheduler_file: Path, *options: str | Path, host: str = "127.0.0.1") -> list[str]:
    """Return what starts a scheduler that writes a file with its address."""
    places = ("--host", host, "--port", "0", "--dashboard-address", f"{host}:0", "--no-dashboard")
    return dask_command("scheduler", *places, "--scheduler-file", scheduler_file, *options)


def worker_command(scheduler_file: Path, *options: str | Path, host: str = "127.0.0.1") -> list[str]:
    """Return what starts a worker with one thread; it waits for the scheduler's file."""
    size = ("--nthreads", "1", "--memory-limit", MEMORY_LIMIT, "--local-directory", scheduler_file.parent)
    return dask_command("worker", "--scheduler-file", scheduler_file, "--host", host, "--no-dashboard", *size, *options)


def start_run(store: Path, output: Path, *options: str | Path, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start ``normalisr-dask run`` with a table of guides beside the store."""
    groupings = ("--groupings", store.with_name("guides.tsv.gz"))
    command = (*prefix, PROGRAM, "run", store, "-o", output, *groupings, "--coex", "--no-report", *options)
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait until a run has ended well, and return the lines of its stderr."""
    _, stderr = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 0, stderr
    return stderr.splitlines()


def fail(process: subprocess.Popen[str]) -> str:
    """Wait until a run has failed as it should, and return its error."""
    _, stderr = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr, stderr
    assert stderr.count("normalisr-dask: error: ") == 1
    return stderr.splitlines()[-1].removeprefix("normalisr-dask: error: ")


def wait_until(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait for a moment of a run."""
    give_up = time.monotonic() + PROGRAM_SECONDS
    while not moment():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < give_up, "the moment did not come"
        time.sleep(0.01)


def stages(output: Path) -> list[str]:
    """Return the names of the stages that the manifest calls done."""
    path = output / "manifest.json"
    return list(json.loads(path.read_text())["stages"]) if path.exists() else []


def results(output: Path) -> dict[str, str]:
    """Return a digest of every file of the results."""
    paths = [*output.glob("*.parquet"), *(path for path in (output / "results.zarr").rglob("*") if path.is_file())]
    return {path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
