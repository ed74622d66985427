"""Runs on counts at the edge of what can be normalised: it works, or one line says why it cannot."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client

from normalisr_dask.pipeline import plan, run
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.ingest import ingest

NO_BOUNDS = {
    "min_gene_cells": 0,
    "min_gene_cell_fraction": 0.0,
    "min_cell_reads": 0,
    "min_cell_genes": 0,
    "min_grouping_cells": 0,
}


def asked(folder: Path, counts: np.ndarray, **options) -> RunSettings:
    """Write a count store, with every other cell of a kind, and return the settings of a run on it."""
    genes, cells = (
        [f"{what}{number}" for number in range(size)] for what, size in zip("gc", counts.shape, strict=True)
    )
    pd.DataFrame(counts, index=genes, columns=cells).to_csv(folder / "counts.tsv", sep="\t")
    kinds = pd.Series(np.where(np.arange(len(cells)) % 2, "odd", "even"), index=cells, name="kind")
    kinds.to_csv(folder / "cells.tsv", sep="\t")
    ingest(folder / "counts.tsv", folder / "counts.zarr", obs=folder / "cells.tsv")
    settings = {"groupby": "kind", "reference": "even"} | NO_BOUNDS | options
    return RunSettings(store=str(folder / "counts.zarr"), output=str(folder / "out"), **settings)


def normalisation(settings: RunSettings) -> xr.Dataset:
    return xr.open_zarr(Path(settings.output) / "results.zarr", group="normalisation").load()


def test_cells_with_as_many_genes_each(tmp_path: Path, client: Client) -> None:
    random = np.random.default_rng(0)
    counts = random.poisson(3, size=(30, 80)) + 1
    counts[np.argsort(random.random(counts.shape), axis=0)[:6], np.arange(80)] = 0
    settings = asked(tmp_path, counts)
    run(settings, client)
    names = normalisation(settings)["covariate"].values.tolist()
    assert names == ["log_total_count", "log_total_count_squared", "constant"]


def test_cells_with_as_many_counts_each(tmp_path: Path, client: Client) -> None:
    counts = np.random.default_rng(1).multinomial(60, np.full(30, 1 / 30), size=80).T
    settings = asked(tmp_path, counts)
    run(settings, client)
    assert normalisation(settings)["covariate"].values.tolist() == ["n_zero_genes", "constant"]


def test_every_gene_in_every_cell(tmp_path: Path, client: Client) -> None:
    settings = asked(tmp_path, np.random.default_rng(2).poisson(9, size=(30, 60)) + 1)
    run(settings, client)
    assert (normalisation(settings)["gene_scaling"] == 0).all()
    assert np.isfinite(xr.open_zarr(Path(settings.output) / "results.zarr", group="de")["pvalue"]).all()


def test_too_few_cells_for_the_covariates(tmp_path: Path, client: Client) -> None:
    settings = asked(tmp_path, np.random.default_rng(3).poisson(2, size=(30, 5)) + np.eye(30, 5, dtype=int))
    with pytest.raises(ValueError, match=r"expected more cells after quality control than 5, for .* found 5"):
        run(settings, client)


@pytest.mark.parametrize("cell", [3, 17, 40])
def test_a_batch_of_one_cell_loses_it(tmp_path: Path, client: Client, cell: int) -> None:
    """Its covariate explains all of it, so that its weight is an outlier."""
    counts = np.random.default_rng(5).poisson(np.geomspace(0.3, 30, 80)[:, None], size=(80, 60))
    batches = pd.DataFrame(
        {"batch": np.where(np.arange(60) == cell, "small", "large")}, index=[f"c{n}" for n in range(60)]
    )
    batches.to_csv(tmp_path / "batches.tsv", sep="\t", index_label="cell")
    settings = asked(tmp_path, counts, covariates=str(tmp_path / "batches.tsv"))
    run(settings, client)
    kept = normalisation(settings)
    assert f"c{cell}" not in kept["cell"]
    assert kept.sizes["cell"] >= 55


def test_cells_without_counts_are_named(tmp_path: Path, client: Client) -> None:
    counts = np.random.default_rng(4).poisson(2, size=(30, 40)) + 1
    counts[:, [5, 9]] = 0
    with pytest.raises(ValueError, match=r"2 cells have no counts, the first 'c5', .* --min-cell-reads 1"):
        run(asked(tmp_path, counts), client)


def test_a_plan_for_the_folder_of_another_run_is_refused(tmp_path: Path, client: Client) -> None:
    settings = asked(tmp_path, np.random.default_rng(5).poisson(2, size=(30, 60)) + 1)
    run(settings, client)
    other = RunSettings(**vars(settings) | {"min_cell_reads": 1})
    with pytest.raises(ValueError, match="another run"):
        plan(other, memory_limit=10**9, workers=1, threads_per_worker=1)
