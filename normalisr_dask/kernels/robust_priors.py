"""The prior of gene variances where a few genes vary far more than others: they get fewer prior degrees of freedom.

Letters as in :mod:`normalisr_dask.kernels.variance_priors`.

Source: Phipson et al., Annals of Applied Statistics 10:946 (2016), doi:10.1214/16-AOAS920.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import betainc, betaincinv, chdtrc, fdtrc, gammaincinv, gammaln
from scipy.stats import rankdata, trim_mean

from normalisr_dask.kernels.least_squares import Floats
from normalisr_dask.kernels.lowess import lowess
from normalisr_dask.kernels.multiple_testing import benjamini_hochberg
from normalisr_dask.kernels.variance_priors import VariancePrior, finite_covariate, fit_likelihood, fit_moments

SMALLEST_SHARE = 1e-12
SPAN = 0.4
N_NODES = 128
#: A gene whose Q-value of being an outlier is above this is none.
LARGEST_OUTLIER_Q = 0.3


def upper_tail(values: Floats, df: Floats | float, prior_df: float) -> Floats:
    """Return P(F > value), of χ²/d where d₀ is infinite."""
    if np.isinf(prior_df):
        return np.asarray(chdtrc(df, np.asarray(df) * values))
    return np.asarray(fdtrc(df, prior_df, values))


def lower_tail(values: Floats, df: Floats | float, prior_df: float) -> Floats:
    """Return P(F < value)."""
    if np.isinf(prior_df):
        return np.asarray(1.0 - chdtrc(df, np.asarray(df) * values))
    scaled = np.asarray(df) * values
    return np.asarray(betainc(np.asarray(df) / 2, prior_df / 2, scaled / (scaled + prior_df)))


def lower_quantile(probability: Floats | float, df: float, prior_df: float) -> Floats:
    """Return the value below which F lies with the given probability."""
    if np.isinf(prior_df):
        return np.asarray(gammaincinv(df / 2, probability) * 2 / df)
    beta = betaincinv(df / 2, prior_df / 2, probability)
    return np.asarray(prior_df * beta / (df * (1.0 - beta)))


def upper_quantile(probability: Floats | float, df: float, prior_df: float) -> Floats:
    """Return the value above which F lies with the given probability."""
    if np.isinf(prior_df):
        return lower_quantile(1.0 - np.asarray(probability), df, prior_df)
    beta = betaincinv(prior_df / 2, df / 2, probability)
    return np.asarray(prior_df * (1.0 - beta) / (df * beta))


def winsorised_moments(df: float, prior_df: float, tails: tuple[float, float]) -> tuple[float, float]:
    """Return mean and variance of log F, winsorised at its quantiles, by Gauss-Legendre quadrature in F/(1 + F)."""
    ends = np.array([lower_quantile(tails[0], df, prior_df), upper_quantile(tails[1], df, prior_df)])
    low, high = ends / (1.0 + ends)
    nodes, node_weights = np.polynomial.legendre.leggauss(N_NODES)
    nodes = low + (high - low) * (nodes + 1.0) / 2.0
    values = nodes / (1.0 - nodes)
    density = np.exp(_log_density(values, df, prior_df)) / (1.0 - nodes) ** 2
    masses = density * node_weights * (high - low) / 2.0
    logs, end_logs, end_masses = np.log(values), np.log(ends), np.array(tails)
    mean = float(masses @ logs + end_masses @ end_logs)
    variance = float(masses @ (logs - mean) ** 2 + end_masses @ (end_logs - mean) ** 2)
    return mean, variance


def _log_density(values: Floats, df: float, prior_df: float) -> Floats:
    if np.isinf(prior_df):
        return np.asarray(df / 2 * np.log(df / 2) - gammaln(df / 2) + (df / 2 - 1) * np.log(values) - df / 2 * values)
    ratio = df / prior_df
    constant = gammaln((df + prior_df) / 2) - gammaln(df / 2) - gammaln(prior_df / 2) + df / 2 * np.log(ratio)
    return np.asarray(constant + (df / 2 - 1) * np.log(values) - (df + prior_df) / 2 * np.log1p(ratio * values))


def outlier_df(log_tails: Floats, log_shares: Floats, values: Floats, df: Floats, prior_df: float) -> Floats:
    """Return prior degrees of freedom of every gene, fewer for genes that are outliers.

    Parameters
    ----------
    log_tails
        log P(F > value) (genes,).
    log_shares
        log of how probable it is that a gene is none, at most 0 (genes,).
    values, df
        F and d of every gene (genes,).
    prior_df
        d₀ of the genes that are none.
    """
    worst = int(np.argmin(log_tails))
    outlying = 0.0
    if np.isfinite(log_tails[worst]):
        outlying = np.log(0.5) / log_tails[worst] * prior_df
        again = np.log(upper_tail(values[worst], float(df[worst]), outlying))
        outlying = float(np.log(0.5) / again * outlying)
    shares = np.exp(log_shares)
    mixed = shares * prior_df + (1.0 - shares) * outlying
    return _monotone(mixed, log_tails)


def _monotone(prior_df: Floats, log_tails: Floats) -> Floats:
    """Return degrees of freedom that do not fall with the tail probability."""
    order = np.argsort(log_tails, kind="stable")
    ordered = prior_df[order]
    means = np.cumsum(ordered) / np.arange(1, ordered.size + 1)
    lowest = int(np.argmin(means))
    ordered[: lowest + 1] = means[lowest]
    result = np.empty_like(prior_df)
    result[order] = np.maximum.accumulate(ordered)
    return result


def _empirical_tails(values: Floats) -> Floats:
    """Return the share of genes above each, (n − rank + ½)/n."""
    return np.asarray((values.size - rankdata(values) + 0.5) / values.size)


def fit_moments_robustly(
    variances: Floats, df: Floats, covariate: Floats | None, tails: tuple[float, float]
) -> VariancePrior:
    """Fit the prior by winsorised moments, and find the genes that it does not fit.

    Parameters
    ----------
    variances, df
        s² and d (genes,).
    covariate
        What a trend of s₀² follows (genes,), or None.
    tails
        Shares of genes to winsorise at the lower and the upper end.

    Raises
    ------
    ValueError
        If half of the variances are 0.
    """
    is_used = ~np.isnan(variances) & np.isfinite(df) & (df > 1e-6)
    if is_used.sum() <= 2:
        return fit_moments(variances, df, covariate)
    if not is_used.all():
        known = fit_moments_robustly(
            variances[is_used], df[is_used], None if covariate is None else covariate[is_used], tails
        )
        return _spread_out(known, is_used, covariate)
    n_genes = variances.size
    median = float(np.median(variances))
    if median <= 0.0:
        msg = "half of the residual variances are 0, expected genes that vary; leave genes without variation out"
        raise ValueError(msg)
    variances = np.maximum(variances, SMALLEST_SHARE * median)
    plain = fit_moments(variances, df, covariate)
    if tails[0] < 1.0 / n_genes and tails[1] < 1.0 / n_genes:
        return plain
    plain_df = float(plain.df)
    largest = float(df.max())
    if (df < largest).any():
        variances = _on_one_df(variances / plain.scale, df, largest, plain_df) * plain.scale
    logs = np.log(variances)
    if covariate is None:
        trend: float | Floats = float(trim_mean(logs, tails[1]))
    else:
        finite = finite_covariate(covariate)
        order = np.argsort(finite, kind="stable")
        trend = np.empty(n_genes)
        trend[order] = lowess(finite, logs, span=SPAN, delta=0.01 * float(np.ptp(finite)))[1]
    residuals = logs - trend
    winsorised = np.clip(residuals, *np.quantile(residuals, [tails[0], 1.0 - tails[1]]))
    mean, spread = float(winsorised.mean()), float(winsorised.var(ddof=1))

    def excess(share: float) -> float:
        candidate = share / (1.0 - share) if share < 1.0 else np.inf
        return float(np.log(spread / winsorised_moments(largest, candidate, tails)[1]))

    if excess(1.0) <= 0.0:
        scale = np.exp(trend + mean - winsorised_moments(largest, np.inf, tails)[0])
        return _outliers_of_common_variance(variances, scale, largest)
    if np.isinf(plain_df):
        return plain
    lower = plain_df / (1.0 + plain_df)
    share = lower if excess(lower) >= 0.0 else float(brentq(excess, lower, 1.0, xtol=1e-8))
    prior_df = share / (1.0 - share) if share > lower else plain_df
    scale = np.exp(trend + mean - winsorised_moments(largest, prior_df, tails)[0])
    values = variances / scale
    with np.errstate(divide="ignore"):
        log_tails = np.log(upper_tail(values, largest, prior_df))
    log_shares = np.minimum(log_tails - np.log(_empirical_tails(values)), 0.0)
    if not (log_shares < 0.0).any():
        return VariancePrior(scale, prior_df)
    return VariancePrior(scale, outlier_df(log_tails, log_shares, values, np.full(n_genes, largest), prior_df))


def _on_one_df(values: Floats, df: Floats, largest: float, prior_df: float) -> Floats:
    """Return values of F on the largest degrees of freedom with the tail probabilities that these have."""
    upper, lower = upper_tail(values, df, prior_df), lower_tail(values, df, prior_df)
    is_upper = upper < lower
    mapped = np.where(
        is_upper,
        upper_quantile(np.where(is_upper, upper, 0.5), largest, prior_df),
        lower_quantile(np.where(is_upper, 0.5, lower), largest, prior_df),
    )
    # a tail too thin for float64 tells nothing: the value stays
    return np.where(np.isfinite(mapped) & (mapped > 0.0), mapped, values)


def _outliers_of_common_variance(variances: Floats, scale: float | Floats, df: float) -> VariancePrior:
    """Return infinite prior degrees of freedom but for the genes that vary more than such a prior lets them."""
    values = variances / scale
    tails = upper_tail(values, df, np.inf)
    shares = np.minimum(tails / _empirical_tails(values), 1.0)
    if not (shares < 1.0).any():
        return VariancePrior(scale, np.inf)
    prior_df = np.where(shares < 1.0, shares * variances.size * df, np.inf)
    order = np.argsort(tails, kind="stable")
    prior_df[order] = np.maximum.accumulate(prior_df[order])
    return VariancePrior(scale, prior_df)


def _spread_out(known: VariancePrior, is_used: np.ndarray, covariate: Floats | None) -> VariancePrior:
    """Give the genes that were left out the common prior, at their place in the trend."""
    scale: float | Floats = known.scale
    if covariate is not None:
        finite = finite_covariate(covariate)
        order = np.argsort(finite[is_used], kind="stable")
        scales = np.broadcast_to(known.scale, (int(is_used.sum()),))
        logs = np.interp(finite, finite[is_used][order], np.log(scales)[order])
        scale = np.where(is_used, 0.0, np.exp(logs))
        scale[is_used] = scales
    if np.ndim(known.df) == 0:
        return VariancePrior(scale, known.df)
    prior_df = np.full(is_used.size, np.max(known.df))
    prior_df[is_used] = known.df
    return VariancePrior(scale, prior_df)


def fit_likelihood_robustly(
    variances: Floats, df: Floats, covariate: Floats | None, span: float | None
) -> VariancePrior:
    """Fit the prior by maximum likelihood, leave out the genes that it does not fit, and fit again."""
    first = fit_likelihood(variances, df, covariate, span=span)
    if np.isnan(first.df):
        return first
    is_known = ~np.isnan(variances) & (df >= 0.01)
    values = np.where(is_known, variances, 0.0) / first.scale
    used_df = np.where(df < 0.01, 1.0, df)
    upper = upper_tail(values, used_df, float(first.df))
    two_sided = np.minimum(2.0 * np.minimum(upper, 1.0 - upper), 1.0)
    q_values = benjamini_hochberg(two_sided)
    q_values[q_values > LARGEST_OUTLIER_Q] = 1.0
    if not (q_values < 1.0).any():
        return first
    second = fit_likelihood(variances, df, covariate, prior_weights=q_values)
    # how far a gene lies out is seen in the first fit, to which all genes have contributed
    with np.errstate(divide="ignore"):
        log_tails = np.log(upper)
    log_shares = np.minimum(log_tails - np.log(_empirical_tails(values)), 0.0)
    if not (log_shares < 0.0).any():
        return second
    return VariancePrior(second.scale, outlier_df(log_tails, log_shares, values, used_df, float(second.df)))
