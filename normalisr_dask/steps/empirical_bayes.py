"""Moderated tests: gene variances squeezed to a common value or trend, t, F, log-odds, and tests of a threshold."""

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.kernels import moderated_tests as tests
from normalisr_dask.kernels.robust_priors import fit_likelihood_robustly, fit_moments_robustly
from normalisr_dask.kernels.variance_priors import VariancePrior, fit_likelihood, fit_moments, squeezed
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.fit_access import keep_fit, need, open_fit
from normalisr_dask.validation import check_not_negative, check_positive, check_probability

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Moderated:
    """Squeezed variances of a fit.

    Attributes
    ----------
    prior
        Prior variance and degrees of freedom.
    variances, df_total
        Squeezed variances and degrees of freedom of the tests (genes,).
    """

    prior: VariancePrior
    variances: Floats
    df_total: Floats

    def entries(self) -> dict[str, Any]:
        """Return what goes into a fit."""
        return {
            "df_prior": self.prior.df,
            "s2_prior": self.prior.scale,
            "s2_post": self.variances,
            "df_total": self.df_total,
        }

    @property
    def prior_df(self) -> Floats:
        """Prior degrees of freedom of every gene."""
        return np.broadcast_to(np.asarray(self.prior.df, dtype=np.float64), self.variances.shape)


def moderate(
    fit: LinearFit,
    trend: Any,
    span: float | None,
    winsor_tail_p: tuple[float, float],
    *,
    robust: bool,
    legacy: bool | None,
) -> Moderated:
    """Squeeze the variances of a fit.

    Raises
    ------
    ValueError
        If no gene has residual degrees of freedom, the trend has another length or cannot be had, or the shares of
        genes are none.
    TypeError
        If the trend or the shares are no numbers.
    """
    _check_pair(winsor_tail_p, "winsor_tail_p")
    if not 0 <= winsor_tail_p[0] < 1 - winsor_tail_p[1] <= 1:
        msg = f"expected winsor_tail_p as two shares of genes, together below 1, found {winsor_tail_p}"
        raise ValueError(msg)
    sigma, df = np.asarray(fit["sigma"]), np.asarray(fit["df_residual"], dtype=np.float64)
    if not (df > 0).any() or not np.isfinite(sigma).any():
        msg = "no gene has residual degrees of freedom, so there is no variance to test with; use more samples"
        raise ValueError(msg)
    covariate = _covariate(fit, trend, sigma.size)
    variances = np.where(df > 0, sigma, 0.0) ** 2
    prior = _prior(variances, df, covariate, span, winsor_tail_p, robust=robust, legacy=legacy)
    if np.isnan(np.asarray(prior.df)).any():
        msg = "the prior degrees of freedom cannot be estimated: too few genes have residual variance"
        raise ValueError(msg)
    df_total = np.minimum(df + prior.df, np.nansum(df))
    return Moderated(prior, squeezed(variances, df, prior), df_total)


def _check_pair(values: Any, name: str) -> None:
    if np.shape(values) != (2,) or not all(isinstance(value, Real) for value in values):
        msg = f"expected {name} as two numbers, found {values!r}"
        raise TypeError(msg)


def _covariate(fit: LinearFit, trend: Any, n_genes: int) -> Floats | None:
    if isinstance(trend, bool | np.bool_):
        if not trend:
            return None
        need(fit, ("Amean",), "trend=True")
        return np.asarray(fit["Amean"], dtype=np.float64)
    covariate = np.asarray(trend)
    if covariate.dtype.kind not in "iuf":
        msg = f"expected trend as True, False or one number for each of {n_genes} genes, found {covariate.dtype}"
        raise TypeError(msg)
    covariate = covariate.astype(np.float64)
    if covariate.shape != (n_genes,):
        msg = f"expected trend as True, False or one number for each of {n_genes} genes, found shape {covariate.shape}"
        raise ValueError(msg)
    return covariate


def _prior(
    variances: Floats,
    df: Floats,
    covariate: Floats | None,
    span: float | None,
    winsor_tail_p: tuple[float, float],
    *,
    robust: bool,
    legacy: bool | None,
) -> VariancePrior:
    if variances.size < 3:
        return VariancePrior(np.nan, 0.0)
    if span is not None:
        legacy = False
    if legacy is None:
        legacy = bool(np.ptp(df[df > 0]) == 0)
    if legacy and robust:
        return fit_moments_robustly(variances, df, covariate, winsor_tail_p)
    if legacy:
        return fit_moments(variances, df, covariate)
    if robust:
        return fit_likelihood_robustly(variances, df, covariate, span)
    return fit_likelihood(variances, df, covariate, span=span)


