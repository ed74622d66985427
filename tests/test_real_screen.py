"""The low-MOI screen of Papalexi et al. (2021): guides are assigned, targets found, and controls calibrated."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client

from normalisr_dask.guides import write_guide_groupings
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.ingest import ingest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*have the same value in all cells"),
    pytest.mark.filterwarnings("ignore:.*groupings have fewer than"),
]


@pytest.fixture(scope="module")
def real_settings(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    folder, path = real_data / "papalexi_lowmoi", tmp_path_factory.mktemp("papalexi")
    cells = pd.read_csv(folder / "cells.tsv.gz", sep="\t", index_col=0)
    cells["log_umis"] = np.log(cells["response_n_umis"])  # of all genes, not of the few that are given
    cells[["bio_rep", "p_mito", "log_umis"]].to_csv(path / "cells.tsv", sep="\t")
    (path / "cells.txt").write_text("".join(f"{name}\n" for name in cells.index))
    ingest(
        folder / "genes.mtx.gz",
        path / "counts.zarr",
        genes=folder / "gene_names.txt",
        cells=path / "cells.txt",
        obs=path / "cells.tsv",
    )
    guides = write_guide_groupings(
        folder / "grnas.mtx.gz",
        path / "guides.mtx.gz",
        guide_names=folder / "grna_names.txt",
        cell_names=path / "cells.txt",
    )
    matrix, names, of_cells = map(str, guides.files)
    return RunSettings(
        store=str(path / "counts.zarr"),
        output=str(path / "out"),
        groupings=matrix,
        grouping_names=names,
        grouping_cells=of_cells,
        targets=str(folder / "grna_targets.tsv"),
        control=("non-targeting",),
        other_groupings="exclude",
        covariate_columns=("bio_rep", "p_mito", "log_umis"),
        permutations=1,
        min_gene_cell_fraction=0.0,
        min_cell_reads=0,
        min_cell_genes=10,
    )


def test_targets_are_found_and_controls_are_calibrated(real_settings: RunSettings, client: Client) -> None:
    run(real_settings, client)
    found = pd.read_parquet(Path(real_settings.output) / "de.parquet").set_index(["grouping", "gene"])
    for target in ("STAT1", "JAK2"):
        knocked_down = found.loc[(target, target)]
        assert knocked_down["gamma"] < -0.2
        assert knocked_down["qvalue_all"] < 1e-20
    inflation = xr.open_zarr(Path(real_settings.output) / "results.zarr", group="calibration")["inflation"].load()
    assert inflation.sel(family="control") == pytest.approx(1.0, abs=0.1)
    assert inflation.sel(family="permuted") == pytest.approx(1.0, abs=0.06)
    assert inflation.sel(family="tested") > 1.1


def test_every_guide_of_the_targets_finds_them(real_settings: RunSettings, client: Client) -> None:
    asked = replace(real_settings, test="guides", permutations=0, output=f"{real_settings.output}_guides")
    run(asked, client)
    found = pd.read_parquet(Path(asked.output) / "de.parquet")
    own = found[(found["target"].astype(str) == found["gene"].astype(str)) & found["target"].isin(["STAT1", "JAK2"])]
    assert len(own) >= 6
    assert (own["gamma"] < 0).all()
    assert (own["qvalue"] < 0.05).mean() > 0.7
