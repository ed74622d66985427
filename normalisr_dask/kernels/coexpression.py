r"""Co-expression of gene pairs on tiles: residuals on one scale, their products, and what becomes of these.

Residuals x̃ are divided by :math:`\sqrt{Σ_c x̃^2}` before they are multiplied, so that the sum over all cells is the
correlation R itself, and the sum over any part of the cells is at most 1 in absolute value. The product of every block
of cells is rounded to a multiple of 2⁻⁵⁰ as it is added. Sums of such multiples are exact, so that their order does not
matter: however tiles and blocks of cells are shared out among tasks, the bits are the same [1]_.

Source of the test: Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.

References
----------
.. [1] Demmel, J. & Nguyen, H. D. (2015). Parallel reproducible summation. IEEE Transactions on Computers 64,
   2060-2070. https://doi.org/10.1109/TC.2014.2345391
"""

from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.association import remove_covariates_of_row
from normalisr_dask.kernels.blocks import Block, dense_float
from normalisr_dask.kernels.implicit import deviations, zero_log_cpm
from normalisr_dask.kernels.linear_algebra import times_transposed
from normalisr_dask.kernels.p_values import pairwise_log10_p_value, pairwise_p_value
from normalisr_dask.kernels.sparse_residuals import SparseResiduals, residual_factors, sparse_product

Floats = NDArray[np.float64]
# NDArray[Any] | SparseResiduals, both of one product of one kind; a checker cannot see that.
Residuals: TypeAlias = Any
#: Added and subtracted again, it rounds numbers up to 2 in absolute value to multiples of 2⁻⁵⁰: those of 4 to 8.
_ROUNDER = 6.0
#: Values of cells × genes that are made together: they stay in a processor's cache.
_PANEL_VALUES = 1 << 16


def inverse_norm(variance: Floats, *, n_cells: int) -> Floats:
    """Return 1/sqrt(Σ x̃²) of every gene (genes,), 0 for one without variance, from its variance after covariates."""
    defined = variance > 0
    return np.where(defined, 1.0 / np.sqrt(n_cells * np.where(defined, variance, 1.0)), 0.0)


def dense_residuals(
    block: Block, *, coefficients: Floats, covariates: Floats, inverse_norm: Floats, precision: Any
) -> NDArray[Any]:
    """Return (y − α C)/sqrt(Σ x̃²), genes × cells, in the given precision.

    Parameters
    ----------
    block
        Expression (genes, n).
    coefficients
        Of the genes on the covariates (genes, q).
    covariates
        C (q, n).
    inverse_norm
        From :func:`inverse_norm` (genes,).
    precision
        float64 or float32.
    """
    rows = dense_float(block)
    residuals = np.empty(rows.shape, dtype=precision)
    _scale_residuals(rows, coefficients, covariates, inverse_norm, residuals)
    return residuals


def stored_residuals(
    block: Block,
    *,
    runs: tuple[tuple[int, int], ...],
    normalised_covariates: Floats,
    coefficients: Floats,
    inverse_norm: Floats,
    precision: Any,
) -> list[Residuals]:
    """Return what :func:`dense_residuals` does, of runs of genes; each is genes of the run × cells.

    Parameters
    ----------
    block
        Expression (genes, n).
    runs
        First gene and the one after the last of every run.
    normalised_covariates
        Covariates of the test (q, n).
    coefficients, inverse_norm
        As of :func:`dense_residuals`.
    precision
        float64 or float32.
    """
    return [
        dense_residuals(
            block[first:last],
            coefficients=coefficients[first:last],
            covariates=normalised_covariates,
            inverse_norm=inverse_norm[first:last],
            precision=precision,
        )
        for first, last in runs
    ]


@njit(nogil=True, cache=True)
def _scale_residuals(rows, coefficients, covariates, scale, residuals):  # type: ignore[no-untyped-def]
    residual = np.empty(rows.shape[1])
    for row in range(rows.shape[0]):
        remove_covariates_of_row(rows[row], coefficients[row], covariates, residual)
        for cell in range(residual.size):
            residuals[row, cell] = residual[cell] * scale[row]


