"""Normalised expression of a run, lazy, from its count store and what the stage ``normalisation`` has stored."""

from typing import NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, with_form
from normalisr_dask.steps.normalisation import normalised_covariates
from normalisr_dask.storage.counts import Counts
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


def stored_expression(results: ResultStore, counts: Counts) -> StoredExpression:
    """Return the normalised expression of a run; ``counts`` are those of its whole store."""
    genes = np.flatnonzero(results.read("qc", "gene_kept"))
    positions = {name: position for position, name in enumerate(counts.cells)}
    cells = np.array([positions[name] for name in results.read("normalisation", "cell")], dtype=np.int64)
    counts = counts.subset(genes=genes, cells=cells)
    names = ("covariates", "cell_weight", "coefficients", "variance_factor", "sum_of_squares", "gene_scaling")
    stored = {name: results.read("normalisation", name) for name in names}
    covariates, cell_weight = (
        da.from_array(stored[name], chunks=(*stored[name].shape[:-1], counts.chunks))
        for name in ("covariates", "cell_weight")
    )
    fit = np.column_stack([stored[name] for name in ("coefficients", "variance_factor", "sum_of_squares")])
    form = NormalisedForm.of_fit(
        log_cpm_of(counts, results.read("normalisation", "log_cpm_offset")),
        covariates,
        cell_weight,
        da.from_array(stored["gene_scaling"], chunks=-1),
        da.from_array(fit, chunks=-1),
    )
    return StoredExpression(with_form(form), normalised_covariates(covariates, cell_weight, cat=1), cells)


def log_cpm_of(counts: Counts, offset: NDArray[np.float64]) -> LogCpmForm:
    """Return log-CPM of counts whose offsets are known already."""
    return LogCpmForm(counts.matrix, da.from_array(offset, chunks=(counts.chunks,)))
