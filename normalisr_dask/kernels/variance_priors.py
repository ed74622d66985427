r"""The prior of gene variances: a scaled F distribution :math:`s^2 \sim s_0^2 F(d, d_0)`, and variances squeezed to it.

Letters: s² residual variances on d degrees of freedom, s₀² prior variance (one, or a trend), d₀ prior degrees of
freedom.

Sources: Smyth, Statistical Applications in Genetics and Molecular Biology 3:3 (2004), doi:10.2202/1544-6115.1027;
for a trend Law et al., Genome Biology 15:R29 (2014), doi:10.1186/gb-2014-15-2-r29.
"""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import digamma, gammaln, polygamma

from normalisr_dask.kernels.least_squares import Floats
from normalisr_dask.kernels.weighted_lowess import spread_trend

#: A variance counts as at least this share of the median one.
SMALLEST_SHARE = 1e-5
SMALLEST_SHARE_UNEQUAL = 1e-12
#: Prior degrees of freedom of unequal ones are sought between these shares d/(1 + d) of half of them.
SHARES = (0.5, 0.9998)
SHARE_TOLERANCE = float(np.finfo(np.float64).eps ** 0.25)


class VariancePrior(NamedTuple):
    """Prior variance and degrees of freedom.

    Attributes
    ----------
    scale
        s₀²: one number, or one a gene (genes,).
    df
        d₀: one number, or one a gene (genes,); may be infinite.
    """

    scale: float | Floats
    df: float | Floats


def trigamma(x: Floats) -> Floats:
    """Return ψ₁."""
    return np.asarray(polygamma(1, x))


def trigamma_inverse(value: float) -> float:
    """Return y with ψ₁(y) = value, by Newton's method."""
    if value > 1e7:
        return float(1.0 / np.sqrt(value))
    if value < 1e-6:
        return 1.0 / value
    y = 0.5 + 1.0 / value
    for _ in range(50):
        now = float(polygamma(1, y))
        step = now * (1.0 - now / value) / float(polygamma(2, y))
        y += step
        if -step / y < 1e-8:
            break
    return y


def log_excess(df: Floats | float) -> Floats:
    """Return ψ(d/2) − log(d/2): the mean of log(χ²/d)."""
    half = np.asarray(df) / 2.0
    return np.asarray(digamma(half) - np.log(half))


def finite_covariate(covariate: Floats) -> Floats:
    """Return a covariate whose infinite values lie one beyond the finite ones.

    Raises
    ------
    ValueError
        If one is NaN.
    """
    if np.isnan(covariate).any():
        msg = f"expected a trend over known values, found NaN for {np.isnan(covariate).sum()} genes"
        raise ValueError(msg)
    finite = covariate[np.isfinite(covariate)]
    if finite.size == covariate.size or finite.size == 0:
        return covariate
    return np.nan_to_num(covariate, posinf=finite.max() + 1.0, neginf=finite.min() - 1.0)


def natural_spline(x: Floats, knots: Floats) -> Floats:
    """Return a basis of the natural cubic splines with these knots, ascending, at x: (points, knots).

    At an inner knot that comes twice the second derivative may jump, too.
    """
    scale = knots[-1] - knots[0]
    x, knots = (x - knots[0]) / scale, (knots - knots[0]) / scale
    above = np.clip(np.subtract.outer(x, knots), 0.0, None)
    to_end = knots[-1] - knots[:-1]
    divided = (above[:, :-1] ** 3 - above[:, -1:] ** 3) / to_end
    columns = divided[:, :-1] - divided[:, -1:]
    is_repeated = np.diff(knots[:-1]) == 0.0
    # two knots that meet: their difference, over their distance, becomes the derivative by the knot
    derivatives = (divided[:, :-1] - 3.0 * above[:, :-2] ** 2) / to_end[:-1]
    return np.column_stack([np.ones_like(x), x, np.where(is_repeated, derivatives, columns)])


def spline_knots(covariate: Floats) -> Floats:
    """Return knots for a smooth trend: ends, and up to two quantiles between them, by the number of points."""
    n_points = covariate.size
    n_columns = 1 + (n_points >= 3) + (n_points >= 6) + (n_points >= 30)
    distinct = np.unique(covariate)
    n_columns = min(n_columns, distinct.size)
    if n_columns < 2:
        return distinct[:1]
    knots = np.quantile(covariate, np.linspace(0.0, 1.0, n_columns))
    inner = slice(1, -1)
    for end, towards in ((0, 1), (-1, -1)):
        is_at_end = knots[inner] == knots[end]
        if is_at_end.any():
            warnings.warn(
                "many genes have the lowest or highest mean: the trend bends near it", UserWarning, stacklevel=4
            )
            neighbour = np.unique(knots)[end + towards]
            knots[inner][is_at_end] = knots[end] + (neighbour - knots[end]) / 8.0
    return knots


