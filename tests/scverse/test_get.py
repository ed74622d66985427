"""nd.get.de_df, and the records that scanpy reads."""

import math

import anndata
import numpy as np
import pandas as pd
import pytest

import normalisr_dask as nd

OF_RECORDS = ("scores", "logfoldchanges", "pvals", "pvals_adj")


def test_a_table_of_one_grouping(processed: anndata.AnnData) -> None:
    table = nd.get.de_df(processed, "type 1")
    assert list(table.columns) == ["gene", "effect", "se", "pvalue", "log10_pvalue", "qvalue"]
    assert len(table) == processed.var["normalisr_kept"].sum()
    assert table["log10_pvalue"].is_monotonic_increasing
    assert (table["qvalue"] >= table["pvalue"]).all()
    gene = table["gene"][0]
    assert table["effect"][0] == processed[:, gene].varm["de_effect"][0, 1]


def test_a_table_of_some_and_of_all(processed: anndata.AnnData) -> None:
    some = nd.get.de_df(processed, ["type 2", "type 0"])
    assert list(some["grouping"].unique()) == ["type 2", "type 0"]
    everything = nd.get.de_df(processed)
    assert len(everything) == 1.5 * len(some)
    one = everything[everything["grouping"] == "type 1"].drop(columns="grouping").reset_index(drop=True)
    pd.testing.assert_frame_equal(one, nd.get.de_df(processed, "type 1"))


def test_cuts_and_symbols(processed: anndata.AnnData) -> None:
    whole = nd.get.de_df(processed, "type 1")
    table = nd.get.de_df(processed, "type 1", qcut=0.05, effect_min=-0.5, effect_max=0.5, gene_symbols="symbol")
    chosen = (whole["qvalue"] <= 0.05) & whole["effect"].between(-0.5, 0.5)
    assert 0 < len(table) == chosen.sum() < len(whole)
    assert list(table["symbol"]) == [gene.upper() for gene in whole["gene"][chosen]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda adata: nd.get.de_df(adata, "typ 1"), "grouping 'typ 1' is not one of .*did you mean 'type 1'"),
        (lambda adata: nd.get.de_df(adata, []), "expected some groupings, found an empty list"),
        (lambda adata: nd.get.de_df(adata, key="other"), "there are no tests under 'other'.* run nd.tl.de first"),
        (lambda adata: nd.get.de_df(adata, "type 1", gene_symbols="name"), "gene_symbols: there is no column 'name'"),
        (lambda adata: nd.get.de_df(adata.obs, "type 1"), "expected an AnnData object, found DataFrame"),
    ],
)
def test_bad_input_is_refused(call, message: str, processed: anndata.AnnData) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        call(processed)


def test_the_records_are_those_of_the_table(processed: anndata.AnnData) -> None:
    records = processed.uns["de"]
    tested = processed.var["normalisr_kept"].sum()
    assert tested < processed.n_vars == records["names"].size
    for grouping in records["groupings"]:
        found = {name: records[name][grouping][:tested] for name in ("names", *OF_RECORDS)}
        table = nd.get.de_df(processed, grouping).set_index("gene").loc[found["names"]]
        assert (np.diff(found["scores"]) <= 0).all()
        np.testing.assert_allclose(found["scores"], table["effect"] / table["se"], rtol=1e-6)
        np.testing.assert_allclose(found["logfoldchanges"], table["effect"] / math.log(2), rtol=1e-6)
        np.testing.assert_array_equal(found["pvals"], table["pvalue"])
        np.testing.assert_array_equal(found["pvals_adj"], table["qvalue"])
        assert all(np.isnan(records[name][grouping][tested:]).all() for name in OF_RECORDS)


def test_scanpy_reads_and_draws_them(processed: anndata.AnnData) -> None:
    scanpy = pytest.importorskip("scanpy", reason="scanpy is not installed")
    table = scanpy.get.rank_genes_groups_df(processed, "type 1", key="de").dropna()
    ours = nd.get.de_df(processed, "type 1").set_index("gene").loc[table["names"]]
    np.testing.assert_array_equal(table["pvals"], ours["pvalue"])
    assert len(scanpy.pl.rank_genes_groups(processed, key="de", n_genes=5, show=False)) == 3
    drawn = scanpy.pl.rank_genes_groups_dotplot(
        processed, key="de", n_genes=3, values_to_plot="logfoldchanges", dendrogram=False, show=False
    )
    assert "mainplot_ax" in drawn
