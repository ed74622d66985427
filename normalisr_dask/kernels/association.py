r"""The linear association test y = γ x + α C + ε on blocks, and its small algebra.

With x̃ and ỹ the residuals of x and y on C (rank ρ) over n cells,

.. math:: γ = Σ x̃ỹ / Σ x̃², \quad R² = (Σ x̃ỹ)² / (Σ x̃² Σ ỹ²), \quad ν = n − 1 − ρ − \text{dimreduce}.

Source: Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
"""

import warnings

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, dense_float
from normalisr_dask.kernels.linear_algebra import coefficients as least_squares
from normalisr_dask.kernels.linear_algebra import symmetric_pinv
from normalisr_dask.kernels.p_values import log10_p_value, p_value

Floats = NDArray[np.float64]

#: Groupings with at most this share of non-zeros are multiplied entry by entry, others as dense matrices.
SPARSE_BELOW = 0.05
#: Cells and genes of which a core keeps the residuals at hand while it multiplies them.
CELLS_AT_ONCE, GENES_AT_ONCE = 512, 128
#: A sum of squares of residuals that were formed entry by entry is rounding below this share of the raw one.
ENTRY_ROUNDING = 1e-28
#: A sum of squares that is a difference of sums is rounding below this share of what was subtracted from.
ROUNDING = 1e-13


def row_products(block: Block, *, covariates: Floats, name: str) -> Floats:
    """Return Σ_cells y Cᵀ and Σ_cells y, (rows, q + 1).

    Raises
    ------
    ValueError
        If a value is NaN or infinite; says that it was found in ``name``.
    """
    rows = block if scipy.sparse.issparse(block) else dense_float(block)
    with_ones = np.vstack([covariates, np.ones(covariates.shape[1])])
    products = np.asarray(rows @ with_ones.T)
    is_finite = np.isfinite(products[:, -1])
    if not is_finite.all():
        found = np.asarray(rows[[int(np.argmin(is_finite))]].sum())
        msg = f"expected finite values in {name}, found {found} as the sum of a row's values"
        raise ValueError(msg)
    return products


def residual_sums(block: Block, *, coefficients: Floats, mean: Floats, covariates: Floats) -> Floats:
    """Return Σ ỹ C, Σ (y − mean), Σ ỹ², Σ (y − mean)² and Σ y² over cells with ỹ = y − α C, (rows, q + 4).

    Residuals are formed entry by entry and never as a difference of sums, so that offsets cost no digits.
    """
    sums = np.empty((block.shape[0], len(covariates) + 4))
    if scipy.sparse.issparse(block):  # a row at a time: rows × cells would be large where rows are mostly zero
        rows = scipy.sparse.csr_array(block, dtype=np.float64)
        _add_sparse_residuals(rows.indptr, rows.indices, rows.data, coefficients, mean, covariates, sums)
    else:
        _add_residuals(dense_float(block), coefficients, mean, covariates, sums)
    return sums


@njit(nogil=True, cache=True)
def _add_residuals(rows, coefficients, mean, covariates, sums):  # type: ignore[no-untyped-def]
    residual = np.empty(covariates.shape[1])
    for row in range(rows.shape[0]):
        _add_residuals_of_row(rows[row], coefficients[row], mean[row], covariates, residual, sums[row])


@njit(nogil=True, cache=True)
def _add_sparse_residuals(offsets, cells, entries, coefficients, mean, covariates, sums):  # type: ignore[no-untyped-def]
    values, residual = np.zeros(covariates.shape[1]), np.empty(covariates.shape[1])
    for row in range(offsets.size - 1):
        for entry in range(offsets[row], offsets[row + 1]):
            values[cells[entry]] += entries[entry]
        _add_residuals_of_row(values, coefficients[row], mean[row], covariates, residual, sums[row])
        for entry in range(offsets[row], offsets[row + 1]):
            values[cells[entry]] = 0.0


