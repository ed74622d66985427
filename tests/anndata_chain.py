"""The chain on AnnData, for tests of different containers, and what counts as the same result."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import scipy.sparse

import normalisr_dask as nd

BOUNDS = {"min_gene_cells": 60, "min_gene_cell_fraction": 0.0, "min_cell_reads": 250, "min_cell_genes": 30}


def run_chain(adata: anndata.AnnData, **options: Any) -> anndata.AnnData:
    """Run quality control, normalisation and both tests in place."""
    nd.pp.qc(adata, **BOUNDS, **options)
    nd.pp.normalise(adata, covariates=["batch"], **options)
    nd.tl.de(adata, "cell_type")
    nd.tl.coex(adata)
    return adata


def write_zarr(adata: anndata.AnnData, path: Path) -> None:
    """Write Zarr v3, without the warnings of anndata and zarr that it is young."""
    with warnings.catch_warnings(), anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False):
        warnings.filterwarnings("ignore", message="Consolidated metadata|The data type")
        adata.write_zarr(path)


def values_of(adata: anndata.AnnData) -> Iterator[tuple[str, Any]]:
    """Yield name and values of everything that was written into the object, dense and in memory."""
    for attribute in ("obs", "var", "obsm", "varm", "varp", "layers"):
        elements = getattr(adata, attribute)
        for name in elements.columns if attribute in {"obs", "var"} else elements:
            values = elements[name]
            if name not in {"cell_type", "symbol"}:
                yield (
                    f"{attribute}[{name!r}]",
                    values.toarray() if scipy.sparse.issparse(values) else np.asarray(values, dtype=float),
                )


def assert_same_results(found: anndata.AnnData, expected: anndata.AnnData, tolerance: float) -> None:
    """Assert that both hold the same keys, and values that agree relative to the largest of a key."""
    found_values, expected_values = dict(values_of(found)), dict(values_of(expected))
    assert set(found_values) == set(expected_values)
    for name, values in expected_values.items():
        largest = np.nanmax(np.abs(values), initial=1e-300)
        np.testing.assert_allclose(found_values[name], values, rtol=0, atol=tolerance * largest, err_msg=name)
