"""nd.tl on AnnData: the same as the functions on arrays, where it writes, and what it refuses."""

import warnings
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from comparing import assert_close, assert_same_p_values

import normalisr_dask as nd
from normalisr_dask.kernels.association import UntestableGroupingWarning


def test_de_is_that_of_the_function(processed: anndata.AnnData, by_functions: SimpleNamespace) -> None:
    assert list(processed.uns["de"]["groupings"]) == by_functions.names
    assert list(processed.uns["de"]["n_cells"]) == list(by_functions.groupings.sum(axis=1))
    kept = {name: processed.varm[f"de_{name}"][by_functions.genes].T for name in ("effect", "se", "pvalue", "qvalue")}
    assert_close(kept["effect"], by_functions.de.gamma, 1e-10)
    assert_close(kept["se"], by_functions.de.se, 1e-10)
    assert_same_p_values(kept["pvalue"], by_functions.de.pvalue, 1e-9)
    assert (kept["qvalue"] >= kept["pvalue"]).all()
    others = np.setdiff1d(np.arange(processed.n_vars), by_functions.genes)
    assert others.size
    assert np.isnan(processed.varm["de_effect"][others]).all()


@pytest.mark.parametrize(
    ("options", "single", "with_reference"),
    [
        ({"reference": "type 1"}, 1, True),
        ({"reference": "type 1", "other_groupings": "ignore"}, 0, True),
        ({"reference": "type 1", "other_groupings": "covariates"}, 4, True),
        ({"other_groupings": "ignore"}, 0, False),
    ],
)
def test_other_groupings(
    options: dict, single: int, with_reference: bool, tested: anndata.AnnData, by_functions: SimpleNamespace
) -> None:
    nd.tl.de(tested, "cell_type", **options)
    rows = [row for row, name in enumerate(by_functions.names) if not (with_reference and name == "type 1")]
    expected = nd.de(by_functions.groupings[rows], by_functions.expression, by_functions.covariates, single=single)
    assert list(tested.uns["de"]["groupings"]) == [by_functions.names[row] for row in rows]
    assert_close(tested.varm["de_effect"][by_functions.genes].T, expected.gamma.compute(), 1e-9)


@pytest.mark.parametrize("kind", ["frame", "sparse", "dense"])
def test_groupings_of_obsm(kind: str, tested: anndata.AnnData) -> None:
    labels = pd.get_dummies(tested.obs["cell_type"]).astype(float)
    names = {"grouping_names": list(labels.columns)}
    match kind:
        case "frame":
            tested.obsm["guides"], names = labels, {}
        case "sparse":
            tested.obsm["guides"] = scipy.sparse.csr_matrix(labels.to_numpy())
        case "dense":
            tested.obsm["guides"] = labels.to_numpy()
    nd.tl.de(tested, groupings_key="guides", key_added="guides", **names)
    pd.testing.assert_frame_equal(nd.get.de_df(tested, key="guides"), nd.get.de_df(tested), rtol=1e-9)


def test_names_of_groupings_are_numbers_where_none_are_given(tested: anndata.AnnData) -> None:
    tested.obsm["two"] = np.arange(tested.n_obs)[:, np.newaxis] % [3, 5] == 0
    nd.tl.de(tested, groupings_key="two")
    assert list(tested.uns["de"]["groupings"]) == ["0", "1"]


def test_many_groupings_go_without_the_records_of_scanpy(tested: anndata.AnnData, tmp_path) -> None:
    random = np.random.default_rng(0)
    tested.obsm["guides"] = scipy.sparse.csr_matrix((random.random((tested.n_obs, 1500)) < 0.1).astype(float))
    nd.tl.de(tested, groupings_key="guides")
    assert "names" not in tested.uns["de"]
    tested.write_h5ad(tmp_path / "many.h5ad")  # which has no room for 1,500 fields


