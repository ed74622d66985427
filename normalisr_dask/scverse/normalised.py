"""Normalised expression inside AnnData: the few vectors that say how it follows from the counts, and back from these.

It is never stored itself. Log-CPM is the counts and an offset a cell; normalised expression adds a weight and
covariates of every cell, and a scaling and a fit of every gene.
"""

from typing import Any, NamedTuple

import anndata
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.scverse.containers import Positions, column, counts_of, in_memory, spread
from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, with_form
from normalisr_dask.validation import listing

Floats = NDArray[np.float64]
KEY = "normalisr"


class Normalisation(NamedTuple):
    """How normalised expression follows from counts.

    Attributes
    ----------
    log_total_count, weight : float64 (fitted cells,)
        Of all cells whose variance was fitted.
    offset : float64 (cells,)
        What log-CPM subtracts.
    covariates, normalised_covariates : float64 (cells, covariates)
        As from ``normcov`` and as from ``normvar``.
    scaling : float64 (genes,)
    fit : float64 (genes, covariates + 2)
        Coefficients, variance factor, and sum of squares over the cells.
    """

    log_total_count: Floats
    weight: Floats
    offset: Floats
    covariates: Floats
    normalised_covariates: Floats
    scaling: Floats
    fit: Floats


class NormalisedExpression(NamedTuple):
    """Normalised expression of the genes and cells that were kept.

    Attributes
    ----------
    expression : float64 (genes, cells)
        Lazy; with its implicit form, where the cells are those it was fitted on.
    covariates : float64 (covariates, cells)
        Normalised.
    genes, cells : int64
        Positions in the AnnData object.
    """

    expression: da.Array
    covariates: Floats
    genes: Positions
    cells: Positions


def store(
    adata: anndata.AnnData,
    key: str,
    found: Normalisation,
    *,
    genes: Positions,
    fitted: Positions,
    cells: Positions,
    facts: dict[str, Any],
) -> None:
    """Write a normalisation of genes and cells (positions), out of the cells whose variance was fitted."""
    n_cells, n_genes = adata.shape
    adata.obs[f"{key}_kept"] = spread(np.ones(cells.size, dtype=bool), cells, n_cells)
    adata.obs[f"{key}_log_total_count"] = spread(found.log_total_count, fitted, n_cells)
    adata.obs[f"{key}_weight"] = spread(found.weight, fitted, n_cells)
    adata.obs[f"{key}_offset"] = spread(found.offset, cells, n_cells)
    adata.obsm[f"{key}_covariates"] = spread(found.covariates, cells, n_cells)
    adata.obsm[f"{key}_normalised_covariates"] = spread(found.normalised_covariates, cells, n_cells)
    adata.var[f"{key}_kept"] = spread(np.ones(genes.size, dtype=bool), genes, n_genes)
    adata.var[f"{key}_scaling"] = spread(found.scaling, genes, n_genes)
    adata.varm[f"{key}_fit"] = spread(found.fit, genes, n_genes)
    adata.uns[key] = {**facts, "n_cells": int(cells.size)}


def normalised_expression(adata: anndata.AnnData, key: str) -> NormalisedExpression:
    """Return the normalised expression that :func:`normalisr_dask.pp.normalise` described.

    Raises
    ------
    ValueError
        If it has not, or some of what it wrote is gone; or the counts are gone or are counts no more.

    Notes
    -----
    Cells that were left out since lead to dense blocks: the sums of squares of the fit are those of all cells.
    """
    form, covariates, genes, cells = _form(adata, key)
    n_fitted = int(adata.uns[key]["n_cells"])
    expression = with_form(form) if cells.size == n_fitted else form.to_dask()
    return NormalisedExpression(expression, covariates, genes, cells)


def dense_layer(adata: anndata.AnnData, key: str) -> da.Array:
    """Return normalised expression, cells × genes, of the whole object, NaN for what was not kept; lazy."""
    everything = np.arange(adata.n_vars), np.arange(adata.n_obs)
    return _form(adata, key, kept=everything)[0].to_dask().T


def _form(
    adata: anndata.AnnData, key: str, *, kept: tuple[Positions, Positions] | None = None
) -> tuple[NormalisedForm, Floats, Positions, Positions]:
    """Return the form of the kept genes and cells (positions), the normalised covariates, and these positions."""
    _check_there(adata, key)
    layer = adata.uns[key].get("layer")
    of_cells = {name: column(adata.obs, f"{key}_{name}", "normalised expression") for name in ("offset", "weight")}
    scaling = column(adata.var, f"{key}_scaling", "normalised expression").to_numpy(dtype=np.float64)
    if kept is None:
        tables = adata.var, adata.obs
        kept = tuple(  # type: ignore[assignment]  # of two
            np.flatnonzero(column(table, f"{key}_kept", "normalised expression").astype(bool)) for table in tables
        )
    genes, cells = kept  # type: ignore[misc]  # not None any more
    if not genes.size or not cells.size:
        msg = f"no cell or gene of the AnnData object is left of those in {key!r}; run nd.pp.normalise again"
        raise ValueError(msg)
    counts = counts_of(adata, layer, genes=genes, cells=cells)
    offset, weight = (
        da.from_array(values.to_numpy(dtype=np.float64)[cells], chunks=(counts.chunks[1],))
        for values in of_cells.values()
    )
    covariates, normalised = (
        np.ascontiguousarray(in_memory(adata.obsm[f"{key}_{name}"])[cells].T)
        for name in ("covariates", "normalised_covariates")
    )
    form = NormalisedForm.of_fit(
        LogCpmForm(counts, offset),
        da.from_array(covariates, chunks=(-1, counts.chunks[1])),
        weight,
        da.from_array(scaling[genes], chunks=-1),
        da.from_array(in_memory(adata.varm[f"{key}_fit"])[genes], chunks=-1),
    )
    return form, normalised, genes, cells


def _check_there(adata: anndata.AnnData, key: str) -> None:
    if key not in adata.uns:
        msg = (
            f"there is no normalised expression under {key!r} in the AnnData object; run nd.pp.normalise first "
            "(normalised_key names its key_added)"
        )
        raise ValueError(msg)
    there = {f"obsm[{name!r}]" for name in adata.obsm} | {f"varm[{name!r}]" for name in adata.varm}
    needed = [f"obsm['{key}_covariates']", f"obsm['{key}_normalised_covariates']", f"varm['{key}_fit']"]
    missing = [name for name in needed if name not in there]
    if missing:
        msg = f"of the normalised expression {key!r}, {listing(missing)} is gone; run nd.pp.normalise again"
        raise ValueError(msg)
