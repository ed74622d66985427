"""Normalised expression of a run, lazy, from its count store and what the stage ``normalisation`` has stored."""

from dataclasses import replace
from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.vectors import in_memory, in_one_chunk, long_chunks
from normalisr_dask.schema import stage_of_level
from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, with_form
from normalisr_dask.steps.normalisation import normalised_covariates
from normalisr_dask.storage.counts import Counts, default_cells_per_block
from normalisr_dask.storage.result_store import ResultStore


class StoredExpression(NamedTuple):
    """Normalised expression of the genes and cells that a run has kept.

    Attributes
    ----------
    expression : float64 (genes, cells)
        Lazy, with its implicit form.
    covariates : float64 (covariates, cells)
        Normalised as the expression is; lazy.
    cells : int64 (cells,)
        Positions of the cells in the count store.
    """

    expression: da.Array
    covariates: da.Array
    cells: NDArray[np.int64]


def stored_expression(
    results: ResultStore, counts: Counts, *, chosen: NDArray[np.int64] | None = None
) -> StoredExpression:
    """Return the normalised expression of a run.

    Parameters
    ----------
    results
        With the stages ``qc`` and ``normalisation``.
    counts
        Of the whole store.
    chosen
        Positions of some of the kept cells, ascending; None for all. The expression of some cells is a dense array,
        since the sums of squares of its form are those of all cells.
    """
    genes = np.flatnonzero(results.read("qc", "gene_kept"))
    cells = np.flatnonzero(results.read("qc", "cell_kept"))[results.read("normalisation", "weight_kept")]
    names = ("log_cpm_offset", "covariates", "cell_weight", "coefficients", "variance_factor", "sum_of_squares")
    stored = {name: results.read("normalisation", name) for name in (*names, "gene_scaling")}
    kept = np.arange(cells.size) if chosen is None else chosen
    if chosen is not None:  # blocks become dense ones
        counts = replace(counts, cells_per_block=min(counts.cells_per_block, default_cells_per_block(counts.store)))
    counts = counts.subset(genes=genes, cells=cells[kept])
    in_chunks = long_chunks(counts.chunks, 8 * len(stored["covariates"]))
    offset, covariates, cell_weight = (
        in_memory(stored[name][..., kept], in_chunks) for name in ("log_cpm_offset", "covariates", "cell_weight")
    )
    form = NormalisedForm.of_fit(
        LogCpmForm(counts.matrix, offset),
        covariates,
        cell_weight,
        in_one_chunk(stored["gene_scaling"]),
        da.from_array(
            np.column_stack([stored[name] for name in ("coefficients", "variance_factor", "sum_of_squares")]), chunks=-1
        ),
    )
    if chosen is None:
        return StoredExpression(with_form(form), normalised_covariates(covariates, cell_weight, cat=1), cells)
    of_all = (da.from_array(stored[name], chunks=-1) for name in ("covariates", "cell_weight"))
    # Which covariates are categories is seen from all cells.
    normalised = normalised_covariates(*of_all, cat=1)[:, kept].rechunk(covariates.chunks)
    return StoredExpression(form.to_dask(), normalised, cells[kept])


def expression_of_level(results: ResultStore, counts: Counts, level: int) -> tuple[da.Array, da.Array]:
    """Return normalised expression and the covariates of a level: a principal component more for each level before.

    Parameters
    ----------
    results
        With the stages ``qc`` and ``normalisation``, and ``go`` of all levels before.
    counts
        Of the whole store.
    level
        Number of gene sets removed before.
    """
    expression, covariates, _ = stored_expression(results, counts)
    if level == 0:
        return expression, covariates
    components = np.vstack([results.read(stage_of_level("go", before), "component") for before in range(level)])
    further = in_memory(components, covariates.chunks[1])
    return expression, da.concatenate([covariates, further]).rechunk({0: -1})


def log_cpm_of(counts: Counts, offset: NDArray[np.float64]) -> LogCpmForm:
    """Return log-CPM of counts whose offsets are known already."""
    return LogCpmForm(counts.matrix, in_memory(offset, counts.chunks))
