"""Which effects are significant, over genes and contrasts at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, chdtri

from normalisr_dask.kernels.moderated_tests import SMALLEST_EIGENVALUE, correlation_of, two_sided
from normalisr_dask.kernels.p_adjustment import adjust, adjust_rows
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.empirical_bayes import e_bayes
from normalisr_dask.steps.fit_access import need, open_fit
from normalisr_dask.steps.top_tables import adjustment
from normalisr_dask.validation import check_choice, check_not_negative, check_probability

METHODS = ("separate", "global", "hierarchical", "nestedF")
Floats = NDArray[np.float64]


def decide_tests(
    data,
    method: str = "separate",
    adjust_method: str = "BH",
    p_value: float = 0.05,
    lfc: float = 0.0,
    *,
    key: str = "pylimma",
) -> NDArray[Any]:
    """Decide which effects are significant.

    Parameters
    ----------
    data : LinearFit, dict or AnnData
        What :func:`e_bayes` or :func:`treat` returned or was applied to; :func:`e_bayes` is run where it was not.
    method : {"separate", "global", "hierarchical", "nestedF"}
        Adjust for genes in each contrast, for genes and contrasts together, or choose genes by F and then contrasts
        within genes, by adjusted P-values or F of fewer and fewer contrasts. The beginning of a name will do.
    adjust_method : str
        As of :func:`top_table`; for hierarchical and nestedF "BH", "BY", "holm", "bonferroni" or "none".
    p_value : float
        Significance level.
    lfc : float
        Smallest absolute effect.
    key : str
        Where in ``adata.uns`` the fit is.

    Returns
    -------
    int64 or, with NaN where there is no test, float64 (genes, coefficients)
        -1, 0 or 1.

    Raises
    ------
    ValueError
        If a method is unknown, or an F-statistic is missing where genes are chosen by it.
    TypeError
        If it is no fit.
    """
    full = [name for name in METHODS if name.startswith(method)] if method else []
    check_choice(full[0] if full else method, METHODS, "method")
    check_probability(p_value, "p_value")
    check_not_negative(lfc, "lfc")
    adjusting = adjustment(adjust_method)
    fit = open_fit(data, key)
    if fit.get("p_value") is None:
        fit = open_fit(e_bayes(dict(fit)), key)
    need(fit, ("coefficients", "t", "p_value"), "decide_tests")
    effects, t = np.asarray(fit["coefficients"]), np.asarray(fit["t"])
    if full[0] in {"separate", "global"}:
        tails = np.asarray(fit["p_value"])
        if full[0] == "separate":
            adjusted = np.column_stack([adjust(column, adjusting) for column in tails.T])
        else:
            adjusted = adjust(tails.ravel(), adjusting).reshape(tails.shape)
        decided = np.where(np.isnan(adjusted), np.nan, np.sign(effects) * (adjusted < p_value))
    else:
        decided = _by_gene(fit, t, full[0], adjusting, p_value)
    if lfc > 0:
        decided = np.where(np.abs(effects) > lfc, decided, np.where(np.isnan(decided), np.nan, 0.0))
    return decided if np.isnan(decided).any() else decided.astype(np.int64)


def _by_gene(fit: LinearFit, t: Floats, method: str, adjusting: str, p_value: float) -> Floats:
    """Choose genes by their F, then contrasts of the chosen genes."""
    need(fit, ("F_p_value", "cov_coefficients"), f"decide_tests by {method}")
    gene_tails = np.asarray(fit["F_p_value"])
    if np.isnan(gene_tails).any():
        msg = f"{np.isnan(gene_tails).sum()} genes have no F-statistic; leave them out, or decide by 'separate'"
        raise ValueError(msg)
    chosen = np.flatnonzero(adjust(gene_tails, adjusting) < p_value)
    level = p_value * _remaining_share(adjusting, chosen.size, gene_tails.size)
    df = np.broadcast_to(np.asarray(fit["df_residual"]) + np.asarray(fit["df_prior"]), gene_tails.shape)
    decided = np.zeros(t.shape)
    t, df = t[chosen], df[chosen]
    if method == "hierarchical":
        decided[chosen] = np.sign(t) * (adjust_rows(two_sided(t, df[:, None]), adjusting) < level)
        return decided
    eigenvalues, eigenvectors = np.linalg.eigh(correlation_of(np.asarray(fit["cov_coefficients"])))
    is_kept = eigenvalues > SMALLEST_EIGENVALUE * eigenvalues[-1]
    root = eigenvectors[:, is_kept] / np.sqrt(eigenvalues[is_kept] * is_kept.sum())
    decided[chosen] = _step_down(t, root, _upper_f_quantile(level, int(is_kept.sum()), df))
    return decided


def _remaining_share(adjusting: str, n_chosen: int, n_genes: int) -> float:
    """Return which share of the level is left for tests within chosen genes.

    Raises
    ------
    ValueError
        If there is no such rule for the method.
    """
    shares = {
        "none": 1.0,
        "bonferroni": 1.0 / n_genes,
        "holm": 1.0 / (n_genes - n_chosen + 1),
        "BH": n_chosen / n_genes,
        "BY": n_chosen / n_genes / float(np.sum(1.0 / np.arange(1, n_genes + 1))),
    }
    check_choice(adjusting, tuple(shares), "adjust_method within genes")
    return shares[adjusting]


def _upper_f_quantile(level: float, numerator: int, denominator: Floats) -> Floats:
    """Return the value that F exceeds with a probability of ``level``, for every number of degrees of freedom."""
    is_finite = np.isfinite(denominator)
    finite = np.where(is_finite, denominator, 1.0)
    beta = betaincinv(finite / 2, numerator / 2, level)
    return np.where(is_finite, finite * (1 - beta) / (numerator * beta), chdtri(numerator, level) / numerator)


def _step_down(t: Floats, root: Floats, quantiles: Floats) -> Floats:
    """Take contrasts as significant, largest first, while F with the larger ones made as small still is."""
    rows = np.arange(t.shape[0])
    order = np.argsort(-np.abs(t), axis=1, kind="stable")
    decided, shrunk = np.zeros(t.shape), t.copy()
    goes_on = np.ones(t.shape[0], dtype=bool)
    for place in range(t.shape[1]):
        contrast = order[:, place]
        larger = order[:, :place]
        shrunk[rows[:, None], larger] = np.sign(t[rows[:, None], larger]) * np.abs(t[rows, contrast])[:, None]
        goes_on &= ((shrunk @ root) ** 2).sum(axis=1) > quantiles
        decided[rows, contrast] = np.where(goes_on, np.sign(t[rows, contrast]), 0.0)
    return decided