@pytest.mark.parametrize("other_groupings", ["ignore", "exclude"])
def test_groupings_that_cannot_be_tested_are_named(other_groupings: str, tested: anndata.AnnData) -> None:
    is_first = (tested.obs["cell_type"] == "type 1").to_numpy(dtype=float)
    tested.obsm["guides"] = pd.DataFrame({"one": is_first, "absent": 0.0}, index=tested.obs_names)
    message = r"^1 of 2 groupings cannot be tested and have P = 1, the first 'absent': all cells"
    with pytest.warns(UntestableGroupingWarning, match=message) as warned:
        nd.tl.de(tested, groupings_key="guides", other_groupings=other_groupings)
    assert len(warned) == 1
    assert nd.get.de_df(tested, "absent")["pvalue"].eq(1).all()
    assert nd.get.de_df(tested, "one")["pvalue"].lt(1).all()


def test_coex_is_that_of_the_functions(tested: anndata.AnnData, by_functions: SimpleNamespace) -> None:
    nd.tl.coex(tested, all_pairs=True)
    genes = np.ix_(by_functions.genes, by_functions.genes)
    edges = nd.binnet(by_functions.coex.pvalue, 0.05).compute()
    assert edges.any()
    np.testing.assert_array_equal(tested.varp["coex_r"].toarray()[genes] != 0, edges)
    np.testing.assert_array_equal(tested.var["coex_degree"].to_numpy()[by_functions.genes], edges.sum(axis=1))
    assert tested.var["coex_degree"].sum() == tested.varp["coex_qvalue"].nnz
    assert_same_p_values(tested.varp["coex_pvalue"][genes], by_functions.coex.pvalue, 1e-9)
    assert_close(tested.varp["coex_dot"][genes], by_functions.coex.dot, 1e-10)
    assert_close(tested.var["coex_variance"].to_numpy()[by_functions.genes], by_functions.coex.var, 1e-10)
    scale = np.sqrt(np.outer(by_functions.coex.var, by_functions.coex.var))
    correlation = np.where(edges, by_functions.coex.dot / scale, 0.0)
    assert_close(tested.varp["coex_r"].toarray()[genes], correlation, 1e-9)


def test_cells_left_out_after_normalisation(tested: anndata.AnnData, by_functions: SimpleNamespace) -> None:
    """The implicit form knows sums over all cells; of fewer cells the tests must take the expression itself."""
    fewer = tested[tested.obs["cell_type"] != "type 2"].copy()
    nd.tl.de(fewer, "cell_type")
    chosen = np.isin(np.array(by_functions.names)[by_functions.groupings.argmax(axis=0)], ["type 0", "type 1"])
    expected = nd.de(
        by_functions.groupings[:2, chosen],
        by_functions.expression.compute()[:, chosen],
        by_functions.covariates[:, chosen],
    )
    assert_close(fewer.varm["de_effect"][by_functions.genes].T, expected.gamma.compute(), 1e-9)
    assert_same_p_values(fewer.varm["de_pvalue"][by_functions.genes].T, expected.pvalue.compute(), 1e-8)


def test_genes_left_out_and_cells_in_another_order(tested: anndata.AnnData) -> None:
    order = np.random.default_rng(1).permutation(tested.n_obs)
    other = tested[order, np.arange(0, tested.n_vars, 2)].copy()
    nd.tl.de(other, "cell_type")
    np.testing.assert_allclose(other.varm["de_effect"], tested.varm["de_effect"][::2], rtol=1e-8, atol=1e-12)


def test_a_copy_leaves_the_object(tested: anndata.AnnData) -> None:
    before = set(tested.varm)
    copied = nd.tl.de(tested, "cell_type", key_added="other", copy=True)
    assert set(tested.varm) == before
    assert {"other_effect", "other_qvalue"} <= set(copied.varm)


