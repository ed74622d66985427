"""What covariates explain, beside the same from dense log-CPM."""

from pathlib import Path

import numpy as np
import pytest

import normalisr_dask as nd
from normalisr_dask.report.normalisation import ALL, OF_COUNTS, explained_shares
from normalisr_dask.report.section import FinishedRun
from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore


def test_explained_shares(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = ResultStore(finished_run)
    monkeypatch.setattr("normalisr_dask.report.normalisation.BLOCK_VALUES", 500)  # several blocks of cells
    shares = explained_shares(FinishedRun(results, Manifest.read(finished_run)))
    assert list(shares) == [ALL, OF_COUNTS, "batch=b", "batch=c", "age"]

    genes = results.read("qc", "gene_kept")
    cells = results.read("qc", "cell_kept")
    counts = open_counts(finished_run.parent / "counts.zarr").matrix.compute().toarray()[np.ix_(genes, cells)]
    log_cpm = nd.lcpm(counts).lcpm.compute()[:, results.read("normalisation", "weight_kept")]
    coefficients, covariates = (results.read("normalisation", name) for name in ("coefficients", "covariates"))
    weights = results.read("normalisation", "cell_weight") ** results.read("normalisation", "gene_scaling")[:, None]
    residual = (weights**2 * (log_cpm - coefficients @ covariates) ** 2).sum(axis=1) / (weights**2).sum(axis=1)
    whole = (coefficients @ covariates).var(axis=1) + residual
    names = results.read("normalisation", "covariate").tolist()
    rows = {
        ALL: range(len(names)),
        OF_COUNTS: [names.index(name) for name in names if "total" in name or "zero" in name],
    }
    for name, found in shares.items():
        members = rows.get(name, [names.index(name)] if name in names else [])
        expected = (coefficients[:, members] @ covariates[members]).var(axis=1) / whole
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-9, err_msg=name)
