"""Preparing AnnData: which genes and cells to keep, log-CPM, and what normalised expression is made of."""

from collections.abc import Sequence
from typing import Any

import anndata
import dask
import dask.array as da
import numpy as np
import pandas as pd

from normalisr_dask.graph.vectors import in_memory
from normalisr_dask.pipeline import CONSTANT, COVARIATES_OF_LOG_CPM
from normalisr_dask.run_inputs import check_enough_cells
from normalisr_dask.scverse.containers import Positions, column, counts_of, is_lazy, spread, target
from normalisr_dask.scverse.normalised import KEY, Normalisation, dense_layer, store
from normalisr_dask.settings import RunSettings
from normalisr_dask.steps import log_cpm, normalisation, quality_control
from normalisr_dask.steps.expression import LogCpmForm, log_cpm_form, normalised_form, with_form
from normalisr_dask.storage.cell_columns import one_hot_covariates

__all__ = ["lcpm", "normalise", "qc"]

QC_KEY = "qc_pass"


def __dir__() -> list[str]:
    """Show what is meant for users."""
    return __all__


def qc(
    adata: anndata.AnnData,
    *,
    min_gene_reads: int = RunSettings.min_gene_reads,
    min_gene_cells: int = RunSettings.min_gene_cells,
    min_gene_cell_fraction: float = RunSettings.min_gene_cell_fraction,
    min_cell_reads: int = RunSettings.min_cell_reads,
    min_cell_genes: int = RunSettings.min_cell_genes,
    min_cell_gene_fraction: float = RunSettings.min_cell_gene_fraction,
    layer: str | None = None,
    key_added: str = QC_KEY,
    subset: bool = False,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Mark genes and cells that have enough counts, by :func:`normalisr_dask.qc_reads`; computes.

    Parameters
    ----------
    adata : AnnData
        Cells × genes, with UMI counts; in memory, backed or lazy.
    min_gene_reads, min_gene_cells, min_gene_cell_fraction : int, int, float
        Bounds of a gene: total count, cells that express it, their share. 0 is off.
    min_cell_reads, min_cell_genes, min_cell_gene_fraction : int, int, float
        Bounds of a cell: total count, genes expressed, their share. 0 is off.
    layer : str, optional
        Layer with the counts; X if None.
    key_added : str
        Name of the columns.
    subset : bool
        Whether to keep only what passes, as ``subset`` of ``scanpy.pp.highly_variable_genes``; else it is marked only.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written: ``obs[key_added]`` and ``var[key_added]``, bool; ``uns[key_added]``, the bounds.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no such layer, a value is no count, a bound is out of range, or nothing passes.
        If it lies on disk and is a view, to be copied, or to be subset.

    Notes
    -----
    A pass over the counts for each round, 3 to 6 on real data.
    """
    adata = target(adata, copy=copy)
    if subset and adata.isbacked:
        msg = (
            f"AnnData in {adata.filename} cannot be subset in place; leave subset out, and take "
            f"adata[adata.obs[{key_added!r}], adata.var[{key_added!r}]].to_memory()"
        )
        raise ValueError(msg)
    bounds = {
        "min_gene_reads": min_gene_reads,
        "min_gene_cells": min_gene_cells,
        "min_gene_cell_fraction": min_gene_cell_fraction,
        "min_cell_reads": min_cell_reads,
        "min_cell_genes": min_cell_genes,
        "min_cell_gene_fraction": min_cell_gene_fraction,
    }
    genes, cells = quality_control.qc_reads(counts_of(adata, layer), *bounds.values())
    adata.obs[key_added] = spread(np.ones(cells.size, dtype=bool), cells, adata.n_obs)
    adata.var[key_added] = spread(np.ones(genes.size, dtype=bool), genes, adata.n_vars)
    adata.uns[key_added] = bounds | _of_layer(layer)
    if subset:
        adata._inplace_subset_obs(cells)
        adata._inplace_subset_var(genes)
    return adata if copy else None


def lcpm(
    adata: anndata.AnnData, *, layer: str | None = None, key_added: str = "lcpm", copy: bool = False
) -> anndata.AnnData | None:
    """Add log counts per million as a layer, by :func:`normalisr_dask.lcpm`; computes for matrices in memory.

    For plots and for scanpy; :func:`normalise` needs no such layer. All genes and cells of the object are taken,
    whatever :func:`qc` has marked.

    Parameters
    ----------
    adata : AnnData
        Cells × genes, with UMI counts; in memory, backed or lazy.
    layer : str, optional
        Layer with the counts; X if None.
    key_added : str
        Name of what is written.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written: ``layers[key_added]``, natural log of counts per million, float64 and dense; a
        Dask array for counts that are lazy or on disk. ``obsm[f"{key_added}_covariates"]`` (cells, 3): log total
        count, number of genes without counts, (log total count)².

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no such layer, a value is no count, or a cell has no counts.
        If it lies on disk and is a view, or to be copied.

    Notes
    -----
    Memory: cells × genes × 8 bytes for matrices in memory.
    """
    adata = target(adata, copy=copy)
    found = log_cpm.lcpm(counts_of(adata, layer))
    (covariates,) = dask.compute(found.cov)
    adata.layers[key_added] = _as_layer(found.lcpm.T, is_lazy=is_lazy(adata, layer))
    adata.obsm[f"{key_added}_covariates"] = covariates.T
    return adata if copy else None


def normalise(
    adata: anndata.AnnData,
    *,
    covariates: Sequence[str] = (),
    layer: str | None = None,
    qc_key: str = QC_KEY,
    remove_outliers: bool = True,
    key_added: str = KEY,
    layer_added: str | None = None,
    copy: bool = False,
) -> anndata.AnnData | None:
    """Find what mean and variance normalised expression is made of; computes.

    As a run does: log-CPM, its covariates beside those given, cell weights, outliers of these left out, and the fit of
    every gene. The tests of ``tl`` make normalised expression of these and the counts as they go, so that no dense
    layer is needed.

    Parameters
    ----------
    adata : AnnData
        Cells × genes, with UMI counts; in memory, backed or lazy.
    covariates : sequence of str
        Columns of ``obs``: numbers, or labels, which are one-hot encoded.
    layer : str, optional
        Layer with the counts; X if None. They must stay there for the tests.
    qc_key : str
        Columns of ``obs`` and ``var`` that mark what to take, as :func:`qc` writes them; all, where it was not run.
    remove_outliers : bool
        Whether to leave out cells with an outlying weight, as :func:`normalisr_dask.qc_outlier` finds them.
    key_added : str
        Name of what is written.
    layer_added : str, optional
        A name, to have normalised expression as a dense layer, too.
    copy : bool
        Whether to return a changed copy.

    Returns
    -------
    AnnData or None
        None unless ``copy``. Written, NaN for what was not taken, with K for key_added: ``obs["K_kept"]``,
        ``obs["K_log_total_count"]``, ``obs["K_weight"]``, ``obs["K_offset"]``, ``obsm["K_covariates"]``,
        ``obsm["K_normalised_covariates"]``; ``var["K_kept"]``, ``var["K_scaling"]``, ``varm["K_fit"]``; ``uns["K"]``
        with names of covariates and parameters; with ``layer_added`` that layer, float64, a Dask array for counts that
        are lazy or on disk.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If there is no such layer or column, a value is no count, or a cell has no counts.
        If a covariate has missing values or one value only, or covariates leave too few cells.
        If it lies on disk and is a view, or to be copied.

    Notes
    -----
    Some five passes over the counts, O(non-zeros · covariates). Memory: vectors of cells and genes.
    """
    adata = target(adata, copy=copy)
    genes, fitted = _marked(adata, qc_key)
    counts = counts_of(adata, layer, genes=genes, cells=fitted)
    of_log_cpm = log_cpm.lcpm(counts)
    offset, own, scaling = dask.compute(
        log_cpm_form(of_log_cpm.lcpm).cell_offset,  # type: ignore[union-attr]  # of sparse counts
        of_log_cpm.cov,
        log_cpm.scaling_factor(counts),
    )
    names, values = _covariates(adata, covariates, fitted, own)
    standardised = normalisation.normcov(values).compute()
    check_enough_cells(standardised, names)
    weight = normalisation.compute_var(_log_cpm(counts, offset), standardised).compute()
    kept = quality_control.qc_outlier(weight) if remove_outliers else np.ones(weight.size, dtype=bool)
    cells = fitted[kept]
    normalised = normalisation.normvar(
        _log_cpm(counts_of(adata, layer, genes=genes, cells=cells), offset[kept]),
        standardised[:, kept],
        weight[kept],
        scaling,
    )
    fit, of_tests = dask.compute(
        normalised_form(normalised.dtn).fit,  # type: ignore[union-attr]  # of sparse counts
        normalised.dcn,
    )
    found = Normalisation(own[0], weight, offset[kept], standardised[:, kept].T, of_tests.T, scaling, fit)
    facts = {"covariates": np.array([*names, CONSTANT], dtype=str), "remove_outliers": remove_outliers}
    store(adata, key_added, found, genes=genes, fitted=fitted, cells=cells, facts=facts | _of_layer(layer))
    if layer_added is not None:
        adata.layers[layer_added] = _as_layer(dense_layer(adata, key_added), is_lazy=is_lazy(adata, layer))
    return adata if copy else None


def _marked(adata: anndata.AnnData, key: str) -> tuple[Positions, Positions]:
    """Return the positions of genes and cells that quality control has marked; of all, where it was not run."""
    is_marked = any(key in table.columns for table in (adata.obs, adata.var))
    if not is_marked and key == QC_KEY:
        return np.arange(adata.n_vars), np.arange(adata.n_obs)
    genes, cells = (np.flatnonzero(column(table, key, "qc_key").astype(bool)) for table in (adata.var, adata.obs))
    if not genes.size or not cells.size:
        msg = f"{key!r} marks {genes.size:,} genes and {cells.size:,} cells, and there is nothing to normalise"
        raise ValueError(msg)
    return genes, cells


def _covariates(
    adata: anndata.AnnData, columns: Sequence[str], cells: Positions, own: Any
) -> tuple[list[str], np.ndarray]:
    """Return names and values of the covariates given and those of log-CPM, but these with one value in all cells."""
    if isinstance(columns, str):
        msg = f"expected covariates as a list of columns of obs, found the text {columns!r}; give [{columns!r}]"
        raise TypeError(msg)
    given = {name: column(adata.obs, name, "covariates").iloc[cells] for name in columns}
    names, values = one_hot_covariates(pd.DataFrame(given, index=adata.obs_names[cells]))
    varies = own.min(axis=1) < own.max(axis=1)
    own_names = [name for name, keep in zip(COVARIATES_OF_LOG_CPM, varies, strict=True) if keep]
    return [*names, *own_names], np.vstack([values, own[varies]])


def _log_cpm(counts: da.Array, offset: np.ndarray) -> da.Array:
    """Return log-CPM of counts whose offsets are known already."""
    return with_form(LogCpmForm(counts, in_memory(offset, counts.chunks[1])))


def _as_layer(matrix: da.Array, *, is_lazy: bool) -> Any:
    """Return a matrix, cells × genes, as it goes into a layer: computed where the counts are in memory."""
    return matrix if is_lazy else np.ascontiguousarray(matrix.compute())


def _of_layer(layer: str | None) -> dict[str, str]:
    """Return what ``uns`` says of the layer with counts: nothing of X, since h5ad holds no None."""
    return {} if layer is None else {"layer": layer}
