"""The trend of residual variance over mean expression, and the precision of every observation that follows from it."""

import numpy as np

from normalisr_dask.kernels.least_squares import Floats, Integers, fit_rows
from normalisr_dask.kernels.lowess import precisions

#: Columns that `fit_with_facts` adds: mean, observed values, infinite values, mean of the predictor, its gaps.
N_FACTS = 5


def fit_with_facts(
    expression: Floats,
    weights: Floats | None = None,
    predictor: Floats | None = None,
    *,
    design: Floats,
    blocks: Integers | None = None,
    correlation: float = 0.0,
) -> Floats:
    """Fit the design as :func:`fit_rows` does, and say of every gene what the checks and the trend need.

    Returns
    -------
    float64 (genes, 2 p + 2 + `N_FACTS`): the fit; mean of the observed values, number of values that are not NaN,
    number of infinite ones, mean of the predictor, and number of places where it is infinite, or NaN beside a value.
    """
    facts = np.zeros((expression.shape[0], N_FACTS))
    is_known = ~np.isnan(expression)
    facts[:, 0] = _known_means(expression, is_known)
    facts[:, 1] = is_known.sum(axis=1)
    facts[:, 2] = np.isinf(expression).sum(axis=1)
    if predictor is not None:
        has_predictor = ~np.isnan(predictor)
        facts[:, 3] = _known_means(predictor, has_predictor)
        facts[:, 4] = (np.isinf(predictor) | (is_known & ~has_predictor)).sum(axis=1)
    fits = fit_rows(expression, weights, design=design, blocks=blocks, correlation=correlation)
    return np.hstack([fits, facts])


def _known_means(values: Floats, is_known: np.ndarray) -> Floats:
    """Return the mean of the known values of each row, NaN where there is none; rounded as ``numpy.nanmean`` is."""
    counts = is_known.sum(axis=1)
    sums = np.where(is_known, values, 0.0).sum(axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def trend_weights(
    coefficients: Floats,
    predictor: Floats | None = None,
    prior_weights: Floats | None = None,
    *,
    design: Floats,
    curve_x: Floats,
    curve_y: Floats,
    slopes: Floats,
    sample_weights: Floats | None = None,
) -> Floats:
    """Return the precision of every observation: curve(fitted value)⁻⁴ times other weights, (genes, n).

    Parameters
    ----------
    coefficients
        Of the estimable columns (genes, rank); NaN makes the gene's weights NaN.
    predictor
        Further abscissa of the trend (genes, n) or (genes, 1).
    prior_weights
        (genes, n), (genes, 1) or (1, n).
    design
        Estimable columns (n, rank).
    curve_x, curve_y
        Points of the trend, ascending (m,).
    slopes
        Intercept, and slopes of fitted value and predictor, that make the abscissa (3,); used with a predictor.
    sample_weights
        (n,).
    """
    abscissa = coefficients @ design.T
    abscissa[np.isnan(coefficients).any(axis=1)] = np.nan  # not left to how BLAS multiplies NaN by zero
    if predictor is not None:
        abscissa = slopes[0] + slopes[1] * abscissa + slopes[2] * predictor
    weights = np.ones(abscissa.shape)
    precisions(abscissa, curve_x, curve_y, weights)
    if prior_weights is not None:
        weights *= prior_weights
    if sample_weights is not None:
        weights *= sample_weights
    return weights


def combined_abscissa(roots: Floats, means: Floats, predictor_means: Floats) -> Floats:
    """Return intercept and slopes (3,) of the square-root deviations on mean expression and mean predictor.

    Genes without one of the three are left out; if the two go together, the shortest solution is taken.
    """
    columns = np.column_stack([np.ones_like(means), means, predictor_means])
    is_known = np.isfinite(roots) & np.isfinite(columns).all(axis=1)
    return np.asarray(np.linalg.lstsq(columns[is_known], roots[is_known], rcond=None)[0])