# Sums in any order: without that the compiler adds up a value at a time.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _add_residuals_of_row(values, coefficients, middle, covariates, residual, sums):  # type: ignore[no-untyped-def]
    n_covariates = covariates.shape[0]
    remove_covariates_of_row(values, coefficients, covariates, residual)
    for covariate in range(n_covariates):
        of_covariate = covariates[covariate]
        product = 0.0
        for cell in range(residual.size):
            product += residual[cell] * of_covariate[cell]
        sums[covariate] = product
    left, deviation, about_mean, raw = 0.0, 0.0, 0.0, 0.0
    for cell in range(residual.size):
        value = values[cell]
        from_mean = value - middle
        left += residual[cell] * residual[cell]
        deviation += from_mean
        about_mean += from_mean * from_mean
        raw += value * value
    sums[n_covariates] = deviation
    sums[n_covariates + 1] = left
    sums[n_covariates + 2] = about_mean
    sums[n_covariates + 3] = raw


def refined_fit(coefficients: Floats, sums: Floats, gram: Floats, *, n_cells: int, name: str) -> Floats:
    """Return coefficients freed of their rounding, and sums of squares freed of it, (rows, q + 3).

    What covariates still explain of the residuals is the rounding of the coefficients and of the mean: of a row of many
    cells, and of one that they determine, no other part is left.

    Parameters
    ----------
    coefficients
        Of the rows on the covariates (rows, q).
    sums
        From :func:`residual_sums`, of all cells (rows, q + 4).
    gram
        Covariates × covariatesᵀ (q, q).
    n_cells
        Number of cells.
    name
        What the rows are called in the error.

    Returns
    -------
    The sums of squares are those of the residuals, about the mean, and raw; 0 where only rounding is left.

    Raises
    ------
    ValueError
        If values are too large to be squared.
    """
    raw = sums[:, -1]
    check_squares(raw, name)
    with_covariates = sums[:, :-4]
    correction = least_squares(with_covariates, gram)
    left = sums[:, -3] - np.einsum("rk,rk->r", correction, with_covariates)
    about_mean = sums[:, -2] - sums[:, -4] ** 2 / n_cells
    return np.column_stack(
        [
            coefficients + correction,
            *(more_than_rounding(part, ENTRY_ROUNDING * raw) for part in (left, about_mean)),
            raw,
        ]
    )


def fit_of_products(products: Floats, raw: Floats, gram: Floats, *, n_cells: int, rounding: float) -> Floats:
    """Return coefficients of rows on covariates, and sums of squares as :func:`refined_fit` has them, (rows, q + 3).

    Parameters
    ----------
    products
        Of the rows with the covariates, and last with ones (rows, q + 1).
    raw
        Sums of squares (rows,).
    gram
        Covariates × covariatesᵀ (q, q).
    n_cells
        Number of cells.
    rounding
        Share of a raw sum of squares that is no more than rounding.
    """
    with_covariates, totals = products[:, :-1], products[:, -1]
    fit = least_squares(with_covariates, gram)
    explained = np.einsum("gk,gk->g", fit, with_covariates)
    left, about_mean = (more_than_rounding(raw - part, rounding * raw) for part in (explained, totals**2 / n_cells))
    return np.column_stack([fit, left, about_mean, raw])


def products_of_residuals(products: Floats, row_fit: Floats, fit: Floats, gram: Floats) -> Floats:
    """Return Σ_cells of the residuals of rows and genes, (r, genes): Σ y x − (coefficients of x) C Cᵀ (those of y)ᵀ.

    Parameters
    ----------
    products
        Σ_cells y x (r, genes).
    row_fit, fit
        Coefficients of the rows (r, q) and of the genes (genes, q) on the covariates.
    gram
        Covariates × covariatesᵀ (q, q).
    """
    return np.asarray(products - (row_fit @ gram) @ fit.T)


def check_squares(squares: Floats, name: str) -> None:
    """Refuse sums of squares that are too large for a floating-point number.

    Raises
    ------
    ValueError
        If one is; says that it was found in ``name``.
    """
    if not np.isfinite(squares).all():
        msg = (
            f"expected values of {name} whose squares can be added up, found a row with a sum of squares above 1e308; "
            "give smaller units"
        )
        raise ValueError(msg)


def more_than_rounding(squares: Floats, rounding: Floats) -> Floats:
    """Return sums of squares, 0 where they are no more than rounding."""
    return np.where(squares > rounding, squares, 0.0)


