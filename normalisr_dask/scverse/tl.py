"""Tests on AnnData: differential expression, co-expression, and linear models of samples."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import anndata
import dask
import numpy as np
import pandas as pd
import scipy.sparse

from normalisr_dask.grouping_tests import SINGLE, warn_of_untestable
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.kernels.multiple_testing import benjamini_hochberg
from normalisr_dask.scverse.containers import Positions, column, in_memory, instead_of, spread, target
from normalisr_dask.scverse.normalised import KEY, NormalisedExpression, normalised_expression
from normalisr_dask.scverse.ranking import ranking
from normalisr_dask.steps import coexpression, differential, network, vooma
from normalisr_dask.storage.cell_columns import groupings_from_column
from normalisr_dask.validation import check_choice

__all__ = ["coex", "de", "vooma_lm_fit"]

#: What of a test is stored, and what the step calls it.
STORED = {"effect": "gamma", "se": "se", "pvalue": "pvalue", "log10_pvalue": "log10_pvalue"}

#: Groupings up to which scanpy's plots are served: theirs are fields of a record, and h5ad has no room for many.
MOST_RANKED = 200


def __dir__() -> list[str]:
    """Show what is meant for users."""
    return __all__


def de(
    adata: anndata.AnnData,
    groupby: str | None = None,
    *,
    reference: str | None = None,
    groupings_key: str | None = None,
    grouping_names: Sequence[str] | None = None,
    other_groupings: Literal["ignore", "exclude", "covariates"] | None = None,
    normalised_key: str = KEY,
    key_added: str = "de",
    copy: bool = False,
) -> anndata.AnnData | None:
    """Test every gene for differential expression in every grouping, by :func:`normalisr_dask.de`; computes.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.pp.normalise` was run.
    groupby : str, optional
        Column of ``obs`` with labels, each of which is a grouping.
    reference : str, optional
        A label whose cells are in no grouping. As in scanpy, each grouping is then compared with these cells alone,
        unless ``other_groupings`` says otherwise.
    groupings_key : str, optional
        In place of ``groupby``: element of ``obsm``, cells × groupings, a DataFrame or a sparse or dense array of 0 and
        1 or any numbers, such as guides.
    grouping_names : sequence of str, optional
        Names of the groupings of an array; "0", "1", … if None.
    other_groupings : {"ignore", "exclude", "covariates"}, optional
        How the test of a grouping treats the others: ignores them, so that it is compared with all other cells; leaves
        out the cells in them (a screen at low MOI); or takes them as covariates (at high MOI). "ignore" if None, with a
        reference "exclude".
    normalised_key : str
        ``key_added`` of :func:`normalisr_dask.pp.normalise`.
    key_added : str
        Name of what is written.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written, with K for key_added: ``varm["K_effect"]`` (difference of log-CPM, natural
        logarithm), ``varm["K_se"]``, ``varm["K_pvalue"]``, ``varm["K_log10_pvalue"]`` and ``varm["K_qvalue"]``
        (Benjamini-Hochberg within a grouping), float64 (genes, groupings), NaN for genes that were not normalised;
        ``uns["K"]`` with groupings, their numbers of cells, params, and, for up to 200 groupings, what
        ``scanpy.pl.rank_genes_groups(adata, key="K")`` reads. :func:`normalisr_dask.get.de_df` makes a table of them.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no normalised expression, column or element, or both or none of ``groupby`` and ``groupings_key``.
        If ``groupby`` is among the covariates of the normalisation.
        If a label is missing, all cells have the same label, the reference is none of them, or numbers of names differ.
        If it lies on disk and is a view, or to be copied.

    Warns
    -----
    UntestableGroupingWarning
        If a grouping has one value in all cells of its test, or covariates determine it.

    Notes
    -----
    Two to three passes over the counts. Memory: five numbers for every gene and grouping.
    """
    adata = target(adata, copy=copy)
    if other_groupings is not None:
        check_choice(other_groupings, tuple(SINGLE), "other_groupings")
    normalised = normalised_expression(adata, normalised_key)
    if groupby is not None and groupings_key is None:
        labels = column(adata.obs, groupby, "groupby").iloc[normalised.cells]
        _refuse_covariate(groupby, adata.uns[normalised_key]["covariates"])
        rows = groupings_from_column(labels, reference)
        names, groupings = list(rows.names), rows.values
    elif groupby is None and groupings_key is not None:
        names, groupings = _of_obsm(adata, groupings_key, grouping_names, normalised.cells)
        if reference is not None:
            msg = "a reference is a label of groupby; with groupings_key, cells of the reference are in no grouping"
            raise ValueError(msg)
    else:
        msg = "name either a column of obs (groupby) or an element of obsm (groupings_key) with what to test"
        raise ValueError(msg)
    treated = other_groupings or ("ignore" if reference is None else "exclude")
    tested = differential.de(groupings, normalised.expression, normalised.covariates, single=SINGLE[treated])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntestableGroupingWarning)  # by position; by name below
        variance, *computed = dask.compute(tested.varg, *(getattr(tested, name) for name in STORED.values()))
    warn_of_untestable(np.array(names, dtype=object), variance)
    tests = dict(zip(STORED, computed, strict=True))
    tests["qvalue"] = benjamini_hochberg(tests["pvalue"], axis=-1)
    of_all = {name: spread(values.T, normalised.genes, adata.n_vars) for name, values in tests.items()}
    for name, values in of_all.items():
        adata.varm[f"{key_added}_{name}"] = values
    params = {"reference": reference or "rest", "method": "normalisr", "other_groupings": treated, "use_raw": False}
    params["groupby" if groupings_key is None else "groupings_key"] = groupby or groupings_key
    found: dict[str, Any] = {
        "params": params,
        "groupings": np.array(names, dtype=str),
        "n_cells": np.asarray((groupings != 0).sum(axis=1), dtype=np.int64).ravel(),
    }
    if len(names) <= MOST_RANKED:
        found |= ranking(names, adata.var_names.to_numpy(dtype=object), of_all)
    adata.uns[key_added] = found
    return adata if copy else None


def _refuse_covariate(groupby: str, covariates: Any) -> None:
    """Refuse a column that normalisation took as a covariate, by its name or one-hot as ``column=label``."""
    names = map(str, np.asarray(covariates))
    if any(name == groupby or name.startswith(f"{groupby}=") for name in names):
        msg = (
            f"groupby: column {groupby!r} is a covariate of the normalised expression, which leaves nothing of it to "
            "test; run nd.pp.normalise without it"
        )
        raise ValueError(msg)


def _of_obsm(adata: anndata.AnnData, key: str, names: Sequence[str] | None, cells: Positions) -> tuple[list[str], Any]:
    """Return names and values, groupings × cells, of an element of obsm."""
    if key not in adata.obsm:
        msg = f"groupings_key: there is no {key!r} in obsm of the AnnData object{instead_of(key, adata.obsm)}"
        raise ValueError(msg)
    values = in_memory(adata.obsm[key])
    if isinstance(values, pd.DataFrame):
        names = list(map(str, values.columns)) if names is None else names
        values = values.to_numpy(dtype=np.float64)
    names = [str(number) for number in range(values.shape[1])] if names is None else list(names)
    if len(names) != values.shape[1] or len(set(names)) < len(names):
        msg = (
            f"expected {values.shape[1]:,} grouping_names, one for each column of obsm[{key!r}], each its own; "
            f"found {len(names):,}, {len(set(names)):,} of them different"
        )
        raise ValueError(msg)
    chosen = values[cells]
    return names, scipy.sparse.csr_array(chosen.T) if scipy.sparse.issparse(chosen) else np.asarray(chosen).T


def coex(
    adata: anndata.AnnData,
    *,
    qcut: float = 0.05,
    all_pairs: bool = False,
    normalised_key: str = KEY,
    key_added: str = "coex",
    copy: bool = False,
) -> anndata.AnnData | None:
    """Test all pairs of genes for co-expression, by :func:`normalisr_dask.coex`, and keep the network; computes.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.pp.normalise` was run.
    qcut : float
        Largest Q-value (Benjamini-Hochberg within the row of a gene) of an edge, between 0 and 1.
    all_pairs : bool
        Whether to keep P-value and mean product of every pair, too: dense matrices.
    normalised_key : str
        ``key_added`` of :func:`normalisr_dask.pp.normalise`.
    key_added : str
        Name of what is written.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written, with K for key_added: ``varp["K_r"]`` and ``varp["K_qvalue"]``, sparse (genes,
        genes), correlation and Q-value of every edge in the row of the gene; ``var["K_degree"]``, edges of the gene;
        ``uns["K"]``. With all_pairs also ``varp["K_pvalue"]`` and ``varp["K_dot"]``, float64 (genes, genes), and
        ``var["K_variance"]``. NaN for genes that were not normalised, and degree 0.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no normalised expression, or ``qcut`` is not between 0 and 1.
        If it lies on disk and is a view, or to be copied.

    Notes
    -----
    Cost: genes² · cells / 2 multiplications. Memory: 24 bytes an edge; with all_pairs also 16 bytes a pair.
    """
    adata = target(adata, copy=copy)
    network.check_qcut(qcut)
    normalised = normalised_expression(adata, normalised_key)
    found = network.network(normalised.expression, normalised.covariates, qcut)
    edges, degree = dask.compute(list(found.edges), found.degree)
    row, gene, r, q_value = (
        np.concatenate([getattr(part, name) for part in edges]) for name in ("row", "column", "r", "q_value")
    )
    shape = (adata.n_vars, adata.n_vars)
    where = normalised.genes[row], normalised.genes[gene]
    for name, values in (("r", r), ("qvalue", q_value)):
        adata.varp[f"{key_added}_{name}"] = scipy.sparse.csr_matrix((values, where), shape=shape)
    of_genes = np.zeros(adata.n_vars, dtype=np.int64)
    of_genes[normalised.genes] = degree
    adata.var[f"{key_added}_degree"] = of_genes
    if all_pairs:
        _keep_all_pairs(adata, key_added, normalised)
    adata.uns[key_added] = {"params": {"qcut": qcut, "normalised_key": normalised_key}}
    return adata if copy else None


def _keep_all_pairs(adata: anndata.AnnData, key: str, normalised: NormalisedExpression) -> None:
    tested = coexpression.coex(normalised.expression, normalised.covariates)
    p_value, dot, variance = dask.compute(*tested)
    for name, values in (("pvalue", p_value), ("dot", dot)):
        of_all = np.full((adata.n_vars, adata.n_vars), np.nan)
        of_all[np.ix_(normalised.genes, normalised.genes)] = values
        adata.varp[f"{key}_{name}"] = of_all
    adata.var[f"{key}_variance"] = spread(variance, normalised.genes, adata.n_vars)


def vooma_lm_fit(
    adata: anndata.AnnData,
    design: Any = None,
    *,
    block: str | None = None,
    sample_weights: bool = False,
    var_group: str | None = None,
    layer: str | None = None,
    key_added: str = "pylimma",
    copy: bool = False,
) -> anndata.AnnData | None:
    """Fit linear models to log-expression of samples, by :func:`normalisr_dask.vooma_lm_fit`; computes.

    Parameters
    ----------
    adata : AnnData
        Samples × genes, with log-expression, such as :func:`normalisr_dask.pseudobulk` makes; in memory, backed or
        lazy.
    design : str, DataFrame or array (samples, columns), optional
        Formula on columns of ``obs``, such as "~ treatment", or a design matrix; a column of ones if None.
    block : str, optional
        Column of ``obs`` with blocks of correlated samples, such as donors.
    sample_weights : bool
        Whether to estimate how precise each sample is.
    var_group : str, optional
        Column of ``obs`` with groups of samples that share a weight; turns ``sample_weights`` on.
    layer : str, optional
        Layer with log-expression; X if None.
    key_added : str
        Name of what is written. :func:`normalisr_dask.e_bayes`, ``contrasts_fit``, ``top_table`` and the others find
        the default by themselves; another one is their ``key``.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written, with K for key_added: ``uns["K"]``, the fit; ``uns["K_trend"]``, span, points and
        line of the trend, and weights of samples; ``layers["K_weights"]``, of observations, a Dask array for lazy
        expression; ``obs["K_sample_weight"]`` with weights of samples.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no such layer or column, or as of :func:`normalisr_dask.vooma_lm_fit`.
        If it lies on disk and is a view, or to be copied.

    Warns
    -----
    UserWarning
        If coefficients are not estimable, blocks have one sample each, or the design tells blocks apart.
    """
    adata = target(adata, copy=copy)
    of_blocks, of_groups = (
        None if name is None else column(adata.obs, name, what).to_numpy()
        for name, what in ((block, "block"), (var_group, "var_group"))
    )
    trend_key = f"{key_added}_trend"
    vooma.vooma_lm_fit(
        adata,
        design,
        block=of_blocks,
        sample_weights=sample_weights,
        var_group=of_groups,
        save_plot=True,
        key=key_added,
        voom_key=trend_key,
        weights_layer=f"{key_added}_weights",
        layer=layer,
    )
    if "sample_weights" in adata.uns[trend_key]:
        adata.obs[f"{key_added}_sample_weight"] = np.asarray(adata.uns[trend_key]["sample_weights"])
    return adata if copy else None
