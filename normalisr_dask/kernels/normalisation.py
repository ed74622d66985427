r"""Mean and variance normalisation of one block: covariates, cell variance, gene-wise weighted regression.

Letters of the equations: x expression, C covariates, w cell weights, t gene scaling (``wt``), u = w^t.

Source: Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, dense_float
from normalisr_dask.kernels.linear_algebra import stacked_coefficients

Floats = NDArray[np.float64]

#: Values worked on at a time: they and their work arrays stay in the processor's cache.
PANEL_ENTRIES = 1 << 16
#: Cells worked on at a time where there is little for each.
CELLS_AT_A_TIME = 1 << 16

#: A residual sum of squares below this share of the raw one is rounding: of entries and of their fit on the covariates.
ROUNDING = 1e-24


def panels(n_rows: int, n_columns: int) -> Iterator[tuple[slice, Floats, Floats]]:
    """Yield slices of rows, each with two work arrays (rows of the slice, columns) that all slices share.

    Fresh arrays for every intermediate result would take longer than the arithmetic.
    """
    height = max(1, min(PANEL_ENTRIES // max(1, n_columns), n_rows))
    work = np.empty((2, height, n_columns))
    for start in range(0, n_rows, height):
        stop = min(start + height, n_rows)
        first, second = work[:, : stop - start]
        yield slice(start, stop), first, second


def _subtract_fit(expression: Floats, coefficients: Floats, covariates: Floats, out: Floats) -> None:
    """Write x − B C."""
    np.matmul(coefficients, covariates, out=out)
    np.subtract(expression, out, out=out)


def _gene_weights(gene_scaling: Floats, log_weights: Floats, out: Floats) -> None:
    """Write u = w^t."""
    np.multiply.outer(gene_scaling, log_weights, out=out)
    np.exp(out, out=out)


def _row_squares(rows: Floats) -> Floats:
    return np.asarray(np.einsum("gc,gc->g", rows, rows))


# ---- covariates


def row_sums(rows: Floats) -> Floats:
    """Return Σ_cells of each row, (q, 1)."""
    return np.asarray(rows.sum(axis=1, keepdims=True, dtype=np.float64))


def squares_about(rows: Floats, *, mean: Floats) -> Floats:
    """Return Σ_cells (row − mean)² of each row, (q, 1)."""
    with np.errstate(invalid="ignore", over="ignore"):  # values that are not finite are refused by what counts them
        return np.asarray(((rows - mean[:, None]) ** 2).sum(axis=1, keepdims=True))


def standardise(rows: Floats, *, kinds: Floats) -> Floats:
    """Return rows with mean 0 and variance 1 where continuous, as they are elsewhere.

    Parameters
    ----------
    rows
        Covariates (q, cells).
    kinds
        Whether continuous, mean, and standard deviation (q, 3).
    """
    is_continuous, mean, deviation = kinds.T[:, :, None]
    return np.where(is_continuous > 0, (rows - mean) / np.where(is_continuous > 0, deviation, 1.0), rows)


# ---- cell variance


def covariate_products(block: Block, *, covariates: Floats, cell_scale: Floats) -> Floats:
    """Return Σ_cells (x/s)(C/s)ᵀ, (genes, q)."""
    return np.asarray(dense_float(block) @ (covariates / cell_scale**2).T)


def residual_moments(block: Block, *, coefficients: Floats, covariates: Floats, cell_scale: Floats) -> Floats:
    """Return Σ r, Σ r² and Σ (x/s)² over cells of r = (x − B C)/s, (genes, 3)."""
    expression = dense_float(block)
    inverse_scale = 1.0 / cell_scale
    moments = np.empty((expression.shape[0], 3))
    for genes, work, _ in panels(*expression.shape):
        np.multiply(expression[genes], inverse_scale, out=work)
        moments[genes, 2] = _row_squares(work)
        _subtract_fit(expression[genes], coefficients[genes], covariates, out=work)
        work *= inverse_scale
        moments[genes, 0] = work.sum(axis=1)
        moments[genes, 1] = _row_squares(work)
    return moments


def mean_and_deviation(moments: Floats, *, n_cells: int) -> Floats:
    """Return mean and population standard deviation of the residuals of every gene, (genes, 2).

    Where covariates leave nothing of a gene but rounding its deviation is 0. From :func:`residual_moments`.
    """
    mean, squares, raw = moments.T / n_cells
    variance = squares - mean**2
    return np.stack([mean, np.sqrt(np.where(variance > ROUNDING * raw, variance, 0.0))], axis=1)


def cell_squares(
    block: Block, *, coefficients: Floats, residual: Floats, covariates: Floats, cell_scale: Floats
) -> Floats:
    """Return Σ_genes ((r − mean)/deviation)² of every cell with r = (x − B C)/s, (1, cells).

    Genes without any residual variance say nothing about cells and are left out. ``residual`` is what
    :func:`mean_and_deviation` returns.
    """
    expression = dense_float(block)
    mean, deviation = residual.T
    inverse = np.where(deviation > 0, 1.0 / np.where(deviation > 0, deviation, 1.0), 0.0)
    squares = np.zeros((1, expression.shape[1]))
    inverse_scale = 1.0 / cell_scale
    for genes, work, _ in panels(*expression.shape):
        _subtract_fit(expression[genes], coefficients[genes], covariates, out=work)
        work *= inverse_scale
        work -= mean[genes, None]
        work *= inverse[genes, None]
        squares[0] += np.einsum("gc,gc->c", work, work)
    return squares


def fit_cell_scale(squares: Floats, covariates: Floats, cell_scale: Floats, *, n_genes: int) -> Floats:
    """Return s' = exp(ŷ)·s over its smallest value, (cells,), with ŷ the fit of ½ log(squares/n_genes) on [1, C].

    Parameters
    ----------
    squares
        Sum over genes of squared standardised residuals (1, cells).
    covariates
        (q, cells).
    cell_scale
        s of the round before (cells,).
    n_genes
        Number of genes the squares are summed over.

    Raises
    ------
    ValueError
        If nothing is left of all genes in a cell, or not a number; names the first one by its position.
    """
    is_left = squares[0] > 0
    if not is_left.all():
        where, way_out = "any cell", "take more genes or fewer covariates"
        if is_left.any():
            where = f"cell {int(np.argmin(is_left))} (counted from 0)"
            way_out = "leave out that cell, or the covariate that it has for itself"
        msg = f"expected residuals of expression on the covariates in every cell, found none in {where}; {way_out}"
        raise ValueError(msg)
    log_deviation = 0.5 * np.log(squares[0] / n_genes)
    mean, centre = log_deviation.mean(), covariates.mean(axis=1, keepdims=True)
    n_covariates, n_cells = covariates.shape
    blocks = [slice(start, start + CELLS_AT_A_TIME) for start in range(0, n_cells, CELLS_AT_A_TIME)]
    triangle = np.empty((0, n_covariates + 1))  # R of QR, a block after the other, takes no copy of all cells
    for cells in blocks:
        rows = np.vstack([covariates[:, cells] - centre, log_deviation[cells] - mean]).T
        triangle = np.asarray(np.linalg.qr(np.vstack([triangle, rows]), mode="r"))
    rcond = np.finfo(float).eps * max(covariates.shape)
    slopes = np.linalg.lstsq(triangle[:, :-1], triangle[:, -1], rcond=rcond)[0]
    scale = np.empty(n_cells)
    for cells in blocks:
        scale[cells] = np.exp(mean + slopes @ (covariates[:, cells] - centre)) * cell_scale[cells]
    scale /= scale.min()
    return scale


def weights_from_scale(cell_scale: Floats) -> Floats:
    """Return w = (1/s)/min(1/s), (cells,)."""
    inverse = 1.0 / cell_scale
    return np.asarray(inverse / inverse.min())


# ---- gene-wise weighted regression


def covariate_pairs(n_covariates: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return row and column of the upper triangle of a (q, q) matrix: the order in which pair sums are kept."""
    rows, columns = np.triu_indices(n_covariates)
    return rows.astype(np.int64), columns.astype(np.int64)