def test_counts_that_became_something_else_are_refused(tested: anndata.AnnData) -> None:
    tested.X = np.log1p(tested.X)
    for test in (lambda: nd.tl.de(tested, "cell_type"), lambda: nd.tl.coex(tested)):
        with pytest.raises(ValueError, match=r"X of the AnnData object: expected counts"):
            test()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda adata: nd.tl.de(adata), "name either a column of obs .groupby. or an element of obsm"),
        (lambda adata: nd.tl.de(adata, "cell_type", groupings_key="guides"), "name either a column of obs"),
        (
            lambda adata: nd.tl.de(adata, "celltype"),
            r"groupby: there is no column 'celltype' .* did you mean 'cell_type'",
        ),
        (
            lambda adata: nd.tl.de(adata, "batch"),
            "groupby: column 'batch' is a covariate .* nd.pp.normalise without it",
        ),
        (
            lambda adata: nd.tl.de(adata, "cell_type", reference="type 9"),
            "reference of column 'cell_type': 'type 9' is",
        ),
        (lambda adata: nd.tl.de(adata, "cell_type", other_groupings="exclud"), "did you mean 'exclude'"),
        (lambda adata: nd.tl.de(adata, groupings_key="guides"), "groupings_key: there is no 'guides' in obsm"),
        (
            lambda adata: nd.tl.de(adata, groupings_key="normalisr_covariates", grouping_names=["a"]),
            "expected 5 grouping_names, one for each column",
        ),
        (
            lambda adata: nd.tl.de(adata, groupings_key="normalisr_covariates", reference="a"),
            "a reference is a label of groupby",
        ),
        (lambda adata: nd.tl.de(adata, "cell_type", normalised_key="other"), "run nd.pp.normalise first"),
        (lambda adata: nd.tl.coex(adata, normalised_key="other"), "no normalised expression under 'other'"),
        (lambda adata: nd.tl.coex(adata, qcut=1.0), "expected qcut between 0 and 1, found 1"),
        (lambda adata: nd.tl.vooma_lm_fit(adata, block="donor"), "block: there is no column 'donor'"),
        (lambda adata: nd.tl.vooma_lm_fit(adata, layer="E"), "there is no layer 'E'"),
    ],
)
def test_bad_input_is_refused(call, message: str, tested: anndata.AnnData) -> None:
    with pytest.raises(ValueError, match=message):
        call(tested)


def test_labels_that_are_covariates_are_refused(adata: anndata.AnnData) -> None:
    nd.pp.normalise(adata, covariates=["cell_type"])
    with pytest.raises(ValueError, match="groupby: column 'cell_type' is a covariate of the normalised expression"):
        nd.tl.de(adata, "cell_type")


def test_a_normalisation_of_which_parts_are_gone_is_refused(tested: anndata.AnnData) -> None:
    without_fit = tested.copy()
    del without_fit.varm["normalisr_fit"]
    with pytest.raises(ValueError, match=r"varm\['normalisr_fit'\].* is gone; run nd\.pp\.normalise again"):
        nd.tl.de(without_fit, "cell_type")
    none_left = tested[~tested.obs["normalisr_kept"].to_numpy()].copy()
    with pytest.raises(ValueError, match="no cell or gene of the AnnData object is left of those in 'normalisr'"):
        nd.tl.de(none_left, "cell_type")


def test_vooma_is_that_of_the_function() -> None:
    random = np.random.default_rng(3)
    obs = pd.DataFrame({"treated": list("aabbaabb"), "donor": list("11223344")}, index=[f"s{i}" for i in range(8)])
    samples = anndata.AnnData(random.normal(5, 1, (8, 60)), obs=obs)
    nd.tl.vooma_lm_fit(samples, "~ treated", sample_weights=True, key_added="fit")
    design = np.column_stack([np.ones(8), obs["treated"] == "b"])
    expected = nd.vooma_lm_fit(samples.X.T, design, sample_weights=True)
    np.testing.assert_allclose(samples.uns["fit"]["coefficients"], expected["coefficients"])
    np.testing.assert_allclose(samples.obs["fit_sample_weight"], expected["targets"]["sample_weights"])
    np.testing.assert_allclose(samples.layers["fit_weights"].T, expected["EList"]["weights"])
    with_blocks = nd.tl.vooma_lm_fit(samples, "~ treated", block="donor", copy=True)
    assert "pylimma" not in samples.uns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the design; told below
        nd.e_bayes(with_blocks)
    assert len(nd.top_table(with_blocks, coef=1)) == 10