def e_bayes(
    data,
    proportion: float = 0.01,
    stdev_coef_lim: tuple[float, float] = (0.1, 4.0),
    trend=False,  # noqa: FBT002
    span: float | None = None,
    robust: bool = False,  # noqa: FBT001, FBT002  limma's own signature
    winsor_tail_p: tuple[float, float] = (0.05, 0.1),
    legacy: bool | None = None,  # noqa: FBT001
    key: str = "pylimma",
) -> LinearFit | None:
    r"""Squeeze gene variances and test every coefficient.

    Variances are taken to follow :math:`s_0^2 F(d, d_0)`; :math:`\tilde s^2 = (d s^2 + d_0 s_0^2)/(d + d_0)` takes
    their place, on more degrees of freedom [1]_.

    Parameters
    ----------
    data : LinearFit, dict or AnnData
        What :func:`lm_fit`, :func:`vooma_lm_fit` or :func:`contrasts_fit` returned, or was applied to.
    proportion : float
        Expected share of genes with an effect, for the log-odds.
    stdev_coef_lim : (float, float)
        Smallest and largest standard deviation of effects, over that of residuals.
    trend : bool or array (genes,)
        Whether s₀² follows mean expression, or the covariate that it follows.
    span : float, optional
        Of that trend.
    robust : bool
        Whether to let a few genes vary far more than the rest [2]_.
    winsor_tail_p : (float, float)
        Shares of genes that ``robust`` moves in at the lower and the upper end.
    legacy : bool, optional
        Whether to fit the prior by moments; if None, only where all genes have the same degrees of freedom.
    key : str
        Where in ``adata.uns`` the fit is.

    Returns
    -------
    LinearFit or None
        The fit, and ``df_prior``, ``s2_prior`` (numbers, or (genes,) with robust or trend), ``var_prior`` (columns,),
        ``proportion``, ``s2_post``, ``df_total`` (genes,), ``t``, ``p_value``, ``lods`` (genes, columns), and ``F``,
        ``F_p_value`` (genes,) if the design has full rank. None for AnnData, which is changed.

    Raises
    ------
    ValueError
        If the fit lacks something, no gene has residual degrees of freedom, or a trend does not fit.
    TypeError
        If it is no fit, or an option is no number.

    Warns
    -----
    UserWarning
        If variances are zero, or the variance of effects cannot be estimated.

    Notes
    -----
    In memory; time O(genes · columns).

    References
    ----------
    .. [1] Smyth, Statistical Applications in Genetics and Molecular Biology 3:3 (2004), doi:10.2202/1544-6115.1027.
    .. [2] Phipson et al., Annals of Applied Statistics 10:946 (2016), doi:10.1214/16-AOAS920.
    """
    check_probability(proportion, "proportion")
    _check_pair(stdev_coef_lim, "stdev_coef_lim")
    fit = open_fit(data, key)
    need(fit, ("coefficients", "stdev_unscaled", "sigma", "df_residual"), "e_bayes")
    moderated = moderate(fit, trend, span, winsor_tail_p, robust=robust, legacy=legacy)
    coefficients, unscaled = np.asarray(fit["coefficients"]), np.asarray(fit["stdev_unscaled"])
    t = coefficients / (unscaled * np.sqrt(moderated.variances)[:, None])
    fit |= moderated.entries()
    fit["proportion"] = proportion
    fit["t"] = t
    fit["p_value"] = tests.two_sided(t, moderated.df_total[:, None])
    fit |= _log_odds(fit, moderated, proportion, stdev_coef_lim)
    if _has_full_rank(fit.get("design")):
        statistic, numerator = tests.f_statistics(t, np.asarray(fit["cov_coefficients"]))
        denominator = moderated.prior_df + np.asarray(fit["df_residual"])
        fit["F"] = statistic
        fit["F_p_value"] = tests.upper_f(statistic, numerator, denominator)
    return keep_fit(fit, data, key)