@njit(nogil=True, cache=True)
def remove_covariates_of_row(values, coefficients, covariates, residual):  # type: ignore[no-untyped-def]
    """Write values − coefficients · covariates of one row into ``residual`` (cells,)."""
    for cell in range(residual.size):
        residual[cell] = values[cell]
    for row in range(coefficients.size):
        coefficient = coefficients[row]
        for cell in range(residual.size):
            residual[cell] -= coefficient * covariates[row, cell]


def residual_products(
    block: Block, rows: Block, *, coefficients: Floats, covariates: Floats, grouping_coefficients: Floats
) -> Floats:
    """Return Σ_cells ỹ x̃ of every grouping (rows) and gene, (groupings, genes).

    Of groupings that are mostly zero the covariates are removed from the sums, Σ ỹ x̃ = Σ ỹ x − β Σ C ỹ, and not from
    the entries; that holds in every block, so that blocks may differ in how they are multiplied.
    """
    expression = dense_float(block)
    if not scipy.sparse.issparse(rows):
        values = dense_float(rows)
        if np.count_nonzero(values) > SPARSE_BELOW * values.size:
            residual = expression - coefficients @ covariates
            return np.asarray((values - grouping_coefficients @ covariates) @ residual.T)
    by_grouping = scipy.sparse.csr_array(rows, dtype=np.float64)
    by_grouping.sort_indices()
    products = np.empty((rows.shape[0], len(expression)))
    for start in range(0, len(expression), GENES_AT_ONCE):
        genes = slice(start, start + GENES_AT_ONCE)
        own_coefficients = np.ascontiguousarray(coefficients[genes].T)
        sums, with_covariates = np.zeros((len(products), own_coefficients.shape[1])), np.zeros_like(own_coefficients)
        _add_entry_products(
            expression[genes],
            own_coefficients,
            covariates,
            by_grouping.indptr,
            by_grouping.indices,
            by_grouping.data,
            sums,
            with_covariates,
        )
        products[:, genes] = sums - grouping_coefficients @ with_covariates
    return products


@njit(nogil=True, cache=True)
def _add_entry_products(  # type: ignore[no-untyped-def]
    expression, coefficients, covariates, offsets, cells, values, products, with_covariates
):
    """Add up the entries of all groupings; cells of a grouping ascend. Some cells at a time, so that a core keeps them.

    Residuals are cells × genes: a sum adds up the genes of a cell one beside the other.
    """
    n_genes, n_cells = expression.shape
    entries = offsets[:-1].copy()
    residual = np.empty((CELLS_AT_ONCE, n_genes))
    for start in range(0, n_cells, CELLS_AT_ONCE):
        stop = min(start + CELLS_AT_ONCE, n_cells)
        for cell in range(start, stop):
            of_cell = residual[cell - start]
            for gene in range(n_genes):
                of_cell[gene] = expression[gene, cell]
            for row in range(covariates.shape[0]):
                _add_multiple(-covariates[row, cell], coefficients[row], of_cell)
            for row in range(covariates.shape[0]):
                _add_multiple(covariates[row, cell], of_cell, with_covariates[row])
        for grouping in range(products.shape[0]):
            entry, last = entries[grouping], offsets[grouping + 1]
            sums = products[grouping]
            while entry + 3 < last and cells[entry + 3] < stop:  # four at a time: the sums are read and written once
                first, second = residual[cells[entry] - start], residual[cells[entry + 1] - start]
                third, fourth = residual[cells[entry + 2] - start], residual[cells[entry + 3] - start]
                a, b, c, d = values[entry], values[entry + 1], values[entry + 2], values[entry + 3]
                for gene in range(n_genes):
                    sums[gene] += a * first[gene] + b * second[gene] + c * third[gene] + d * fourth[gene]
                entry += 4
            while entry < last and cells[entry] < stop:
                _add_multiple(values[entry], residual[cells[entry] - start], sums)
                entry += 1
            entries[grouping] = entry


@njit(nogil=True, cache=True, fastmath={"contract"})
def _add_multiple(factor, values, sums):  # type: ignore[no-untyped-def]
    for position in range(values.size):
        sums[position] += factor * values[position]


