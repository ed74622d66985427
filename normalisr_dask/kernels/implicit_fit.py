r"""The fit of every gene's expression on the covariates, with the gene's own weights, from one pass over the entries.

Names and letters are those of :mod:`normalisr_dask.kernels.implicit`.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block
from normalisr_dask.kernels.chebyshev import growth_at_nodes, interpolation_matrix, pieces, with_all_nodes
from normalisr_dask.kernels.implicit import (
    ROUNDING,
    cell_buffers,
    cell_growth,
    coded_deviations,
    with_zero_residual,
    zero_log_cpm,
)
from normalisr_dask.kernels.linear_algebra import stacked_coefficients
from normalisr_dask.kernels.normalisation import covariate_pairs, variance_factor

Floats = NDArray[np.float64]


def node_moments(
    *, covariates: Floats, cell_offset: Floats, zero_fit: Floats, weights: Floats, scaling_range: Floats
) -> Floats:
    """Return the dense sums that :func:`gene_fit` needs at every node τ, (m, pairs + 1).

    These are Σ_cells of e^(2 τ L) b b' for all pairs of the rows b of C and z̃, and of e^(τ L) z.

    Parameters
    ----------
    covariates
        C (q, n).
    cell_offset
        What log-CPM subtracts of every cell (n,).
    zero_fit
        a of z̃ = z − a C (1, q).
    weights
        w (n,).
    scaling_range
        From :func:`chebyshev.check_range` (3,).
    """
    basis, of_zero = with_zero_residual(covariates, cell_offset, zero_fit), zero_log_cpm(cell_offset)
    pairs = covariate_pairs(len(basis))
    moments = [
        [*((basis * growth**2) @ basis.T)[pairs], growth @ of_zero]
        for growth in growth_at_nodes(weights, scaling_range)
    ]
    return with_all_nodes(np.array(moments), len(moments), axis=0)


def entry_sums(
    block: Block, *, covariates: Floats, cell_offset: Floats, zero_fit: Floats, weights: Floats, gene_scaling: Floats
) -> Floats:
    """Return Σ_cells of u² s C, u² s z̃, u² s² and u s, (G, q + 3)."""
    own = coded_deviations(block)
    sums = np.zeros((own.shape[0], covariates.shape[0] + 3))
    rows = np.ascontiguousarray(with_zero_residual(covariates, cell_offset, zero_fit).T)
    _add_entry_sums(own.offsets, own.genes, own.codes, own.by_count, rows, np.log(weights), gene_scaling, sums)
    return sums


@njit(nogil=True, cache=True)
def _add_entry_sums(offsets, genes, codes, by_count, rows, log_weights, gene_scaling, sums):  # type: ignore[no-untyped-def]
    n_rows = rows.shape[1]
    scaling, growth = cell_buffers(offsets)
    for cell in range(rows.shape[0]):
        start, stop = offsets[cell], offsets[cell + 1]
        cell_growth(genes[start:stop], gene_scaling, log_weights[cell], scaling, growth)
        of_cell = rows[cell]
        for entry in range(start, stop):
            weight = growth[entry - start]
            weighted = weight * by_count[codes[entry]]
            of_gene = sums[genes[entry]]
            for row in range(n_rows):
                of_gene[row] += weight * weighted * of_cell[row]
            of_gene[n_rows] += weighted * weighted
            of_gene[n_rows + 1] += weighted


def gene_fit(
    sums: Floats,
    gene_scaling: Floats,
    moments: Floats,
    scaling_range: Floats,
    zero_fit: Floats,
    *,
    n_cells: int,
    keepvar: bool,
) -> Floats:
    """Return β, the variance factor k, and Σ y² of every gene, (G, q + 2).

    Parameters
    ----------
    sums
        From :func:`entry_sums` (G, q + 3).
    gene_scaling
        t (G,).
    moments
        From :func:`node_moments` (m, pairs + 1).
    scaling_range
        From :func:`chebyshev.check_range` (3,).
    zero_fit
        a of z̃ = z − a C (1, q).
    n_cells
        Number of cells.
    keepvar
        Whether k gives a gene back its variance; 1 otherwise.
    """
    n_covariates = sums.shape[1] - 3
    fits = np.empty((len(sums), n_covariates + 2))
    for genes in pieces(len(sums), sums.itemsize * 2 * (n_covariates + 1) ** 2):
        fits[genes] = _fit_of_genes(
            sums[genes], gene_scaling[genes], moments, scaling_range, zero_fit, n_cells=n_cells, keepvar=keepvar
        )
    return fits


def _fit_of_genes(
    sums: Floats,
    gene_scaling: Floats,
    moments: Floats,
    scaling_range: Floats,
    zero_fit: Floats,
    *,
    n_cells: int,
    keepvar: bool,
) -> Floats:
    """Return :func:`gene_fit` of some genes, with a Gram matrix for each."""
    q = sums.shape[1] - 3
    at_nodes = interpolation_matrix(gene_scaling, scaling_range)
    at_genes = at_nodes @ moments[: at_nodes.shape[1]]
    grams = np.empty((len(sums), q + 1, q + 1))
    first, second = covariate_pairs(q + 1)
    grams[:, first, second] = grams[:, second, first] = at_genes[:, :-1]
    with_covariates = sums[:, :q] + grams[:, q, :q]
    fitted = stacked_coefficients(with_covariates, grams[:, :q, :q])
    squares = sums[:, q + 1] + 2 * sums[:, q] + grams[:, q, q]
    residual = squares - np.einsum("gk,gk->g", fitted, with_covariates)
    residual = np.where(residual > ROUNDING * squares, residual, 0.0)
    # of s + z itself, from those of s + z̃ = s + z − a C
    squares += 2 * with_covariates @ zero_fit[0] + (grams[:, :q, :q] @ zero_fit[0]) @ zero_fit[0]
    mean = (sums[:, q + 2] + at_genes[:, -1]) / n_cells
    factor = np.ones(len(sums))
    if keepvar:
        about_mean = squares - n_cells * mean**2
        factor = variance_factor(np.column_stack([about_mean, residual, squares]), gene_scaling)
    return np.column_stack([fitted + zero_fit, factor, factor**2 * residual])
