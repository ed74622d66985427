"""The promises on memory: a run keeps to its plan, and ingest takes the same however large the file."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.sparse
from distributed import Client, Worker, wait

from normalisr_dask.cluster import ClusterSettings, connect, memory_limits, worker_peaks
from normalisr_dask.graph.memory import PROCESS_BYTES, USABLE_SHARE
from normalisr_dask.pipeline import plan, run
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.count_store import open_count_store
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.testing import simulate_counts, write_matrix_market

pytestmark = [pytest.mark.slow, pytest.mark.alone]

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
MEGABYTE = 1_000_000
SAMPLE_SECONDS = 0.01

N_GENES, N_CELLS, N_GROUPINGS = 20_000, 30_000, 50
CELLS_PER_BLOCK = 3_000
N_DONORS = 50
N_WORKERS, WORKER_LIMIT = 2, 1_500 * MEGABYTE
#: What a worker's peak may grow by while it is asked for it once more: a few pages, of which a new peak is made.
AFTER_THE_RUN = MEGABYTE
#: What the process that starts a run may take in it: libraries, vectors of cells, and what it reads of some groupings.
CLIENT_GROWTH = 300 * MEGABYTE

INGEST_LIMIT, INGEST_GROWTH = 700 * MEGABYTE, 100 * MEGABYTE
SMALL_FILE_ENTRIES, LARGE_FILE_ENTRIES = 10_000_000, 40_000_000


# ---- run


@pytest.fixture(scope="module")
def large_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Counts of 30,000 cells with some 2,300 entries each, and of each cell which of 51 guides it carries.

    Drawing all of them would take half a minute; each block is one simulated block of which every cell has lost another
    share of its molecules, so that no two cells are alike.
    """
    random = np.random.default_rng(4)
    simulated = simulate_counts(N_GENES, CELLS_PER_BLOCK, seed=3, median_depth=4500)
    by_cell = scipy.sparse.csr_array(simulated.counts.T)
    guides = [f"guide{number:02d}" for number in range(N_GROUPINGS + 1)]
    obs = pd.DataFrame({"guide": random.choice(guides, N_CELLS)}, index=[f"cell{number}" for number in range(N_CELLS)])
    path = tmp_path_factory.mktemp("memory") / "counts.zarr"
    with CountStoreWriter(path, obs=obs, var=pd.DataFrame(index=simulated.gene_names)) as writer:
        for _ in range(N_CELLS // CELLS_PER_BLOCK):
            kept_shares = np.repeat(random.uniform(0.4, 1.0, CELLS_PER_BLOCK), np.diff(by_cell.indptr))
            block = by_cell.copy()
            block.data = random.binomial(by_cell.data, kept_shares).astype(np.uint32)
            block.eliminate_zeros()
            writer.append(np.diff(block.indptr), block.indices, block.data)
        writer.finalise()
    yield path
    shutil.rmtree(path)


def times_spilled(dask_worker: Worker) -> int:
    """How often this worker has written data to disk since it started, for want of memory."""
    return int(dask_worker.data.cumulative_metrics["disk-write", "count"])


def spill_all(dask_worker: Worker) -> None:
    while dask_worker.data.fast:
        dask_worker.data.evict()


def test_a_run_stays_within_its_plan_and_no_worker_spills_or_dies(large_store: Path, tmp_path: Path) -> None:
    settings = RunSettings(str(large_store), str(tmp_path / "out"), groupby="guide", reference="guide00")
    planned = plan(settings, memory_limit=WORKER_LIMIT, workers=N_WORKERS, threads_per_worker=1)
    projected = PROCESS_BYTES + max(stage.peak_task_bytes for stage in planned.stages) * planned.threads_per_worker
    cluster = ClusterSettings(workers=N_WORKERS, memory_limit=WORKER_LIMIT, local_directory=str(tmp_path / "spilled"))
    with connect(cluster) as client:
        processes = client.run(os.getpid)
        assert list(memory_limits(client).values()) == [WORKER_LIMIT] * N_WORKERS
        summary = run(settings, client)

        peaks = worker_peaks(client)  # before workers import this module, which takes memory, too
        assert client.run(os.getpid) == processes  # a worker that died would be another process now
        assert set(client.run(times_spilled).values()) == {0}
        assert len(peaks) == N_WORKERS
        assert 0 < max(peaks.values()) < summary.peak_worker_bytes + AFTER_THE_RUN
        assert summary.peak_worker_bytes <= projected <= USABLE_SHARE * WORKER_LIMIT
        _assert_spilling_would_have_been_seen(client)

    assert (summary.cells_total, summary.genes_total) == (N_CELLS, N_GENES)
    assert summary.cells_kept > 0.99 * N_CELLS
    assert len(summary.groupings) == N_GROUPINGS


def test_the_command_itself_takes_what_its_plan_says(large_store: Path, tmp_path: Path) -> None:
    settings = RunSettings(str(large_store), str(tmp_path / "out"), groupby="guide", reference="guide00")
    planned = plan(settings, memory_limit=WORKER_LIMIT, workers=N_WORKERS, threads_per_worker=1)
    options = ["--groupby", settings.groupby, "--reference", settings.reference, "--no-report"]
    limits = ["--workers", str(N_WORKERS), "--memory-limit", str(WORKER_LIMIT)]
    command = [PROGRAM, "run", settings.store, "-o", settings.output, *options, *limits]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    stages = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]
    peak = max(stage["peak_client_bytes"] for stage in stages.values())
    assert 0.5 * planned.command_bytes < peak <= planned.command_bytes


