"""The first principal component of some genes over all cells, from sums over blocks of cells.

The genes are freed of covariates and divided by their standard deviation, z; the genes × genes matrix Σ_cells z zᵀ has
the loadings v as its top eigenvector, and vᵀz are the scores of the cells.
"""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from normalisr_dask.kernels.association import residual_variance, varies
from normalisr_dask.kernels.blocks import Block
from normalisr_dask.kernels.coexpression import dense_residuals, inverse_norm
from normalisr_dask.kernels.implicit import dense_normalised

Floats = NDArray[np.float64]
#: Values of genes × cells of expression that are made of counts at a time.
PANEL_VALUES = 1 << 20
#: Standard deviation, as a share of the mean, up to which a row is constant but for rounding.
CONSTANT = 1e-12
#: Eigenvalue of the standardised covariates' Gram matrix, as a share of the largest one, up to which it is rounding.
NO_DIRECTION = 1e-12
#: Sum of loadings that is zero but for rounding, so that it gives no sign.
NO_SUM = 1e-8


def standardise(block: Floats, *, mean: Floats, squares: Floats, n_cells: int) -> Floats:
    """Return rows (q, n) less their mean and over their standard deviation; a constant row becomes zeros.

    Parameters
    ----------
    block
        Rows (q, n).
    mean
        Of all cells (q,).
    squares
        Sums of squares about the mean (q, 1).
    n_cells
        Number of all cells.
    """
    deviation = np.sqrt(squares[:, 0] / n_cells)
    not_constant = deviation > CONSTANT * np.abs(mean)
    inverse = np.where(not_constant, 1.0 / np.where(not_constant, deviation, 1.0), 0.0)
    return np.asarray((block - mean[:, None]) * inverse[:, None])


def whitening(gram: Floats) -> Floats:
    """Return W (q, q) of which W × rows are orthonormal, but for rows of zeros in place of those that others determine.

    Covariates may nearly determine each other, as a total and its square do; rows that do not give coefficients that
    are good to all digits.

    Parameters
    ----------
    gram
        Rows × rowsᵀ (q, q).
    """
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    kept = eigenvalues > NO_DIRECTION * eigenvalues.max(initial=0.0)
    scale = np.where(kept, 1.0 / np.sqrt(np.where(kept, eigenvalues, 1.0)), 0.0)
    return np.asarray(scale[:, None] * eigenvectors.T)


def mixed(block: Floats, *, weights: Floats) -> Floats:
    """Return weights (q, q) × rows (q, n)."""
    return np.asarray(weights @ block)


def inverse_deviation(squares: Floats, *, n_cells: int) -> Floats:
    """Return 1 over the standard deviation after covariates (genes,), 0 for a gene without variance.

    Parameters
    ----------
    squares
        As of :func:`normalisr_dask.kernels.association.row_squares` (genes, 3).
    n_cells
        Number of all cells.
    """
    variance = np.where(varies(squares), residual_variance(squares, n_cells=n_cells), 0.0)
    return inverse_norm(variance, n_cells=1)


def dense_products(block: Block, *, coefficients: Floats, covariates: Floats, inverse_deviation: Floats) -> Floats:
    """Return Σ_cells z zᵀ of one block, (genes, genes).

    Parameters
    ----------
    block
        Expression (genes, n).
    coefficients
        Of the genes on the covariates (genes, q).
    covariates
        (q, n).
    inverse_deviation
        From :func:`inverse_deviation` (genes,).
    """
    standardised = dense_residuals(
        block, coefficients=coefficients, covariates=covariates, inverse_norm=inverse_deviation, precision=np.float64
    )
    return np.asarray(standardised @ standardised.T)


def dense_scores(
    block: Block, *, coefficients: Floats, covariates: Floats, inverse_deviation: Floats, loadings: Floats
) -> Floats:
    """Return vᵀz of one block, (1, n); arguments as of :func:`dense_products`, and v (genes,)."""
    standardised = dense_residuals(
        block, coefficients=coefficients, covariates=covariates, inverse_norm=inverse_deviation, precision=np.float64
    )
    return np.asarray(loadings[None, :] @ standardised)


def count_products(
    block: Block,
    *,
    covariates: Floats,
    cell_offset: Floats,
    weights: Floats,
    test_covariates: Floats,
    fit: Floats,
    gene_scaling: Floats,
    coefficients: Floats,
    inverse_deviation: Floats,
) -> Floats:
    """Return what :func:`dense_products` does, from counts.

    Parameters
    ----------
    block
        Counts (genes, n).
    covariates, cell_offset, weights, fit, gene_scaling
        What normalised expression is made of, as of :func:`normalisr_dask.kernels.implicit.dense_normalised`.
    test_covariates
        What the genes are freed of (q, n).
    coefficients, inverse_deviation
        As of :func:`dense_products`.
    """
    total = np.zeros((len(fit), len(fit)))
    for cells in _panels(len(fit), block.shape[1]):
        expression = dense_normalised(
            block[:, cells],
            covariates=covariates[:, cells],
            cell_offset=cell_offset[cells],
            weights=weights[cells],
            fit=fit,
            gene_scaling=gene_scaling,
        )
        total += dense_products(
            expression,
            coefficients=coefficients,
            covariates=test_covariates[:, cells],
            inverse_deviation=inverse_deviation,
        )
    return total


def _panels(n_genes: int, n_cells: int) -> Iterator[slice]:
    """Yield ranges of cells of which the dense expression is small, however many the genes are."""
    height = max(1, PANEL_VALUES // max(1, n_genes))
    for start in range(0, n_cells, height):
        yield slice(start, start + height)


def count_scores(
    block: Block,
    *,
    covariates: Floats,
    cell_offset: Floats,
    weights: Floats,
    test_covariates: Floats,
    fit: Floats,
    gene_scaling: Floats,
    coefficients: Floats,
    inverse_deviation: Floats,
    loadings: Floats,
) -> Floats:
    """Return what :func:`dense_scores` does, from counts; arguments as of :func:`count_products`, and v (genes,)."""
    scores = np.empty((1, block.shape[1]))
    for cells in _panels(len(fit), block.shape[1]):
        expression = dense_normalised(
            block[:, cells],
            covariates=covariates[:, cells],
            cell_offset=cell_offset[cells],
            weights=weights[cells],
            fit=fit,
            gene_scaling=gene_scaling,
        )
        scores[:, cells] = dense_scores(
            expression,
            coefficients=coefficients,
            covariates=test_covariates[:, cells],
            inverse_deviation=inverse_deviation,
            loadings=loadings,
        )
    return scores


def top_loadings(products: Floats) -> Floats:
    """Return the top eigenvector (genes,) of Σ_cells z zᵀ (genes, genes), of length 1 and with a positive sum.

    Where the sum is zero, as of two genes that are opposites, the first of the largest loadings is positive.

    Raises
    ------
    ValueError
        If no gene varies, or a value is not finite.
    """
    if not np.isfinite(products).all():
        msg = "expected finite expression of the genes, found NaN or infinity"
        raise ValueError(msg)
    last = len(products) - 1
    eigenvalues, eigenvectors = scipy.linalg.eigh(products, subset_by_index=(last, last))
    if eigenvalues[0] <= 0:
        msg = "expected genes that vary after covariates, found none; their principal component is not defined"
        raise ValueError(msg)
    loadings: Floats = eigenvectors[:, 0]
    size = np.abs(loadings)
    total = loadings.sum()
    if abs(total) <= NO_SUM:
        total = loadings[np.flatnonzero(size >= size.max() * (1 - NO_SUM))[0]]
    return loadings if total > 0 else -loadings
