"""Schedulers and workers with other software than the client's: real processes, whose metadata say so."""

from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest
from dask_programs import fail, running, scheduler_command, start_run, worker_command

from normalisr_dask.cluster import ClusterSettings, connect

pytestmark = pytest.mark.slow

HERE = version("normalisr-dask")
WAY_OUT = "start scheduler and workers in the environment that runs the command"


def other_software(folder: Path, **versions: str) -> dict[str, str]:
    """Return the environment of a program that finds other versions of packages first."""
    for name, number in versions.items():
        metadata = folder / "other" / f"{name}-{number}.dist-info" / "METADATA"
        metadata.parent.mkdir(parents=True)
        metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n")
    return {"PYTHONPATH": str(folder / "other")}


def settings(scheduler_file: Path) -> ClusterSettings:
    return ClusterSettings(scheduler_file=str(scheduler_file), answer_seconds=60)


def test_a_worker_with_another_version_is_one_line(tmp_path):
    path = tmp_path / "scheduler.json"
    other = other_software(tmp_path, normalisr_dask="9.9", numpy="1.26.4")
    with running(*scheduler_command(path)), running(*worker_command(path), **other):
        error = fail(start_run(tmp_path / "counts.zarr", tmp_path / "out", "--scheduler-file", path))
    assert error.startswith("the worker at tcp://127.0.0.1:")
    assert error.endswith(
        f"has numpy 1.26.4, normalisr-dask 9.9, but the command has numpy {version('numpy')}, "
        f"normalisr-dask {HERE}; {WAY_OUT}"
    )
    assert not (tmp_path / "out").exists()


def test_a_scheduler_with_another_version_is_one_line(tmp_path):
    path = tmp_path / "scheduler.json"
    other = other_software(tmp_path, normalisr_dask="9.9")
    message = f"the scheduler at tcp://.* has normalisr-dask 9.9, but the command has normalisr-dask {HERE}; {WAY_OUT}"
    with ExitStack() as stack:
        stack.enter_context(running(*scheduler_command(path), **other))
        stack.enter_context(running(*worker_command(path)))
        stack.enter_context(pytest.raises(ConnectionError, match=message))
        stack.enter_context(connect(settings(path)))


def test_a_worker_that_joins_later_is_turned_away(tmp_path):
    path = tmp_path / "scheduler.json"
    other = other_software(tmp_path, normalisr_dask="9.9")
    message = "the worker at tcp://.* has normalisr-dask 9.9, but the command has .*, and was turned away; start"
    with running(*scheduler_command(path)), running(*worker_command(path)), connect(settings(path)) as client:
        with running(*worker_command(path), **other) as late, pytest.warns(UserWarning, match=message):
            late.wait(timeout=60)
        assert len(client.nthreads()) == 1
        with running(*worker_command(path)):
            client.wait_for_workers(2, timeout=60)
