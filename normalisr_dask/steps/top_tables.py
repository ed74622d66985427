"""Tables of the genes with the strongest evidence."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from normalisr_dask.kernels.moderated_tests import f_statistics, upper_f
from normalisr_dask.kernels.p_adjustment import METHODS, adjust
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.contrasts import coefficient_positions
from normalisr_dask.steps.fit_access import open_fit
from normalisr_dask.validation import check_choice, check_not_negative

ALIASES = {"fdr": "BH", "bh": "BH", "by": "BY"}
SORTING = {
    "B": "B",
    "b": "B",
    "lods": "B",
    "logFC": "log_fc",
    "log_fc": "log_fc",
    "M": "log_fc",
    "AveExpr": "ave_expr",
    "ave_expr": "ave_expr",
    "A": "ave_expr",
    "Amean": "ave_expr",
    "t": "t",
    "T": "t",
    "p": "p",
    "P": "p",
    "p_value": "p",
    "F": "F",
    "none": "none",
}


def adjustment(method: str) -> str:
    """Return the name of an adjustment method by any of its names.

    Raises
    ------
    ValueError
        If there is no such method.
    """
    name = ALIASES.get(str(method).lower(), str(method))
    check_choice(name, tuple(METHODS), "adjust_method")
    return name


def top_table(
    data,
    coef=None,
    number: int | float = 10,
    genelist=None,
    adjust_method: str = "BH",
    sort_by: str = "B",
    resort_by: str | None = None,
    p_value: float = 1.0,
    fc: float | None = None,
    lfc: float = 0.0,
    confint: bool | float = False,  # noqa: FBT001, FBT002  limma's own signature
    key: str = "pylimma",
) -> pd.DataFrame:
    """List the genes with the strongest evidence for an effect, or for any of several.

    Parameters
    ----------
    data : LinearFit, dict or AnnData
        What :func:`e_bayes` or :func:`treat` returned, or was applied to.
    coef : int, str or list, optional
        Coefficient or contrast, by position or name; several are tested together. By default all but the intercept
        (of :func:`treat` the last).
    number : int
        Rows to return at most.
    genelist : list, array or DataFrame, optional
        Names or annotation of the genes; by default those of the fit.
    adjust_method : {"BH", "BY", "holm", "hochberg", "hommel", "bonferroni", "none"}
        How P-values are adjusted for the number of genes.
    sort_by, resort_by : {"B", "p", "t", "logFC", "AveExpr", "F", "none"}
        By what rows are chosen, and by what the chosen ones are then sorted.
    p_value, lfc : float
        Largest adjusted P-value and smallest absolute log fold change of rows.
    fc : float, optional
        Smallest fold change, in place of ``lfc``; at least 1.
    confint : bool or float
        Whether to add confidence limits, or their level (0.95 if True).
    key : str
        Where in ``adata.uns`` the fit is.

    Returns
    -------
    DataFrame
        Of one coefficient: ``log_fc``, with confint ``ci_l`` and ``ci_r``, ``ave_expr``, ``t``, ``p_value``,
        ``adj_p_value``, after e_bayes ``b``, and annotation; of several: annotation, a column for each, ``ave_expr``,
        ``F``, ``p_value``, ``adj_p_value``. P-values are adjusted over all genes before rows are chosen.

    Raises
    ------
    ValueError
        If the fit has no tests, or there is no such coefficient, method or order.
    TypeError
        If it is no fit.

    Warns
    -----
    UserWarning
        If the intercept is left out, or confidence limits are asked for of several coefficients.
    """
    fit = open_fit(data, key)
    if fit.get("t") is None and fit.get("F") is None:
        msg = "the fit has no tests; run e_bayes or treat first"
        raise ValueError(msg)
    method = adjustment(adjust_method)
    check_not_negative(0 if number == np.inf else number, "number")
    if fc is not None:
        if fc < 1:
            msg = f"expected a fold change fc of at least 1, found {fc}"
            raise ValueError(msg)
        lfc = float(np.log2(fc))
    is_treat = fit.get("treat_lfc") is not None
    names = fit.get("contrast_names") or fit.get("coef_names")
    chosen = _chosen(fit, coef, names, is_treat=is_treat)
    n_genes = np.asarray(fit["coefficients"]).shape[0]
    labels, annotation = _labels(fit.get("genes") if genelist is None else genelist, n_genes, genelist is not None)
    if len(chosen) > 1:
        if is_treat:
            msg = "a fit of treat tests one coefficient at a time; name one"
            raise ValueError(msg)
        if confint:
            warnings.warn("confidence limits are for one coefficient; they are left out", UserWarning, stacklevel=2)
        if annotation is not None and "ID" in annotation and genelist is not None:
            annotation = annotation.rename(columns={"ID": "ProbeID"})
        table = _f_table(fit, chosen, names, method)
        order = _sorting(sort_by, ("B", "F", "p", "none"))
        is_kept = _is_kept(table, np.abs(np.asarray(fit["coefficients"])[:, chosen]).max(axis=1), p_value, lfc)
        sort_key = "none" if order == "none" else "p"
        pieces = [annotation, table]
    else:
        if sort_by == "B" and is_treat:
            sort_by = "p"
        table = _t_table(fit, chosen[0], method, confint)
        order = sort_key = _sorting(sort_by, ("B", "log_fc", "ave_expr", "t", "p", "none"))
        is_kept = _is_kept(table, np.abs(table["log_fc"].to_numpy()), p_value, lfc)
        pieces = [table, annotation]
    if sort_key == "B" and "b" not in table:
        msg = "the fit has no log-odds to sort by; sort by 'p' instead"
        raise ValueError(msg)
    whole = pd.concat([piece for piece in pieces if piece is not None], axis=1)
    whole.index = pd.Index(labels, name="gene")
    rows = np.flatnonzero(is_kept)
    rows = rows[_order(table.iloc[rows], sort_key)]
    rows = rows[: len(rows) if np.isinf(number) else int(number)]
    if resort_by is not None and len(chosen) == 1:
        rows = rows[_order(table.iloc[rows], _sorting(resort_by, ("B", "log_fc", "ave_expr", "t", "p")), signed=True)]
    return whole.iloc[rows]


def _chosen(fit: LinearFit, coef: Any, names: list[str] | None, *, is_treat: bool) -> list[int]:
    n_columns = np.asarray(fit["coefficients"]).shape[1]
    if coef is not None:
        return coefficient_positions(coef, names, n_columns)
    if is_treat or n_columns == 1:
        return [n_columns - 1]
    kept = [j for j in range(n_columns) if names is None or names[j] != "(Intercept)"]
    if len(kept) < n_columns:
        warnings.warn("the intercept is left out of the test of all coefficients", UserWarning, stacklevel=3)
    return kept


def _sorting(name: str, allowed: tuple[str, ...]) -> str:
    check_choice(name, tuple(SORTING), "sort_by")
    order = SORTING[name]
    check_choice(order, allowed, "sort_by")
    return order


def _labels(genes: Any, n_genes: int, is_given: bool) -> tuple[list[Any], pd.DataFrame | None]:  # noqa: FBT001
    """Return row labels and a table of annotation, as far as there is one."""
    annotation: pd.DataFrame | None = None
    if genes is None:
        return [f"gene{number + 1}" for number in range(n_genes)], None
    if isinstance(genes, pd.DataFrame):
        labels = [str(label) for label in genes.index]
        annotation = genes.reset_index(drop=True)
    elif is_given:
        labels = [str(number + 1) for number in range(n_genes)]
        annotation = pd.DataFrame({"ID": list(genes)})
    else:
        labels = [str(gene) for gene in genes]
    if len(labels) != n_genes:
        msg = f"expected a name for each of {n_genes} genes, found {len(labels)}"
        raise ValueError(msg)
    if len(set(labels)) < n_genes:
        column = "ID0" if annotation is not None and "ID" in annotation else "ID"
        annotation = pd.DataFrame({column: labels}).join(annotation if annotation is not None else pd.DataFrame())
        labels = [str(number + 1) for number in range(n_genes)]
    return labels, annotation


def _t_table(fit: LinearFit, column: int, method: str, confint: bool | float) -> pd.DataFrame:  # noqa: FBT001
    effects = np.asarray(fit["coefficients"])[:, column]
    table = {"log_fc": effects}
    if confint:
        level = 0.95 if confint is True else float(confint)
        errors = np.sqrt(np.asarray(fit["s2_post"])) * np.asarray(fit["stdev_unscaled"])[:, column]
        margin = errors * stdtrit(np.asarray(fit["df_total"]), (1 + level) / 2)
        table |= {"ci_l": effects - margin, "ci_r": effects + margin}
    tails = np.asarray(fit["p_value"])[:, column]
    table["ave_expr"] = _means(fit)
    table["t"] = np.asarray(fit["t"])[:, column]
    table["p_value"] = tails
    table["adj_p_value"] = adjust(tails, method)
    if fit.get("lods") is not None:
        table["b"] = np.asarray(fit["lods"])[:, column]
    return pd.DataFrame(table)


def _means(fit: LinearFit) -> NDArray[np.float64]:
    means = fit.get("Amean")
    return np.full(np.asarray(fit["coefficients"]).shape[0], np.nan) if means is None else np.asarray(means)


def _f_table(fit: LinearFit, chosen: list[int], names: list[str] | None, method: str) -> pd.DataFrame:
    coefficients = np.asarray(fit["coefficients"])
    if chosen == list(range(coefficients.shape[1])) and fit.get("F") is not None:
        statistic, tails = np.asarray(fit["F"]), np.asarray(fit["F_p_value"])
    else:
        covariance = np.asarray(fit["cov_coefficients"])[np.ix_(chosen, chosen)]
        statistic, numerator = f_statistics(np.asarray(fit["t"])[:, chosen], covariance)
        tails = upper_f(statistic, numerator, np.asarray(fit["df_prior"]) + np.asarray(fit["df_residual"]))
    columns = {names[j] if names is not None else f"Coef{j + 1}": coefficients[:, j] for j in chosen}
    rest = {"ave_expr": _means(fit), "F": statistic, "p_value": tails, "adj_p_value": adjust(tails, method)}
    return pd.DataFrame(columns | rest)


def _is_kept(table: pd.DataFrame, largest_effect: NDArray[np.float64], p_value: float, lfc: float) -> Any:
    if p_value >= 1 and lfc <= 0:
        return np.ones(len(table), dtype=bool)
    adjusted = table["adj_p_value"].to_numpy()
    return (adjusted <= p_value) & (largest_effect >= lfc) & ~np.isnan(table["p_value"].to_numpy())


def _order(table: pd.DataFrame, key: str, *, signed: bool = False) -> NDArray[np.int64]:
    """Return the order of rows; ties stay in theirs, NaN comes last."""
    if key == "none":
        return np.arange(len(table))
    if key == "p":
        tails = table["p_value"].to_numpy()
        return np.argsort(tails, kind="stable")
    values = table["b" if key == "B" else key].to_numpy()
    if key in {"t", "log_fc"} and not signed:
        values = np.abs(values)
    return np.argsort(-values, kind="stable")