def weighted_products(block: Block, *, covariates: Floats, log_weights: Floats, gene_scaling: Floats) -> Floats:
    """Return Σ u² C_k C_l (pairs), Σ u² x C_k and Σ u x over cells, (genes, q(q+1)/2 + q + 1)."""
    expression = dense_float(block)
    n_covariates = covariates.shape[0]
    first, second = covariate_pairs(n_covariates)
    pairs = covariates[first] * covariates[second]
    products = np.empty((expression.shape[0], len(first) + n_covariates + 1))
    for genes, weights, scaled in panels(*expression.shape):
        _gene_weights(gene_scaling[genes], log_weights, out=weights)
        np.multiply(expression[genes], weights, out=scaled)
        products[genes, -1] = scaled.sum(axis=1)
        scaled *= weights
        products[genes, len(first) : -1] = scaled @ covariates.T
        weights *= weights
        products[genes, : len(first)] = weights @ pairs.T
    return products


def weighted_coefficients(products: Floats, *, n_covariates: int) -> Floats:
    """Return every gene's own weighted least-squares coefficients (genes, q) from :func:`weighted_products`."""
    first, second = covariate_pairs(n_covariates)
    grams = np.empty((products.shape[0], n_covariates, n_covariates))
    grams[:, first, second] = grams[:, second, first] = products[:, : len(first)]
    return stacked_coefficients(products[:, len(first) : len(first) + n_covariates], grams)


