"""Normalised expression of a run, lazy, from its count store and what the stage ``normalisation`` has stored."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.passes import BlockReader, blocks_of
from normalisr_dask.graph.vectors import in_memory, in_one_chunk, long_chunks
from normalisr_dask.kernels.implicit import dense_normalised
from normalisr_dask.schema import stage_of_level
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
        da.from_array(_stored_fit(stored), chunks=-1),
    )
    if chosen is None:
        return StoredExpression(with_form(form), normalised_covariates(covariates, cell_weight, cat=1), cells)
    of_all = (da.from_array(stored[name], chunks=-1) for name in ("covariates", "cell_weight"))
    # Which covariates are categories is seen from all cells.
    normalised = normalised_covariates(*of_all, cat=1)[:, kept].rechunk(covariates.chunks)
    return StoredExpression(_dense_expression(counts, stored, kept), normalised, cells[kept])


def _dense_expression(counts: Counts, stored: Mapping[str, NDArray[np.float64]], kept: NDArray[np.int64]) -> da.Array:
    """Return the expression of some cells in dense blocks, which every pass makes anew: Dask would keep them all."""
    reader = counts.reader
    n_covariates = len(stored["covariates"])
    of_cells = np.empty(
        kept.size,
        [("position", np.int64), ("cell_offset", float), ("weights", float), ("covariates", float, n_covariates)],
    )
    of_cells["position"], of_cells["covariates"] = counts.cell_positions, stored["covariates"][:, kept].T
    of_cells["cell_offset"], of_cells["weights"] = stored["log_cpm_offset"][kept], stored["cell_weight"][kept]
    of_genes = np.empty(
        counts.shape[0], [("position", np.int64), ("gene_scaling", float), ("fit", float, n_covariates + 2)]
    )
    of_genes["position"], of_genes["gene_scaling"] = counts.gene_positions, stored["gene_scaling"]
    of_genes["fit"] = _stored_fit(stored)
    read = partial(_dense_block, read=reader.read)
    dense = BlockReader(read, in_memory(of_cells, counts.chunks), in_one_chunk(of_genes))
    return blocks_of(dense, counts.shape[0], np.empty((0, 0)), "expression-of-cells")


def _dense_block(cells: Any, genes: Any, *, read: Callable[[Any, Any], Any]) -> NDArray[np.float64]:
    """Read the counts of a block and normalise them."""
    values = (cells["cell_offset"], genes["fit"], cells["covariates"].T, cells["weights"], genes["gene_scaling"])
    names = ("cell_offset", "fit", "covariates", "weights", "gene_scaling")
    arrays = dict(zip(names, map(np.ascontiguousarray, values), strict=True))
    counts = read(np.ascontiguousarray(cells["position"]), np.ascontiguousarray(genes["position"]))
    return dense_normalised(counts, **arrays)


def _stored_fit(stored: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.column_stack([stored[name] for name in ("coefficients", "variance_factor", "sum_of_squares")])


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
