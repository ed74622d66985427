"""Options and data that all tests share."""

import gc
import io
import logging
import os
import signal
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from distributed import Client, LocalCluster
from hypothesis import settings
from numpy.typing import NDArray
from oracles import PublishedChain

from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.testing import simulate_counts

# The first example of a property may compile kernels, so none has a deadline.
settings.register_profile("fast", deadline=None)
settings.register_profile("slow", deadline=None, max_examples=600)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", default=False, help="run the tests marked slow, too")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in the background of a script; programs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("slow" if config.getoption("--run-slow") else "fast")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: needs --run-slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_collection_finish() -> None:
    """Leave what is imported out of garbage collection, which clients force when they close: half a second each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets, named by NORMALISR_DASK_TEST_DATA."""
    folder = os.environ.get("NORMALISR_DASK_TEST_DATA")
    if not folder:
        pytest.skip("NORMALISR_DASK_TEST_DATA names no folder with the real data")
    return Path(folder)


@pytest.fixture(scope="session")
def pbmc3k(real_data: Path) -> scipy.sparse.csc_array:
    """Counts of the 10x data set pbmc3k, 32,738 genes × 2,700 cells."""
    with tarfile.open(real_data / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        member = archive.extractfile("filtered_gene_bc_matrices/hg19/matrix.mtx")
        return scipy.sparse.csc_array(scipy.io.mmread(io.BytesIO(member.read())))


@pytest.fixture(scope="session")
def pbmc3k_cell_types(real_data: Path) -> NDArray[np.float64]:
    """Which cells are of which published cell type, 0 and 1 (cell types, cells)."""
    labels = pd.read_csv(real_data / "pbmc3k_cell_types.tsv", sep="\t", keep_default_na=False)["cell_type"]
    return pd.get_dummies(labels).to_numpy(dtype=np.float64).T


@pytest.fixture(scope="session")
def pbmc3k_chain(pbmc3k: scipy.sparse.csc_array, pbmc3k_cell_types: NDArray[np.float64]) -> PublishedChain:
    """normalisr on every eighth gene of pbmc3k and all cells: fast, and real."""
    return PublishedChain(pbmc3k[::8].toarray().astype(np.int64), pbmc3k_cell_types, (0, 50, 0.02, 60, 20, 0))


@pytest.fixture(scope="session")
def whole_pbmc3k_chain(pbmc3k: scipy.sparse.csc_array, pbmc3k_cell_types: NDArray[np.float64]) -> PublishedChain:
    """normalisr on all of pbmc3k, with the bounds of its own examples; for slow tests."""
    return PublishedChain(pbmc3k.toarray().astype(np.int64), pbmc3k_cell_types, (0, 50, 0.02, 500, 100, 0))


@pytest.fixture(scope="session")
def simulated_chain() -> PublishedChain:
    """normalisr on simulated cells of two types, with groupings that have a little to do with the types."""
    simulated = simulate_counts(240, 260, seed=7, median_depth=800, decades=2.5, n_cell_types=2)
    random = np.random.default_rng(8)
    groupings = (random.random((6, 260)) < np.where(simulated.cell_types, 0.5, 0.3)).astype(np.float64)
    reads = simulated.counts.toarray().astype(np.int64)
    reads[:, 5] *= 30  # an outlier of variance
    return PublishedChain(reads, groupings, (60, 40, 0.2, 450, 110, 0.45))


@pytest.fixture(scope="session")
def counts() -> NDArray[np.uint32]:
    """A small count matrix, 90 genes × 110 cells, dense; no gene and no cell without counts."""
    dense = simulate_counts(90, 110, seed=3, median_depth=600, decades=2.0).counts.toarray()
    assert dense.any(axis=0).all()
    assert dense.any(axis=1).all()
    dense.flags.writeable = False
    return dense


@pytest.fixture(scope="session")
def count_store(counts: NDArray[np.uint32], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A count store on disk that holds ``counts``."""
    path = tmp_path_factory.mktemp("stores") / "counts.zarr"
    by_cell = scipy.sparse.csr_array(counts.T)
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(counts.shape[1])])
    var = pd.DataFrame(index=[f"gene{number}" for number in range(counts.shape[0])])
    with CountStoreWriter(path, obs=obs, var=var) as writer:
        writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
    return path


@pytest.fixture(scope="session")
def two_workers() -> Iterator[LocalCluster]:
    """Two worker processes with one thread each. It is no default scheduler: the fixture ``client`` makes it one."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        memory_limit=1_000_000_000,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        yield cluster


@pytest.fixture
def client(two_workers: LocalCluster) -> Iterator[Client]:
    """Two worker processes as the default scheduler of one test."""
    with connect(ClusterSettings(scheduler=two_workers.scheduler_address)) as client:
        yield client