def weighted_squares(
    block: Block, *, coefficients: Floats, mean: Floats, covariates: Floats, log_weights: Floats, gene_scaling: Floats
) -> Floats:
    """Return Σ (a − mean)², Σ r² and Σ a² over cells of a = u x and r = u (x − β C), (genes, 3)."""
    expression = dense_float(block)
    squares = np.empty((expression.shape[0], 3))
    for genes, weights, work in panels(*expression.shape):
        _gene_weights(gene_scaling[genes], log_weights, out=weights)
        np.multiply(expression[genes], weights, out=work)
        squares[genes, 2] = _row_squares(work)
        work -= mean[genes, None]
        squares[genes, 0] = _row_squares(work)
        _subtract_fit(expression[genes], coefficients[genes], covariates, out=work)
        work *= weights
        squares[genes, 1] = _row_squares(work)
    return squares


def variance_factor(squares: Floats, gene_scaling: Floats) -> Floats:
    """Return (sd(a)/rms(r))^t of every gene (genes,): what gives a gene back its variance.

    Where covariates leave nothing of a gene but rounding it is 0, or that rounding would be given the gene's variance.
    """
    total, residual, raw = squares.T
    is_left = residual > ROUNDING * raw
    return np.where(is_left, (total / np.where(is_left, residual, 1.0)) ** (gene_scaling / 2), 0.0)


def normalised(
    block: Block,
    *,
    coefficients: Floats,
    factor: Floats,
    covariates: Floats,
    log_weights: Floats,
    gene_scaling: Floats,
) -> Floats:
    """Return y = factor·u·(x − β C), genes × cells."""
    expression = dense_float(block)
    result = np.empty(expression.shape, order="F" if expression.flags.f_contiguous else "C")
    for genes, weights, work in panels(*expression.shape):
        _gene_weights(gene_scaling[genes], log_weights, out=weights)
        weights *= factor[genes, None]
        _subtract_fit(expression[genes], coefficients[genes], covariates, out=work)
        np.multiply(work, weights, out=result[genes])
    return result


def scale_rows(rows: Floats, *, kinds: Floats, weights: Floats, cat: int) -> Floats:
    """Return covariates multiplied by the cell weights where ``cat`` says so, (q, cells).

    Parameters
    ----------
    rows
        Covariates (q, cells).
    kinds
        Numbers of values that are neither 0 nor 1, and not 1; and two more (q, 4).
    weights
        w (cells,).
    cat
        0: continuous covariates, 1: also the constant one, 2: all.
    """
    neither, not_one, _, _ = kinds.T
    is_scaled = (neither > 0) | ((cat >= 1) & (not_one == 0)) | (cat == 2)
    return np.where(is_scaled[:, None], rows * weights, rows)


def remove_covariates(block: Block, *, coefficients: Floats, covariates: Floats) -> Floats:
    """Return y − α C, genes × cells."""
    return np.asarray(dense_float(block) - coefficients @ covariates)
