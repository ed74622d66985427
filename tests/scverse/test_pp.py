"""nd.pp on AnnData: the same as the functions on arrays, where it writes, and what it refuses."""

from types import SimpleNamespace

import anndata
import numpy as np
import pytest
import scipy.sparse
from anndata_chain import BOUNDS

import normalisr_dask as nd


def test_qc_marks_what_qc_reads_keeps(adata: anndata.AnnData) -> None:
    assert nd.pp.qc(adata, **BOUNDS, key_added="good") is None
    genes, cells = nd.qc_reads(scipy.sparse.csc_array(adata.X.T), 0, 60, 0.0, 250, 30, 0)
    assert 0 < cells.size < adata.n_obs
    assert 0 < genes.size < adata.n_vars
    np.testing.assert_array_equal(np.flatnonzero(adata.obs["good"]), cells)
    np.testing.assert_array_equal(np.flatnonzero(adata.var["good"]), genes)
    assert adata.uns["good"]["min_cell_reads"] == 250


def test_qc_subsets_in_place_or_a_copy(adata: anndata.AnnData) -> None:
    marked = nd.pp.qc(adata, **BOUNDS, copy=True)
    smaller = nd.pp.qc(adata, **BOUNDS, subset=True, copy=True)
    assert "qc_pass" not in adata.obs
    assert smaller.shape == (marked.obs["qc_pass"].sum(), marked.var["qc_pass"].sum())
    assert nd.pp.qc(adata, **BOUNDS, subset=True) is None
    assert adata.shape == smaller.shape
    assert adata.obs["qc_pass"].all()


def test_lcpm_is_that_of_the_function(adata: anndata.AnnData) -> None:
    nd.pp.lcpm(adata)
    expected = nd.lcpm(scipy.sparse.csc_array(adata.X.T))
    assert type(adata.layers["lcpm"]) is np.ndarray
    np.testing.assert_array_equal(adata.layers["lcpm"], expected.lcpm.T.compute())
    np.testing.assert_array_equal(adata.obsm["lcpm_covariates"], expected.cov.T.compute())


def test_normalise_finds_what_the_functions_find(processed: anndata.AnnData, by_functions: SimpleNamespace) -> None:
    np.testing.assert_array_equal(np.flatnonzero(processed.obs["normalisr_kept"]), by_functions.cells)
    np.testing.assert_array_equal(np.flatnonzero(processed.var["normalisr_kept"]), by_functions.genes)
    weights = processed.obs["normalisr_weight"].to_numpy()
    np.testing.assert_allclose(weights[by_functions.cells], by_functions.weights, rtol=1e-12)
    n_fitted = processed.obs["qc_pass"].sum()
    assert np.count_nonzero(~np.isnan(weights)) == n_fitted > by_functions.cells.size
    assert list(processed.uns["normalisr"]["covariates"]) == [
        "batch",
        "log_total_count",
        "n_zero_genes",
        "log_total_count_squared",
        "constant",
    ]


def test_a_dense_layer_only_if_asked_for(
    processed: anndata.AnnData, adata: anndata.AnnData, by_functions: SimpleNamespace
) -> None:
    assert not processed.layers
    nd.pp.qc(adata, **BOUNDS)
    nd.pp.normalise(adata, covariates=["batch"], layer_added="normalised")
    layer = adata.layers["normalised"]
    assert layer.shape == adata.shape
    np.testing.assert_allclose(
        layer[np.ix_(by_functions.cells, by_functions.genes)].T, by_functions.expression.compute(), atol=1e-10
    )
    assert np.isnan(layer).sum() == layer.size - by_functions.cells.size * by_functions.genes.size


def test_without_quality_control_all_are_taken(adata: anndata.AnnData) -> None:
    nd.pp.normalise(adata, remove_outliers=False, key_added="all")
    assert adata.obs["all_kept"].all()
    assert adata.var["all_kept"].all()


def test_counts_of_a_layer_and_of_dense_arrays(adata: anndata.AnnData, processed: anndata.AnnData) -> None:
    adata.layers["counts"] = adata.X.toarray()
    adata.X = np.log1p(adata.X)
    for step in (nd.pp.qc, nd.pp.lcpm, nd.pp.normalise):
        with pytest.raises(ValueError, match=r"X of the AnnData object: expected counts .*from the layer that"):
            step(adata)
    nd.pp.qc(adata, **BOUNDS, layer="counts")
    nd.pp.normalise(adata, covariates=["batch"], layer="counts")
    nd.tl.de(adata, "cell_type")
    np.testing.assert_allclose(adata.varm["de_effect"], processed.varm["de_effect"], rtol=1e-9)


def test_counts_stay_as_they_are(adata: anndata.AnnData, original: anndata.AnnData, processed: anndata.AnnData) -> None:
    nd.pp.lcpm(adata)
    for changed in (adata, processed):
        assert (changed.X != original.X).nnz == 0


def test_a_view_becomes_an_object_of_its_own(adata: anndata.AnnData) -> None:
    view = adata[adata.obs["batch"] == 0]
    with pytest.warns(anndata.ImplicitModificationWarning):
        nd.pp.qc(view, **BOUNDS)
    assert not view.is_view
    assert {"qc_pass"} <= set(view.obs) & set(view.var)
    assert "qc_pass" not in adata.obs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda adata: nd.pp.qc(adata.X),
            "expected an AnnData object, found csr_matrix; for arrays there are",
        ),
        (
            lambda adata: nd.pp.qc(adata, min_cell_reads=10**9),
            "expected some cells to pass quality control, found none",
        ),
        (lambda adata: nd.pp.qc(adata, min_cell_gene_fraction=2), "ntp_cell must lie between 0 and 1, not 2"),
        (
            lambda adata: nd.pp.lcpm(adata, layer="raw"),
            "there is no layer 'raw' in the AnnData object, which has none",
        ),
        (lambda adata: nd.pp.normalise(adata, qc_key="mine"), "qc_key: there is no column 'mine'"),
        (
            lambda adata: nd.pp.normalise(adata, covariates=["Batch"]),
            "covariates: there is no column 'Batch'.* did you mean 'batch'",
        ),
        (lambda adata: nd.pp.normalise(adata, covariates="batch"), r"list of columns of obs, .*give \['batch'\]"),
        (lambda adata: nd.pp.lcpm(anndata.AnnData(obs=adata.obs)), "the AnnData object has neither X nor layers"),
    ],
)
def test_bad_input_is_refused(call, message: str, adata: anndata.AnnData) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call(adata)