def test_reference_controls_stay_within_their_plan(large_store: Path, tmp_path: Path) -> None:
    """Tests of these alone, in their own cells, are the only ones of a run that make blocks dense."""
    controls = tuple(f"guide{number:02d}" for number in range(25))
    tested = {"groupby": "guide", "control": controls, "control_use": "reference", "other_groupings": "exclude"}
    settings = RunSettings(str(large_store), str(tmp_path / "out"), **tested)
    limit = 1_000 * MEGABYTE
    planned = plan(settings, memory_limit=limit, workers=N_WORKERS, threads_per_worker=1)
    cluster = ClusterSettings(workers=N_WORKERS, memory_limit=limit, local_directory=str(tmp_path / "spilled"))
    with connect(cluster) as client:
        run(settings, client)
        assert set(client.run(times_spilled).values()) == {0}
    done = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]["calibration"]
    (calibration,) = (stage for stage in planned.stages if stage.name == "calibration")
    assert 0 < done["peak_worker_bytes"] <= PROCESS_BYTES + calibration.peak_task_bytes <= USABLE_SHARE * limit
    assert "control" in done["note"]


def test_many_covariates_stay_within_their_plan(large_store: Path, tmp_path: Path) -> None:
    """A donor each, say: every gene has a matrix of all pairs of them."""
    cells = pd.Index(open_count_store(large_store).cells(), name="cell")
    donors = np.random.default_rng(1).integers(0, N_DONORS + 1, cells.size)
    table = pd.DataFrame({f"donor{number}": (donors == number).astype(int) for number in range(N_DONORS)}, cells)
    table.to_csv(tmp_path / "donors.tsv", sep="\t")
    tested = {"groupby": "guide", "reference": "guide00", "other_groupings": "exclude"}
    covariates = str(tmp_path / "donors.tsv")
    settings = RunSettings(str(large_store), str(tmp_path / "out"), covariates=covariates, **tested)
    planned = plan(settings, memory_limit=WORKER_LIMIT, workers=N_WORKERS, threads_per_worker=1)
    cluster = ClusterSettings(workers=N_WORKERS, memory_limit=WORKER_LIMIT, local_directory=str(tmp_path / "spilled"))
    with connect(cluster) as client:
        run(settings, client)
        assert set(client.run(times_spilled).values()) == {0}
    done = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]
    projected = 0
    for stage in planned.stages:
        projected = max(projected, PROCESS_BYTES + stage.peak_task_bytes)
        assert 0 < done[stage.name]["peak_worker_bytes"] <= projected <= USABLE_SHARE * WORKER_LIMIT, stage.name


