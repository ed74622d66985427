"""Runs on clusters whose parts come, go and fail: the results are those of an undisturbed run, bit by bit.

Schedulers, workers and runs are real processes; hosts are network namespaces.
"""

import json
import os
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from dask_programs import (
    PROGRAM,
    PROGRAM_SECONDS,
    fail,
    finish,
    results,
    running,
    scheduler_command,
    stages,
    start_run,
    wait_until,
    worker_command,
)
from hosts import network
from slurm import slurm
from tls_files import tls_files

from normalisr_dask.testing import simulate_screen, write_cell_ranger_folder

pytestmark = pytest.mark.slow

CLUSTERS = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text(encoding="utf-8")
STAGES = ["qc", "normalisation", "de", "coex", "edges"]


class Undisturbed(NamedTuple):
    """A count store, and what a run on a local cluster makes of it."""

    store: Path
    results: dict[str, str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Large enough for stages of some tenths of a second."""
    folder = tmp_path_factory.mktemp("undisturbed")
    screen = simulate_screen(n_genes=1200, n_cells=3000, n_guides=12, seed=3)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    with running(PROGRAM, "ingest", folder / "matrix", folder / "counts.zarr") as ingest:
        assert ingest.wait(timeout=60) == 0
    finish(start_run(folder / "counts.zarr", folder / "out", "--workers", "2", "--memory-limit", "1500MB"))
    assert stages(folder / "out") == STAGES
    return Undisturbed(folder / "counts.zarr", results(folder / "out"))


def test_less_memory_gives_the_same_results_from_smaller_blocks(whole: Undisturbed, tmp_path: Path) -> None:
    usual, output = whole.store.with_name("out"), tmp_path / "out"
    less_memory = ("--workers", "2", "--memory-limit", "600MB")
    finish(start_run(whole.store, output, *less_memory))
    assert blocks(output) < blocks(usual) / 4
    for stage in STAGES:
        expected, found = (xr.open_zarr(folder / "results.zarr", group=stage).load() for folder in (usual, output))
        for name in expected.data_vars:
            if expected[name].dtype.kind == "f":
                absolute = 0 if name == "pvalue" else 1e-11  # the smallest P-values, too
                np.testing.assert_allclose(found[name], expected[name], rtol=1e-10, atol=absolute, err_msg=name)
            else:
                np.testing.assert_array_equal(found[name], expected[name])

    # begun with less memory, it goes on with more in the same blocks
    interrupted = tmp_path / "interrupted"
    run = start_run(whole.store, interrupted, *less_memory)
    wait_until(lambda: "normalisation" in stages(interrupted), run)
    run.kill()
    run.communicate()
    finish(start_run(whole.store, interrupted, "--workers", "2", "--memory-limit", "1500MB"))
    assert results(interrupted) == results(output) != whole.results


def blocks(output: Path) -> int:
    """Return the cells of a block, which all stages have."""
    (cells,) = {
        stage["cells_per_block"] for stage in json.loads((output / "manifest.json").read_text())["stages"].values()
    }
    return int(cells)


def test_workers_join_and_leave(whole: Undisturbed, tmp_path: Path) -> None:
    output, scheduler_file = tmp_path / "out", tmp_path / "scheduler.json"
    with ExitStack() as cluster:
        cluster.enter_context(running(*scheduler_command(scheduler_file)))
        first = cluster.enter_context(running(*worker_command(scheduler_file)))
        run = start_run(whole.store, output, "--scheduler-file", scheduler_file)
        wait_until(lambda: "qc" in stages(output), run)
        first.terminate()  # says good-bye; with nobody left, work waits
        cluster.enter_context(running(*worker_command(scheduler_file)))
        second = cluster.enter_context(running(*worker_command(scheduler_file)))
        wait_until(lambda: "de" in stages(output), run)
        second.kill()  # does not
        cluster.enter_context(running(*worker_command(scheduler_file)))
        finish(run)
        assert first.poll() is not None
    assert stages(output) == STAGES
    assert results(output) == whole.results


def test_a_worker_with_too_little_memory_that_joins_later_is_turned_away(whole: Undisturbed, tmp_path: Path) -> None:
    output, scheduler_file = tmp_path / "out", tmp_path / "scheduler.json"
    with ExitStack() as cluster:
        cluster.enter_context(running(*scheduler_command(scheduler_file)))
        cluster.enter_context(running(*worker_command(scheduler_file, "--memory-limit", "1500MB")))
        run = start_run(whole.store, output, "--scheduler-file", scheduler_file)
        wait_until(lambda: "qc" in stages(output), run)
        with running(*worker_command(scheduler_file, "--memory-limit", "400MB")) as small:
            small.wait(timeout=PROGRAM_SECONDS)
        cluster.enter_context(running(*worker_command(scheduler_file, "--memory-limit", "1500MB")))
        (warning,) = (line for line in finish(run) if "turned away" in line)
    assert re.search(r"the worker at tcp://\S+ has 381.47 MiB for 1 thread, too little for blocks as", warning)
    assert stages(output) == STAGES
    assert results(output) == whole.results


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_scheduler_that_ends_is_one_line_and_another_goes_on(whole: Undisturbed, tmp_path: Path, end: int) -> None:
    output = tmp_path / "out"
    scheduler_file = tmp_path / "first.json"
    with running(*scheduler_command(scheduler_file)) as scheduler, running(*worker_command(scheduler_file)):
        run = start_run(whole.store, output, "--scheduler-file", scheduler_file)
        wait_until(lambda: "normalisation" in stages(output), run)
        scheduler.send_signal(end)
        error = fail(run)
    assert error.startswith("the Dask scheduler at tcp://127.0.0.1:")
    assert error.endswith(" went away; run the same command again, with a running scheduler, to go on")
    done = stages(output)
    assert done in (STAGES[:2], STAGES[:3])

    scheduler_file = tmp_path / "second.json"
    with running(*scheduler_command(scheduler_file)), running(*worker_command(scheduler_file)):
        lines = finish(start_run(whole.store, output, "--scheduler-file", scheduler_file))
    assert ["done earlier" in line for line in lines] == [stage in done for stage in STAGES]
    assert results(output) == whole.results


def test_everything_encrypted(whole: Undisturbed, tmp_path: Path) -> None:
    output, scheduler_file = tmp_path / "out", tmp_path / "scheduler.json"
    files = tls_files(tmp_path)
    options = ("--protocol", "tls", *files.dask_options())
    environment = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"}
    with (
        running(*scheduler_command(scheduler_file, *options), **environment),
        running(*worker_command(scheduler_file, *options), **environment),
    ):
        finish(start_run(whole.store, output, "--scheduler-file", scheduler_file, *files.options()))
    assert results(output) == whole.results


def test_a_host_that_is_cut_off(whole: Undisturbed, tmp_path: Path) -> None:
    output, scheduler_file = tmp_path / "out", tmp_path / "scheduler.json"
    # Dask's own patience is of minutes
    patience = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "5s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
    with network(4) as lan, ExitStack() as cluster:
        first, *others = lan.hosts
        command = (*first.prefix, *scheduler_command(scheduler_file, host=first.address))
        cluster.enter_context(running(*command, **patience))
        for host in others:
            command = (*host.prefix, *worker_command(scheduler_file, host=host.address))
            cluster.enter_context(running(*command, **patience))
        run = start_run(whole.store, output, "--scheduler-file", scheduler_file, prefix=first.prefix)
        wait_until(lambda: "de" in stages(output), run)
        lan.cut_off(others[0])
        finish(run)
    assert results(output) == whole.results


def test_the_job_script_of_the_docs(whole: Undisturbed, tmp_path: Path) -> None:
    scripts = [text for text in re.findall(r"```bash\n(.*?)```", CLUSTERS, flags=re.DOTALL) if "#SBATCH" in text]
    assert len(scripts) == 1
    (tmp_path / "job.sh").write_text(scripts[0])
    for path in (whole.store, whole.store.with_name("guides.tsv.gz")):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "slurm").mkdir()
    smaller = ("--ntasks=2", "--mem-per-cpu=2G", "--wait")
    with slurm(tmp_path / "slurm") as environment:
        done = subprocess.run(
            ["sbatch", *smaller, "job.sh"],
            cwd=tmp_path,
            env=os.environ | environment | {"PATH": f"{Path(PROGRAM).parent}:{os.environ['PATH']}"},
            timeout=PROGRAM_SECONDS,
            check=False,
        )
    assert done.returncode == 0, [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert stages(tmp_path / "results") == ["qc", "normalisation", "de"]
    assert results(tmp_path / "results")["de.parquet"] == whole.results["de.parquet"]