def residual_variance(squares: Floats, *, n_cells: int) -> Floats:
    """Return the variance left after covariates (rows,), from sums of squares (rows, 3) as :func:`refined_fit` has."""
    return np.asarray(squares[:, 0] / n_cells)


def varies(squares: Floats) -> NDArray[np.bool_]:
    """Return which rows have more than one value (rows,), from sums of squares as :func:`refined_fit` has."""
    return np.asarray(squares[:, 1] > 0)


def degrees_of_freedom(
    gram: Floats, loss_of_rank: Floats, further_rank: Floats | None = None, *, n_cells: int
) -> Floats:
    """Return ν = n − 1 − ρ − loss of every gene (genes,), ρ the rank of the covariates.

    Parameters
    ----------
    gram
        Covariates × covariatesᵀ (q, q).
    loss_of_rank
        Degrees of freedom that the genes have lost already (genes,).
    further_rank
        Rank of all groupings after covariates (1,), where the others are covariates of each.
    n_cells
        Number of cells n.

    Raises
    ------
    ValueError
        If none is left for a gene.
    """
    rank = int(symmetric_pinv(gram)[1])
    if further_rank is not None:
        rank += max(0, int(further_rank[0]) - 1)
    return remaining_degrees(np.full_like(loss_of_rank, rank), loss_of_rank, n_cells=n_cells)


def remaining_degrees(rank: Floats, loss_of_rank: Floats, *, n_cells: int) -> Floats:
    """Return ν = n − 1 − rank − loss, of any shape.

    Raises
    ------
    ValueError
        If none is left.
    """
    degrees = n_cells - 1 - rank - loss_of_rank
    if np.any(degrees <= 0):
        msg = (
            f"expected more cells than covariates of rank {rank.max():g}, rank loss {loss_of_rank.max():g} and 1 for "
            f"the grouping, found {n_cells} cells; take more cells or fewer covariates"
        )
        raise ValueError(msg)
    return np.asarray(degrees)


def possible_loss(gram: Floats, loss_of_rank: Floats, *, n_cells: int) -> Floats:
    """Return the loss of rank (genes,) if it leaves degrees of freedom of all cells; errors are the same without."""
    degrees_of_freedom(gram, loss_of_rank, n_cells=n_cells)
    return loss_of_rank


def checked_loss(loss_of_rank: Floats) -> Floats:
    """Return the loss of rank (genes,).

    Raises
    ------
    ValueError
        If one is negative, NaN or infinite.
    """
    is_possible = (loss_of_rank >= 0) & np.isfinite(loss_of_rank)
    if not is_possible.all():
        first = int(np.argmin(is_possible))
        msg = f"expected dimreduce of 0 or more for every gene, found {loss_of_rank[first]:g} at gene {first}"
        raise ValueError(msg)
    return loss_of_rank


class UntestableGroupingWarning(UserWarning):
    """Some groupings cannot be tested."""


def warn_of_untestable(variance: Floats, *, reason: str) -> Floats:
    """Return the variances of the groupings (groupings,), with a warning if some are 0."""
    untestable = np.flatnonzero(variance <= 0)
    if untestable.size:
        which = "the grouping" if len(variance) == 1 else f"{untestable.size} of {len(variance)} groupings"
        msg = f"{which} cannot be tested, the first at position {untestable[0]}: {reason}; P = 1 and no effect"
        warnings.warn(msg, UntestableGroupingWarning, stacklevel=2)
    return variance


def tested_p_value(squares: Floats, degrees: Floats) -> Floats:
    """Return P-values; a test without degrees of freedom has R² = 0 and P = 1."""
    return p_value(squares, np.maximum(degrees, 1.0))


def tested_log10_p_value(squares: Floats, degrees: Floats) -> Floats:
    """Return log10 of :func:`tested_p_value`."""
    return log10_p_value(squares, np.maximum(degrees, 1.0))


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
    scale = np.maximum(degrees, 1.0) * np.where(defined, row_variance, 1.0)
    return np.where(defined, np.sqrt(gene_variance * (1.0 - r_squared) / scale), 0.0)