@pytest.fixture(scope="module")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of few genes and many guides, so that sums of pairs and of groupings are what takes memory."""
    random = np.random.default_rng(6)
    simulated = simulate_counts(3_000, 6_000, seed=5, median_depth=4500)
    obs = pd.DataFrame({"guide": random.choice([f"guide{number:03d}" for number in range(301)], 6_000)})
    obs.index = pd.Index(simulated.cell_names)
    path = tmp_path_factory.mktemp("memory") / "small.zarr"
    by_cell = scipy.sparse.csr_array(simulated.counts.T)
    with CountStoreWriter(path, obs=obs, var=pd.DataFrame(index=simulated.gene_names)) as writer:
        writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
    return path


@pytest.mark.parametrize(
    "further",
    [{"coex": True}, {"permutations": 1, "other_groupings": "covariates"}],
    ids=["gene pairs", "joint model and calibration"],
)
def test_every_further_stage_stays_within_its_plan(small_store: Path, tmp_path: Path, further: dict[str, Any]) -> None:
    tested = {} if "coex" in further else {"groupby": "guide", "reference": "guide000", "min_grouping_cells": 1}
    settings = RunSettings(str(small_store), str(tmp_path / "out"), **tested, **further)
    planned = plan(settings, memory_limit=1_000 * MEGABYTE, workers=N_WORKERS, threads_per_worker=1)
    cluster = ClusterSettings(
        workers=N_WORKERS, memory_limit=1_000 * MEGABYTE, local_directory=str(tmp_path / "spilled")
    )
    with connect(cluster) as client:
        client_before = psutil.Process().memory_info().rss
        run(settings, client)
        assert set(client.run(times_spilled).values()) == {0}
    done = json.loads((tmp_path / "out" / "manifest.json").read_text())["stages"]
    assert set(done) == {stage.name for stage in planned.stages}
    projected = 0
    for stage in planned.stages:
        projected = max(projected, PROCESS_BYTES + stage.peak_task_bytes)  # a process may keep what a task has freed
        assert 0 < done[stage.name]["peak_worker_bytes"] <= projected, stage.name
        assert 0 < done[stage.name]["peak_client_bytes"] <= client_before + CLIENT_GROWTH, stage.name


def _assert_spilling_would_have_been_seen(client: Client) -> None:
    held = client.map(np.ones, [1_000, 1_001])
    wait(held)
    client.run(spill_all)
    assert sum(client.run(times_spilled).values()) >= 2


# ---- ingest


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once after the test: the files are large."""
    folder = tmp_path / "disk"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def write_matrix(folder: Path, n_entries: int, *, by_gene: bool) -> list[str]:
    """Write a Matrix Market file and its names, and return what ``ingest`` is to be called with.

    By gene, its entries come in an order that ingest has to sort.
    """
    block = simulate_counts(N_GENES, 500, seed=1).counts
    counts = scipy.sparse.hstack([block] * (n_entries // block.nnz), format="csc")
    assert 0.9 * n_entries < counts.nnz <= n_entries
    folder.mkdir()
    write_matrix_market(folder / "matrix.mtx", counts.T if by_gene else counts)
    for what, number in zip(("genes", "cells"), counts.shape, strict=True):
        (folder / f"{what}.txt").write_text("".join(f"{what}{n}\n" for n in range(number)))
    names = ["--genes", str(folder / "genes.txt"), "--cells", str(folder / "cells.txt")]
    return [str(folder / "matrix.mtx"), str(folder / "counts.zarr"), *names, *(["--transpose"] if by_gene else [])]


def memory_of_tree(process_id: int) -> int:
    """Resident memory of a process and all below it, in bytes; 0 when it has ended."""
    total = 0
    try:
        process = psutil.Process(process_id)
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # one of them has just ended
    return total


def peak_of_ingest(arguments: list[str]) -> int:
    """Run ``ingest`` in a process of its own, and return the most memory that its process tree has held."""
    peak = 0
    with subprocess.Popen([PROGRAM, "ingest", *arguments], stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, memory_of_tree(process.pid))
            time.sleep(SAMPLE_SECONDS)
    assert process.returncode == 0
    return peak


@pytest.mark.parametrize("by_gene", [False, True], ids=["by cell", "by gene"])
def test_ingest_takes_no_more_memory_for_a_larger_file(disk: Path, by_gene: bool) -> None:
    small, large = (
        peak_of_ingest(write_matrix(disk / str(n_entries), n_entries, by_gene=by_gene))
        for n_entries in (SMALL_FILE_ENTRIES, LARGE_FILE_ENTRIES)
    )
    assert small > 100 * MEGABYTE  # or nothing was measured
    assert max(small, large) < INGEST_LIMIT
    assert large - small <= INGEST_GROWTH