def fit_moments(variances: Floats, df: Floats, covariate: Floats | None = None) -> VariancePrior:
    """Fit the prior by mean and variance of the log-variances.

    Parameters
    ----------
    variances, df
        s² and d (genes,); genes without degrees of freedom are left out.
    covariate
        What a trend of s₀² follows (genes,), or None.
    """
    is_used = np.isfinite(df) & (df > 1e-15) & np.isfinite(variances) & (variances > -1e-15)
    n_used = int(is_used.sum())
    if n_used < 2:
        return VariancePrior(float(variances[is_used][0]) if n_used else np.nan, 0.0 if n_used else np.nan)
    known, known_df = np.maximum(variances[is_used], 0.0), df[is_used]
    median = float(np.median(known))
    if median == 0.0:
        warnings.warn(
            "more than half of the variances are 0: variances are not squeezed well", UserWarning, stacklevel=4
        )
        median = 1.0
    elif (known == 0.0).any():
        warnings.warn("some variances are 0: they are offset from it", UserWarning, stacklevel=4)
    known = np.maximum(known, SMALLEST_SHARE * median)
    logs = np.log(known) - log_excess(known_df)
    knots = spline_knots(finite_covariate(covariate)[is_used]) if covariate is not None else np.empty(0)
    if knots.size < 2:
        mean: float | Floats = float(logs.mean())
        spread = float(((logs - mean) ** 2).sum() / (n_used - 1))
        means = mean if covariate is None else np.full(variances.shape, mean)
    else:
        basis = natural_spline(finite_covariate(np.asarray(covariate)), knots)
        coefficients, _, rank, _ = np.linalg.lstsq(basis[is_used], logs, rcond=None)
        means = basis @ coefficients
        spread = float(((logs - means[is_used]) ** 2).sum() / (n_used - rank)) if n_used > rank else 0.0
    spread -= float(trigamma(known_df / 2.0).mean())
    if spread > 0.0:
        prior_df = 2.0 * trigamma_inverse(spread)
        return VariancePrior(np.exp(means + log_excess(prior_df))[()], prior_df)
    if knots.size >= 2:
        return VariancePrior(np.exp(means), np.inf)
    mean = float(known.mean())
    return VariancePrior(mean if covariate is None else np.full(variances.shape, mean), np.inf)


def fit_likelihood(
    variances: Floats,
    df: Floats,
    covariate: Floats | None = None,
    *,
    span: float | None = None,
    prior_weights: Floats | None = None,
) -> VariancePrior:
    """Fit the prior by maximum likelihood, for degrees of freedom that differ.

    Parameters
    ----------
    variances, df
        s² and d (genes,).
    covariate
        What a trend of s₀² follows (genes,), or None.
    span
        Of the trend; by the number of genes if None.
    prior_weights
        How much each gene counts (genes,); all 1 if None.
    """
    weights = np.ones_like(variances) if prior_weights is None else prior_weights.copy()
    weights[np.isnan(variances) | (df < 0.01)] = 0.0
    df = np.where(df < 0.01, 1.0, df)
    variances = np.where(np.isnan(variances), 0.0, variances)
    is_informative = (variances > 0.0) & (weights > 0.0)
    n_informative = int(is_informative.sum())
    if n_informative < 2:
        return VariancePrior(np.nan, np.nan)
    if n_informative == 2:
        covariate = None
        weights = np.where(weights > 0.0, 1.0, 0.0)
    floored = np.maximum(variances, SMALLEST_SHARE_UNEQUAL * np.median(variances[is_informative]))
    logs = np.log(floored) - log_excess(df)
    precision = weights / trigamma(df / 2.0)
    if covariate is None:
        means: float | Floats = float(np.sum(precision * logs) / np.sum(precision))
    else:
        means = spread_trend(finite_covariate(covariate), logs, precision, span)

    def loss(share: float) -> float:
        half = share / (1.0 - share)
        log_scale = digamma(half) + means
        terms = (
            -(df / 2 + half) * np.log1p(df / 2 * floored / np.exp(log_scale))
            - df / 2 * log_scale
            + gammaln(df / 2 + half)
            - gammaln(half)
        )
        return float(-2.0 * np.sum(weights * terms))

    share = float(minimize_scalar(loss, bounds=SHARES, method="bounded", options={"xatol": SHARE_TOLERANCE}).x)
    prior_df = 2.0 * share / (1.0 - share)
    return VariancePrior(np.exp(means + log_excess(prior_df))[()], prior_df)


def squeezed(variances: Floats, df: Floats, prior: VariancePrior) -> Floats:
    """Return (d s² + d₀ s₀²)/(d + d₀) of every gene, and s₀² where d₀ is infinite."""
    prior_df = np.broadcast_to(prior.df, variances.shape)
    is_finite = np.isfinite(prior_df)
    finite_df = np.where(is_finite, prior_df, 0.0)
    total = np.where(is_finite & (df + finite_df > 0), df + finite_df, 1.0)
    mixed = (df * variances + finite_df * prior.scale) / total
    return np.where(is_finite, mixed, prior.scale)
