"""The chain on AnnData on disk and lazy, and what was written through files."""

from collections.abc import Callable
from pathlib import Path

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from anndata.experimental import read_lazy
from anndata_chain import BOUNDS, assert_same_results, run_chain, write_zarr

import normalisr_dask as nd
from normalisr_dask.testing import count_computes

LAYOUTS = {"csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix, "dense": lambda counts: counts.toarray()}


@pytest.fixture(scope="module", params=LAYOUTS)
def files(request: pytest.FixtureRequest, original: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells.h5ad and cells.zarr."""
    folder = tmp_path_factory.mktemp(request.param)
    stored = original.copy()
    stored.X = LAYOUTS[request.param](stored.X)
    stored.write_h5ad(folder / "cells.h5ad")
    write_zarr(stored, folder / "cells.zarr")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_in_memory(layout: str, adata: anndata.AnnData, processed: anndata.AnnData) -> None:
    adata.X = LAYOUTS[layout](adata.X)
    assert_same_results(run_chain(adata), processed, 1e-10)


@pytest.mark.parametrize(
    "opened",
    [
        lambda folder: anndata.read_h5ad(folder / "cells.h5ad", backed="r"),
        lambda folder: read_lazy(folder / "cells.h5ad"),
        lambda folder: read_lazy(folder / "cells.zarr"),
    ],
    ids=["backed", "lazy h5ad", "lazy zarr"],
)
def test_on_disk_and_lazy_as_in_memory(opened: Callable, files: Path, processed: anndata.AnnData) -> None:
    adata = run_chain(opened(files))
    pd.testing.assert_frame_equal(nd.get.de_df(adata), nd.get.de_df(processed), rtol=1e-8)
    assert_same_results(adata.to_memory(), processed, 1e-9)


def test_layers_of_what_is_not_in_memory_are_lazy(files: Path, processed: anndata.AnnData) -> None:
    expected = nd.pp.lcpm(processed, copy=True)
    nd.pp.normalise(expected, covariates=["batch"], layer_added="normalised")
    for adata in (anndata.read_h5ad(files / "cells.h5ad", backed="r"), read_lazy(files / "cells.zarr")):
        nd.pp.qc(adata, **BOUNDS)
        nd.pp.lcpm(adata)
        nd.pp.normalise(adata, covariates=["batch"], layer_added="normalised")
        for name in ("lcpm", "normalised"):
            assert isinstance(adata.layers[name], da.Array)
            np.testing.assert_allclose(adata.layers[name].compute(), expected.layers[name], rtol=1e-8, atol=1e-10)


def test_lazy_counts_that_are_none_are_refused_when_computed(files: Path, tmp_path: Path) -> None:
    adata = read_lazy(files / "cells.zarr")
    adata.X = adata.X.map_blocks(np.log1p)
    with pytest.raises(ValueError, match=r"expected counts \(whole numbers, 0 or more\), found"):
        nd.pp.normalise(adata)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_come_back_from_files(suffix: str, tested: anndata.AnnData, tmp_path: Path) -> None:
    path = tmp_path / f"tested.{suffix}"
    if suffix == "h5ad":
        tested.write_h5ad(path)
    else:
        write_zarr(tested, path)
    back = anndata.io.read_h5ad(path) if suffix == "h5ad" else anndata.io.read_zarr(path)
    assert_same_results(back, tested, 0.0)
    pd.testing.assert_frame_equal(nd.get.de_df(back), nd.get.de_df(tested))
    nd.tl.de(back, "cell_type", key_added="again")  # what normalise wrote came back, too
    np.testing.assert_array_equal(back.varm["again_effect"], tested.varm["de_effect"])
    assert back.uns["de"]["names"].dtype.names == tested.uns["de"]["names"].dtype.names
    lazy = read_lazy(path)
    pd.testing.assert_frame_equal(nd.get.de_df(lazy), nd.get.de_df(tested))
    nd.tl.de(lazy, "cell_type", key_added="again")
    np.testing.assert_allclose(lazy.varm["again_effect"], tested.varm["de_effect"], rtol=1e-9)


def test_what_cannot_be_written_on_disk_is_refused(files: Path) -> None:
    backed = anndata.read_h5ad(files / "cells.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"lies on disk cannot be copied .*cells\.h5ad.; give adata\.to_memory"):
        nd.pp.qc(backed, copy=True)
    with pytest.raises(ValueError, match="cannot be written into through a view"):
        nd.pp.qc(backed[:50])
    with pytest.raises(ValueError, match=r"cannot be subset in place; leave subset out, and take adata\["):
        nd.pp.qc(backed, subset=True)
    backed.file.close()
    with pytest.raises(ValueError, match=r"is open for writing, and tasks cannot read it; open it .*backed='r'"):
        nd.pp.qc(anndata.read_h5ad(files / "cells.h5ad", backed="r+"))


def test_building_a_lazy_layer_reads_no_matrix(files: Path) -> None:
    adata = read_lazy(files / "cells.zarr")
    with count_computes() as computes:
        nd.pp.lcpm(adata)
    assert computes.computes == 1  # the covariates
