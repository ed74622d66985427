r"""The linear association test y = γ x + α C + ε on blocks, and its small algebra.

With x̃ and ỹ the residuals of x and y on C (rank ρ) over n cells,

.. math:: γ = Σ x̃ỹ / Σ x̃², \quad R² = (Σ x̃ỹ)² / (Σ x̃² Σ ỹ²), \quad ν = n − 1 − ρ − \text{dimreduce}.

Source: Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
"""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, dense_float
from normalisr_dask.kernels.linear_algebra import symmetric_pinv
from normalisr_dask.kernels.p_values import p_value

Floats = NDArray[np.float64]

#: A residual sum of squares below this share of the sum of squares about the mean is rounding: nothing is left to test.
NO_VARIANCE = 1e-14
#: The same against the raw sum of squares: the rounding of a constant row.
NO_DEVIATION = 1e-28


def row_products(block: Block, *, covariates: Floats, name: str) -> Floats:
    """Return Σ_cells y Cᵀ and Σ_cells y, (rows, q + 1).

    Raises
    ------
    ValueError
        If a value is NaN or infinite; says that it was found in ``name``.
    """
    rows = block if scipy.sparse.issparse(block) else dense_float(block)
    sums = np.asarray(rows.sum(axis=1)).ravel()
    if not np.isfinite(sums).all():
        msg = f"expected finite values in {name}, found {sums[~np.isfinite(sums)][0]} as the sum of a row's values"
        raise ValueError(msg)
    return np.concatenate([np.asarray(rows @ covariates.T), sums[:, None]], axis=1)


def row_squares(block: Block, *, coefficients: Floats, mean: Floats, covariates: Floats) -> Floats:
    """Return Σ ỹ², Σ (y − mean)² and Σ y² over cells with ỹ = y − α C, (rows, 3).

    Residuals are formed entry by entry and never as a difference of sums, so that offsets cost no digits.
    """
    rows = dense_float(block)
    residual = rows - coefficients @ covariates
    centred = rows - mean[:, None]
    return np.stack([np.einsum("rc,rc->r", part, part) for part in (residual, centred, rows)], axis=1)


def residual_products(
    block: Block, rows: Block, *, coefficients: Floats, covariates: Floats, grouping_coefficients: Floats
) -> Floats:
    """Return Σ_cells ỹ x̃ of every grouping (rows) and gene, (groupings, genes).

    Sparse groupings are used as they are: ỹ is orthogonal to C, so Σ ỹ x̃ = Σ ỹ x.
    """
    residual = dense_float(block) - coefficients @ covariates
    if scipy.sparse.issparse(rows):
        return np.asarray(rows @ residual.T)
    return np.asarray((dense_float(rows) - grouping_coefficients @ covariates) @ residual.T)


def residual_variance(squares: Floats, *, n_cells: int) -> Floats:
    """Return the variance left after covariates (rows,), 0 where only rounding is left; from :func:`row_squares`."""
    residual, about_mean, raw = squares.T
    is_rounding = residual <= np.maximum(NO_VARIANCE * about_mean, NO_DEVIATION * raw)
    return np.where(is_rounding, 0.0, residual) / n_cells


def varies(squares: Floats) -> NDArray[np.bool_]:
    """Return which rows have more than one value (rows,); from :func:`row_squares`."""
    _, about_mean, raw = squares.T
    return np.asarray(about_mean > NO_DEVIATION * raw)


def degrees_of_freedom(gram: Floats, loss_of_rank: Floats, *, n_cells: int) -> Floats:
    """Return ν = n − 1 − ρ − loss of every gene (genes,), ρ the rank of the covariates.

    Raises
    ------
    ValueError
        If none is left for a gene.
    """
    covariate_rank = int(symmetric_pinv(gram)[1])
    degrees = n_cells - 1 - covariate_rank - loss_of_rank
    if np.any(degrees <= 0):
        msg = (
            f"expected more cells than covariates of rank {covariate_rank}, rank loss {loss_of_rank.max():g} and 1 "
            f"for the grouping, found {n_cells} cells; take more cells or fewer covariates"
        )
        raise ValueError(msg)
    return np.asarray(degrees)


def gamma(products: Floats, row_variance: Floats, gene_variance: Floats, *, n_cells: int) -> Floats:
    """Return γ = mean(x̃ỹ)/varx, (rows, genes); 0 where row or gene have no variance left.

    Parameters
    ----------
    products
        Σ ỹ x̃ (rows, genes).
    row_variance
        mean x̃² (rows, 1).
    gene_variance
        mean ỹ² (rows, genes).
    n_cells
        Number of cells n.
    """
    defined = (row_variance > 0) & (gene_variance > 0)
    return np.where(defined, products / n_cells / np.where(row_variance > 0, row_variance, 1.0), 0.0)


def r_squared(products: Floats, row_variance: Floats, gene_variance: Floats, *, n_cells: int) -> Floats:
    """Return R² = mean(x̃ỹ)²/(varx vary), (rows, genes), at most 1; 0 where row or gene have no variance left."""
    scale = row_variance * gene_variance
    defined = scale > 0
    return np.where(defined, np.minimum((products / n_cells) ** 2 / np.where(defined, scale, 1.0), 1.0), 0.0)


def standard_error(r_squared: Floats, row_variance: Floats, gene_variance: Floats, degrees: Floats) -> Floats:
    """Return sqrt(vary (1 − R²)/(ν varx)), (rows, genes); 0 where the row has no variance left."""
    defined = row_variance > 0
    scale = degrees * np.where(defined, row_variance, 1.0)
    return np.where(defined, np.sqrt(gene_variance * (1.0 - r_squared) / scale), 0.0)


def tile_sum(block: Block, other: Block) -> Floats:
    """Return Σ_cells x̃ỹ of two blocks of genes, (genes of the first, genes of the second)."""
    return np.asarray(block @ other.T)


def finish_tile(
    total: Floats,
    *,
    is_diagonal: bool,
    row_variance: Floats,
    column_variance: Floats,
    row_degrees: Floats,
    column_degrees: Floats,
    n_cells: int,
) -> tuple[Floats, Floats]:
    """Return P-value and mean(x̃ỹ) of a tile of gene pairs, both 0 where a gene meets itself.

    Parameters
    ----------
    total
        Σ x̃ỹ (rows, columns).
    is_diagonal
        Whether rows and columns are the same genes.
    row_variance, column_variance
        mean x̃² of the genes.
    row_degrees, column_degrees
        Degrees of freedom of the genes; a pair has the smaller of the two.
    n_cells
        Number of cells.
    """
    has_variance = (row_variance > 0)[:, None] & (column_variance > 0)
    dot = np.where(has_variance, total / n_cells, 0.0)
    squares = r_squared(total, row_variance[:, None], column_variance, n_cells=n_cells)
    if is_diagonal:
        np.fill_diagonal(dot, 0.0)
    degrees = np.minimum(row_degrees[:, None], column_degrees)
    p_values = p_value(squares, degrees.flat[0] if np.all(degrees == degrees.flat[0]) else degrees)
    if is_diagonal:
        np.fill_diagonal(p_values, 0.0)
    return p_values, dot
