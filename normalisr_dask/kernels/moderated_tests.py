r"""Tests with squeezed variances: moderated t, log-odds of an effect, F over coefficients, tests against a threshold.

Letters: t moderated t-statistics on ν degrees of freedom, u standard errors over sigma, v₀ prior variance of effects.

Sources: Smyth, Statistical Applications in Genetics and Molecular Biology 3:3 (2004), doi:10.2202/1544-6115.1027;
McCarthy & Smyth, Bioinformatics 25:765 (2009), doi:10.1093/bioinformatics/btp053.
"""

import numpy as np
from scipy.special import betaincinv, chdtrc, fdtrc, gammaln, stdtr, stdtrit

from normalisr_dask.kernels.least_squares import Floats

#: Degrees of freedom from which on a prior counts as infinite in log-odds.
VERY_MANY = 1e6
#: Eigenvalues of the correlation of coefficients below this share of the largest count as zero.
SMALLEST_EIGENVALUE = 1e-8
#: Positive nodes of the quadrature over thresholds.
N_THRESHOLDS = 8


def upper_t(values: Floats, df: Floats | float) -> Floats:
    """Return P(T > value)."""
    return np.asarray(stdtr(df, -np.asarray(values)))


def two_sided(t: Floats, df: Floats) -> Floats:
    """Return P(|T| > |t|)."""
    return np.asarray(2.0 * upper_t(np.abs(t), df))


def _t_of_tail(tail: Floats, df: float) -> Floats:
    """Return the value that T exceeds with a probability of at most ½; precise for small ones."""
    beta = betaincinv(df / 2.0, 0.5, 2.0 * tail)
    far = np.sqrt(df * (1.0 - beta) / np.where(beta > 0, beta, 1.0))
    return np.asarray(np.where(tail < 0.05, far, -stdtrit(df, tail)))


def _on_largest_df(t: Floats, df: Floats, largest: float) -> Floats:
    """Return the |t| on the largest degrees of freedom that have the same tail probabilities."""
    tail = upper_t(t, df)
    mapped = _t_of_tail(np.maximum(tail, np.finfo(np.float64).tiny), largest)
    # where the tail underflows: that of T is about exp(c) t^-df
    log_tail = _log_tail(t, df)
    constant = gammaln((largest + 1) / 2) - 0.5 * np.log(largest * np.pi) - gammaln(largest / 2)
    far = np.exp((constant + (largest - 1) / 2 * np.log(largest) - log_tail) / largest)
    return np.where(df == largest, t, np.where(tail > 1e-290, mapped, far))


def _log_tail(t: Floats, df: Floats) -> Floats:
    """Return log P(T > t) of very large t, from the leading power of t."""
    constant = gammaln((df + 1) / 2) - 0.5 * np.log(df * np.pi) - gammaln(df / 2) + (df - 1) / 2 * np.log(df)
    return np.asarray(constant - df * np.log(t))


def effect_variance(t: Floats, unscaled: Floats, df: Floats, proportion: float, limits: tuple[float, float]) -> float:
    """Return v₀ of one coefficient, from the genes of largest |t|.

    Parameters
    ----------
    t, unscaled, df
        t, u and ν (genes,); genes whose t is NaN are left out.
    proportion
        Expected share of genes with an effect.
    limits
        Smallest and largest v₀.
    """
    is_known = ~np.isnan(t)
    t, unscaled, df = np.abs(t[is_known]), unscaled[is_known], df[is_known]
    n_genes = t.size
    n_top = int(np.ceil(proportion / 2.0 * n_genes))
    if n_top < 1:
        return np.nan
    share = max(n_top / n_genes, proportion)
    largest = float(df.max())
    if (df < largest).any():
        t = _on_largest_df(t, df, largest)
    top = np.argsort(-t, kind="stable")[:n_top]
    t, unscaled = t[top], unscaled[top]
    ranks = np.arange(1, n_top + 1)
    null_tail = two_sided(t, np.full(n_top, largest))
    expected = ((ranks - 0.5) / n_genes - (1.0 - share) * null_tail) / share
    is_larger = expected > null_tail
    quantile = _t_of_tail(np.where(is_larger, expected, 0.5) / 2.0, largest)
    variances = np.where(is_larger, unscaled**2 * ((t / quantile) ** 2 - 1.0), 0.0)
    return float(np.clip(variances, *limits).mean())


def log_odds(
    t: Floats, unscaled: Floats, df: Floats, effect_variances: Floats, prior_df: Floats, proportion: float
) -> Floats:
    """Return the log-odds that a coefficient is not zero, (genes, columns).

    Parameters
    ----------
    t, unscaled
        t and u (genes, columns).
    df, prior_df
        ν and prior degrees of freedom (genes,).
    effect_variances
        v₀ of each coefficient (columns,), or of each gene and coefficient.
    proportion
        Expected share of genes with an effect.
    """
    ratio = (unscaled**2 + effect_variances) / unscaled**2
    squares, total = t**2, df[:, None]
    kernel = (1.0 + total) / 2.0 * np.log((squares + total) / (squares / ratio + total))
    kernel = np.where(prior_df[:, None] > VERY_MANY, squares * (1.0 - 1.0 / ratio) / 2.0, kernel)
    return np.asarray(np.log(proportion / (1.0 - proportion)) - np.log(ratio) / 2.0 + kernel)


def correlation_of(covariance: Floats) -> Floats:
    """Return the correlation matrix of a covariance; a zero variance counts as 1."""
    deviations = np.sqrt(np.where(np.diag(covariance) > 0, np.diag(covariance), 1.0))
    correlation = covariance / np.outer(deviations, deviations)
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def f_statistics(t: Floats, covariance: Floats) -> tuple[Floats, int]:
    """Return the F-statistic of every gene over all coefficients (genes,), and its numerator degrees of freedom."""
    if t.shape[1] == 1:
        return t[:, 0] ** 2, 1
    eigenvalues, eigenvectors = np.linalg.eigh(correlation_of(covariance))
    is_kept = eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[-1]
    n_kept = int(is_kept.sum())
    scaled = t @ (eigenvectors[:, is_kept] / np.sqrt(eigenvalues[is_kept]))
    return (scaled**2).sum(axis=1) / n_kept, n_kept


def upper_f(values: Floats, numerator: int, denominator: Floats) -> Floats:
    """Return P(F > value); χ² where the denominator has infinite degrees of freedom."""
    is_finite = np.isfinite(denominator)
    finite = fdtrc(numerator, np.where(is_finite, denominator, 1.0), values)
    return np.asarray(np.where(is_finite, finite, chdtrc(numerator, numerator * values)))


def threshold_tails(effects: Floats, errors: Floats, df: Floats, threshold: float) -> Floats:
    """Return P(|effect| as large or larger) if the true one is at the threshold, (genes, columns)."""
    near = upper_t((np.abs(effects) - threshold) / errors, df)
    return np.asarray(near + upper_t((np.abs(effects) + threshold) / errors, df))


def mean_threshold_tails(effects: Floats, errors: Floats, df: Floats, threshold: float) -> Floats:
    """Return `threshold_tails` averaged over true effects between the two thresholds."""
    nodes, node_weights = np.polynomial.legendre.leggauss(2 * N_THRESHOLDS)
    positive = nodes > 0
    tails = np.zeros_like(effects)
    for node, weight in zip(nodes[positive], node_weights[positive], strict=True):
        tails += weight * threshold_tails(effects, errors, df, node * threshold)
    return tails
