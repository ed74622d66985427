"""AnnData that all tests of this folder start from, and the same chain by the functions on arrays."""

from collections.abc import Iterator
from types import SimpleNamespace

import anndata
import dask
import matplotlib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata_chain import run_chain
from matplotlib import pyplot

import normalisr_dask as nd
from normalisr_dask.testing import simulate_counts

N_CELLS, N_GENES = 260, 150


@pytest.fixture(scope="session")
def original() -> anndata.AnnData:
    """Counts of cells of three types and two batches; one cell has an outlying variance."""
    simulated = simulate_counts(N_GENES, N_CELLS, seed=5, median_depth=700, decades=2.5, n_cell_types=3)
    counts = scipy.sparse.csr_matrix(simulated.counts.T)
    counts.data[counts.indptr[5] : counts.indptr[6]] *= 30
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([f"type {number}" for number in simulated.cell_types]),
            "batch": np.arange(N_CELLS) % 2,
        },
        index=simulated.cell_names,
    )
    var = pd.DataFrame({"symbol": [name.upper() for name in simulated.gene_names]}, index=simulated.gene_names)
    return anndata.AnnData(counts.astype(np.float32), obs=obs, var=var)


@pytest.fixture
def adata(original: anndata.AnnData) -> anndata.AnnData:
    return original.copy()


@pytest.fixture(scope="session")
def processed(original: anndata.AnnData) -> anndata.AnnData:
    """After qc, normalise, de by cell type and coex; not to be changed."""
    return run_chain(original.copy())


@pytest.fixture
def tested(processed: anndata.AnnData) -> anndata.AnnData:
    return processed.copy()


@pytest.fixture(scope="session")
def by_functions(original: anndata.AnnData) -> SimpleNamespace:
    """The same chain by the functions on arrays."""
    counts = scipy.sparse.csc_array(original.X.T)
    genes, cells = nd.qc_reads(counts, 0, 60, 0.0, 250, 30, 0)
    batch = original.obs["batch"].to_numpy(dtype=float)
    log_cpm = nd.lcpm(counts[genes][:, cells])
    covariates = nd.normcov(np.vstack([batch[cells], log_cpm.cov.compute()])).compute()
    weights = nd.compute_var(log_cpm.lcpm, covariates).compute()
    kept = nd.qc_outlier(weights)
    assert 0 < np.count_nonzero(~kept) < 5
    # log-CPM of a cell depends on no other cell
    expression, normalised = nd.normvar(
        nd.lcpm(counts[genes][:, cells[kept]]).lcpm,
        covariates[:, kept],
        weights[kept],
        nd.scaling_factor(counts[genes][:, cells]),
    )
    cells = cells[kept]
    types = original.obs["cell_type"].astype(str).to_numpy()[cells]
    names = sorted(set(types))
    groupings = np.array([types == name for name in names], dtype=float)
    return SimpleNamespace(
        genes=genes,
        cells=cells,
        weights=weights[kept],
        expression=expression,
        covariates=normalised,
        names=names,
        groupings=groupings,
        de=dask.compute(nd.de(groupings, expression, normalised))[0],
        coex=dask.compute(nd.coex(expression, normalised))[0],
    )


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    """Draw into memory, and close what was drawn."""
    matplotlib.use("agg")
    yield
    pyplot.close("all")