def count_residuals(
    block: Block,
    *,
    runs: tuple[tuple[int, int], ...],
    covariates: Floats,
    cell_offset: Floats,
    weights: Floats,
    normalised_covariates: Floats,
    fit: Floats,
    gene_scaling: Floats,
    coefficients: Floats,
    inverse_norm: Floats,
    precision: Any,
) -> list[Residuals]:
    """Return what :func:`dense_residuals` does, of runs of genes, from counts; each is genes of the run × cells.

    Where counts are so sparse that products of entries take less time than dense ones, residuals come as entries and
    factors. Whether they do depends on the block alone, so that every plan gives the same bits.

    Parameters
    ----------
    block
        Counts (genes, n).
    runs
        First gene and the one after the last of every run.
    covariates, cell_offset, weights
        What normalised expression is made of: C before normalisation (q, n), what log-CPM subtracts (n,), and w (n,).
    normalised_covariates
        Covariates of the test (r, n).
    fit
        β, k and one more of every gene (genes, q + 2), as :func:`normalisr_dask.kernels.implicit_fit.gene_fit` returns.
    gene_scaling
        t (genes,).
    coefficients
        Of the genes on the covariates of the test (genes, r).
    inverse_norm
        From :func:`inverse_norm` (genes,).
    precision
        float64 or float32; of dense residuals.
    """
    sparse = deviations(block)
    n_cells = sparse.shape[1]
    log_weights = np.log(weights)
    factor = fit[:, -2] * inverse_norm
    removed = coefficients * inverse_norm[:, None]
    factors = residual_factors(
        sparse,
        covariates=covariates,
        zero_log_cpm=zero_log_cpm(cell_offset),
        log_weights=log_weights,
        normalised_covariates=normalised_covariates,
        coefficients=fit[:, :-2],
        gene_scaling=gene_scaling,
        factor=factor,
        removed=removed,
    )
    if factors.pay:
        return [factors.residuals(first, last) for first, last in runs]
    cell_basis = np.vstack([covariates, zero_log_cpm(cell_offset)]).T
    gene_basis = np.column_stack([-fit[:, :-2], np.ones(len(fit))]) * factor[:, None]
    results: list[Residuals] = []
    for first, last in runs:
        genes = slice(first, last)
        residuals = np.empty((n_cells, last - first), dtype=precision)
        height = max(1, _PANEL_VALUES // max(1, last - first))
        for start in range(0, n_cells, height):
            cells = slice(start, start + height)
            panel = np.exp(np.outer(log_weights[cells], gene_scaling[genes]))
            panel *= cell_basis[cells] @ gene_basis[genes].T
            panel -= normalised_covariates[:, cells].T @ removed[genes].T
            _add_entries(
                sparse.indptr[start : start + height + 1],
                sparse.indices,
                sparse.data,
                log_weights[cells],
                gene_scaling[genes],
                factor[genes],
                first,
                panel,
            )
            residuals[cells] = panel
        results.append(residuals.T)
    return results


@njit(nogil=True, cache=True)
def _add_entries(offsets, genes, values, log_weights, gene_scaling, factor, first, panel):  # type: ignore[no-untyped-def]
    for cell in range(panel.shape[0]):
        for entry in range(offsets[cell], offsets[cell + 1]):
            gene = genes[entry] - first
            if 0 <= gene < panel.shape[1]:
                weight = np.exp(gene_scaling[gene] * log_weights[cell])
                panel[cell, gene] += factor[gene] * weight * values[entry]


def add_product(total: Floats, left: Residuals, right: Residuals) -> None:
    """Add the product of two blocks of residuals (genes, n) to a tile (genes of the one, genes of the other), rounded.

    A block and itself give a tile that is symmetric to the last bit.
    """
    product = sparse_product(left, right) if isinstance(left, SparseResiduals) else times_transposed(left, right)
    _add_rounded(total, product)


@njit(nogil=True, cache=True)
def _add_rounded(total, product):  # type: ignore[no-untyped-def]
    for row in range(total.shape[0]):
        for column in range(total.shape[1]):
            total[row, column] += (np.float64(product[row, column]) + _ROUNDER) - _ROUNDER


def tile_sum(left: NDArray[Any], right: NDArray[Any]) -> Floats:
    """Return the product of two blocks of residuals (genes, n), each value a multiple of 2⁻⁵⁰."""
    total = np.zeros((left.shape[0], right.shape[0]))
    add_product(total, left, right)
    return total


def tile_dot(
    correlation: Floats,
    *,
    is_diagonal: bool,
    row_variance: Floats,
    column_variance: Floats,
    row_degrees: Floats,
    column_degrees: Floats,
) -> Floats:
    """Return mean(x̃ỹ) of a tile of gene pairs, 0 where a gene meets itself.

    Parameters
    ----------
    correlation
        R, from the sums of :func:`add_product` over all cells (rows, columns).
    is_diagonal
        Whether rows and columns are the same genes.
    row_variance, column_variance
        mean x̃² of the genes.
    row_degrees, column_degrees
        Degrees of freedom of the genes; not needed here.
    """
    del row_degrees, column_degrees
    dot = np.outer(np.sqrt(row_variance), np.sqrt(column_variance))
    dot *= correlation
    if is_diagonal:
        np.fill_diagonal(dot, 0.0)
    return dot


def tile_p_value(
    correlation: Floats,
    *,
    is_diagonal: bool,
    row_variance: Floats,
    column_variance: Floats,
    row_degrees: Floats,
    column_degrees: Floats,
    log10: bool = False,
) -> Floats:
    """Return P, or log10 P, of a tile of gene pairs, 0 where a gene meets itself.

    Parameters
    ----------
    correlation, is_diagonal, row_variance, column_variance
        As for :func:`tile_dot`.
    row_degrees, column_degrees
        Degrees of freedom of the genes; a pair has the smaller of the two.
    log10
        Whether to return log10 P.
    """
    del row_variance, column_variance
    squares = np.square(correlation)
    np.minimum(squares, 1.0, out=squares)
    evaluate = pairwise_log10_p_value if log10 else pairwise_p_value
    result = evaluate(squares, row_degrees, column_degrees, out=squares)
    if is_diagonal:
        np.fill_diagonal(result, 0.0)
    return result