def _log_odds(
    fit: LinearFit, moderated: Moderated, proportion: float, stdev_coef_lim: tuple[float, float]
) -> dict[str, Any]:
    """Return log-odds of effects and the prior variances of effects."""
    t, unscaled = fit["t"], np.asarray(fit["stdev_unscaled"])
    prior_scale = np.asarray(moderated.prior.scale, dtype=np.float64)
    low, high = (float(limit) ** 2 / float(np.median(prior_scale)) for limit in stdev_coef_lim)
    per_column = np.array(
        [
            tests.effect_variance(column, errors, moderated.df_total, proportion, (low, high))
            for column, errors in zip(t.T, unscaled.T, strict=True)
        ]
    )
    variances = per_column
    if np.isnan(per_column).any():
        message = "the variance of effects cannot be estimated; it is taken to be that of residuals"
        warnings.warn(message, UserWarning, stacklevel=3)
        default = np.broadcast_to(1.0 / prior_scale, (t.shape[0],))[:, None]
        variances = np.where(np.isnan(per_column), default, per_column)
        # limma's own rule where s₀² follows a trend: columns take the values of the first genes, one after another
        per_column[np.isnan(per_column)] = np.resize(default, np.count_nonzero(np.isnan(per_column)))
    lods = tests.log_odds(t, unscaled, moderated.df_total, variances, moderated.prior_df, proportion)
    return {"var_prior": per_column, "lods": lods}


def _has_full_rank(design: Any) -> bool:
    if design is None:
        return False
    matrix = np.asarray(design, dtype=np.float64)
    eigenvalues = np.linalg.eigvalsh(matrix.T @ matrix)
    return bool(eigenvalues[-1] > 0 and eigenvalues[0] / eigenvalues[-1] > 1e-13)


def treat(
    data,
    fc: float = 1.2,
    lfc: float | None = None,
    trend=False,  # noqa: FBT002
    robust: bool = False,  # noqa: FBT001, FBT002  limma's own signature
    winsor_tail_p: tuple[float, float] = (0.05, 0.1),
    legacy: bool | None = None,  # noqa: FBT001
    upshot: bool = False,  # noqa: FBT001, FBT002
    *,
    span: float | None = None,
    key: str = "pylimma",
) -> LinearFit | None:
    """Test whether effects exceed a threshold [1]_.

    Parameters
    ----------
    data : LinearFit, dict or AnnData
        As :func:`e_bayes` takes.
    fc : float
        Fold change to exceed, at least 1.
    lfc : float, optional
        Its log₂, in place of ``fc``.
    trend, robust, winsor_tail_p, legacy, span
        As of :func:`e_bayes`.
    upshot : bool
        Whether to average over true effects up to the threshold, in place of one at the threshold.
    key : str
        Where in ``adata.uns`` the fit is.

    Returns
    -------
    LinearFit or None
        The fit, and ``t``, ``p_value`` (genes, columns), ``treat_lfc``, ``df_prior``, ``s2_prior``, ``s2_post``,
        ``df_total``; ``lods`` is None. None for AnnData, which is changed.

    Raises
    ------
    ValueError
        If the threshold is not positive, the fit lacks something, or no gene has residual degrees of freedom.
    TypeError
        If it is no fit, or an option is no number.

    References
    ----------
    .. [1] McCarthy & Smyth, Bioinformatics 25:765 (2009), doi:10.1093/bioinformatics/btp053.
    """
    fit = open_fit(data, key)
    need(fit, ("coefficients", "stdev_unscaled", "sigma", "df_residual"), "treat")
    if lfc is None:
        check_positive(fc, "fc")
        if not fc >= 1:
            msg = f"expected a fold change fc of at least 1, found {fc}"
            raise ValueError(msg)
        lfc = float(np.log2(fc))
    check_not_negative(lfc if not isinstance(lfc, Real) else abs(lfc), "lfc")
    threshold = abs(float(lfc))
    moderated = moderate(fit, trend, span, winsor_tail_p, robust=robust, legacy=legacy)
    for name in ("lods", "F", "F_p_value", "var_prior", "proportion"):
        fit.pop(name, None)
    effects = np.asarray(fit["coefficients"])
    errors = np.asarray(fit["stdev_unscaled"]) * np.sqrt(moderated.variances)[:, None]
    tails = tests.mean_threshold_tails if upshot else tests.threshold_tails
    fit |= {"lods": None, **moderated.entries(), "treat_lfc": threshold}
    shown = threshold / 2 if upshot else threshold
    with np.errstate(invalid="ignore"):
        excess = np.sign(effects) * (np.abs(effects) - shown) / errors
        fit["t"] = np.where(np.abs(effects) > shown, excess, 0.0)
    fit["p_value"] = tails(effects, errors, moderated.df_total[:, None], threshold)
    return keep_fit(fit, data, key)
