"""Contrasts: from expressions in the names of coefficients to effects and their standard errors."""

import ast
import operator
import warnings
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normalisr_dask.kernels.moderated_tests import correlation_of, f_statistics, upper_f
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.fit_access import keep_fit, need, open_fit
from normalisr_dask.validation import did_you_mean, listing

Floats = NDArray[np.float64]

#: Stands for the standard error of a coefficient that is missing, and marks the effects that would need it.
MISSING_ERROR = 1e30
LARGEST_ERROR = 1e20
#: Correlations of coefficients below this count as none.
SMALLEST_CORRELATION = 1e-14
#: Slots whose last axis is that of coefficients; those made of other slots, and wrong for other contrasts.
OF_COLUMNS = ("coefficients", "stdev_unscaled", "t", "p_value", "lods", "var_prior")
OF_OTHER_TESTS = ("t", "p_value", "lods", "F", "F_p_value")

OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def make_contrasts(*contrasts_args: str, contrasts: Sequence[str] | None = None, levels, **named_contrasts: str):
    """Turn expressions in names of coefficients into columns of a contrast matrix.

    Parameters
    ----------
    *contrasts_args : str
        Such as ``"treated - control"``: names, numbers, + - * / and parentheses.
    contrasts : list of str, optional
        The same, as a list.
    levels : list of str or DataFrame
        Names of the coefficients, or a design whose columns they are.
    **named_contrasts : str
        Expressions with a name of their own for the column.

    Returns
    -------
    DataFrame
        float64, a row for each coefficient and a column for each contrast.

    Raises
    ------
    ValueError
        If there is no contrast, they are given both ways, a name is not a valid one, or an expression is not arithmetic
        over the names.
    TypeError
        If the levels are no names, or a contrast is no text.

    Examples
    --------
    >>> make_contrasts("b - a", levels=["a", "b"])
       b - a
    a   -1.0
    b    1.0
    """
    if isinstance(levels, pd.DataFrame):
        levels = levels.columns
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        msg = f"expected levels as names of coefficients or a data frame with them as columns, found {levels!r}"
        raise TypeError(msg)
    names = [str(name) for name in levels]
    if names and names[0] == "(Intercept)":
        names[0] = "Intercept"
    bad = [name for name in names if not name.isidentifier()]
    if bad:
        msg = f"expected names of coefficients made of letters, digits and _, found {listing(bad)}; rename them"
        raise ValueError(msg)
    if contrasts is not None and contrasts_args:
        msg = "give contrasts one by one or as a list, not both"
        raise ValueError(msg)
    given = [(text, text) for text in (contrasts if contrasts is not None else contrasts_args)]
    given += list(named_contrasts.items())
    if not given:
        msg = "expected one contrast or more, such as 'b - a', found none"
        raise ValueError(msg)
    columns = {name: _evaluated(text, names) for name, text in given}
    return pd.DataFrame(columns, index=pd.Index(names), dtype=np.float64)


def _evaluated(text: str, names: list[str]) -> Floats:
    """Return the coefficients of an expression over names."""
    if not isinstance(text, str):
        msg = f"expected a contrast as text such as 'b - a', found {text!r}"
        raise TypeError(msg)
    try:
        result = _value(ast.parse(text.strip(), mode="eval").body, names)
    except KeyError as error:
        (unknown,) = error.args
        msg = f"the contrast {text!r} cannot be read: {_no_coefficient(unknown, names)}"
        raise ValueError(msg) from error
    except (SyntaxError, ZeroDivisionError) as error:
        msg = f"the contrast {text!r} cannot be read: it is not arithmetic over names; there is {listing(names)}"
        raise ValueError(msg) from error
    return np.broadcast_to(np.asarray(result, dtype=np.float64), (len(names),))


def _no_coefficient(name: str, names: Sequence[str]) -> str:
    """Say which coefficients there are in place of one that is not."""
    return f"there is no coefficient {name!r}; there is {listing(names)}{did_you_mean(name, names)}"


def _value(node: ast.expr, names: list[str]) -> Any:
    if isinstance(node, ast.Name):
        if node.id not in names:
            raise KeyError(node.id)
        return np.array([float(name == node.id) for name in names])
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left, names), _value(node.right, names)
        with np.errstate(divide="ignore", invalid="ignore"):
            result = OPERATORS[type(node.op)](left, right)
        if np.isfinite(result).all():
            return result
    raise SyntaxError


def contrasts_fit(data, contrasts=None, coefficients=None, key: str = "pylimma") -> LinearFit | None:
    """Turn a fit of coefficients into one of contrasts of them.

    Parameters
    ----------
    data : LinearFit, dict or AnnData
        What :func:`lm_fit` or :func:`vooma_lm_fit` returned, or was applied to.
    contrasts : array or DataFrame (coefficients, contrasts), optional
        Such as from :func:`make_contrasts`.
    coefficients : int, str or list, optional
        In place of contrasts: which coefficients to keep, by position, name, or a truth value each.
    key : str
        Where in ``adata.uns`` the fit is.

    Returns
    -------
    LinearFit or None
        The fit with ``coefficients``, ``stdev_unscaled`` (genes, contrasts) and ``cov_coefficients`` of the contrasts,
        ``contrasts`` and ``contrast_names`` (unless there are no names to keep); without earlier
        tests, or with those of the coefficients kept. None for AnnData, which is changed.

    Raises
    ------
    ValueError
        If there are both or neither of contrasts and coefficients, shapes differ, a contrast is no number, or it needs
        a coefficient that is not estimable.
    TypeError
        If it is no fit.

    Warns
    -----
    UserWarning
        If the rows of the contrasts have other names than the coefficients.

    Notes
    -----
    Standard errors take the correlation of coefficients to be that of a gene without weights, as limma does; they are
    exact where weights do not differ between samples, or the design is orthogonal.
    """
    fit = open_fit(data, key)
    need(fit, ("coefficients", "stdev_unscaled", "cov_coefficients"), "contrasts_fit")
    if (contrasts is None) == (coefficients is None):
        msg = f"give either contrasts or coefficients, found {'neither' if contrasts is None else 'both'}"
        raise ValueError(msg)
    n_columns = np.asarray(fit["coefficients"]).shape[1]
    names = fit.get("contrast_names") or fit.get("coef_names")
    if coefficients is not None:
        chosen = coefficient_positions(coefficients, names, n_columns)
        _keep_columns(fit, chosen)
        if names is not None:
            fit["contrast_names"] = [names[j] for j in chosen]
        return keep_fit(fit, data, key)
    for name in OF_OTHER_TESTS:
        fit.pop(name, None)
    matrix = _contrast_matrix(contrasts, n_columns)
    if isinstance(contrasts, pd.DataFrame):
        contrast_names = [str(name) for name in contrasts.columns]
        if names is not None and [str(name) for name in contrasts.index] != list(names):
            warnings.warn(
                "rows of the contrasts have other names than the coefficients; they are taken in their order",
                UserWarning,
                stacklevel=2,
            )
    else:
        contrast_names = [f"contrast{number}" for number in range(matrix.shape[1])]
    fit |= _contrasted(fit, matrix)
    fit["contrasts"] = matrix
    fit["contrast_names"] = contrast_names
    return keep_fit(fit, data, key)


def coefficient_positions(chosen: Any, names: list[str] | None, n_columns: int) -> list[int]:
    """Return positions of coefficients given by position or name, or as one truth value each.

    Raises
    ------
    ValueError
        If there is no such coefficient, or none is given.
    TypeError
        If they are neither.
    """
    given = [chosen] if np.ndim(chosen) == 0 else list(chosen)
    if given and all(isinstance(one, bool | np.bool_) for one in given):
        if len(given) != n_columns:
            msg = f"expected a truth value for each of {n_columns} coefficients, found {len(given)}"
            raise ValueError(msg)
        given = np.flatnonzero(given).tolist()
    if not given:
        msg = f"expected one coefficient or more of {listing(names or [str(j) for j in range(n_columns)])}, found none"
        raise ValueError(msg)
    positions = []
    for one in given:
        if not isinstance(one, str | Integral) or isinstance(one, bool | np.bool_):
            msg = f"expected coefficients by position or name, found {one!r}"
            raise TypeError(msg)
        if isinstance(one, str):
            if names is None or one not in names:
                raise ValueError(_no_coefficient(one, names or []))
            positions.append(list(names).index(one))
        elif -n_columns <= int(one) < n_columns:
            positions.append(int(one) % n_columns)
        else:
            msg = f"there is no coefficient {one}; there are {n_columns}, from 0 on"
            raise ValueError(msg)
    return positions


def _contrast_matrix(contrasts: Any, n_columns: int) -> Floats:
    values = contrasts.to_numpy() if isinstance(contrasts, pd.DataFrame) else np.asarray(contrasts)
    if values.ndim not in {1, 2} or 0 in values.shape[1:]:
        msg = f"expected contrasts as a matrix, coefficients × contrasts, found shape {values.shape}"
        raise ValueError(msg)
    if values.dtype.kind not in "iuf":
        msg = f"expected contrasts of numbers, found {values.dtype}"
        raise ValueError(msg)
    values = values.astype(np.float64).reshape(values.shape[0], -1)
    if values.shape[0] != n_columns:
        msg = f"expected contrasts with a row for each of {n_columns} coefficients, found {values.shape[0]}"
        raise ValueError(msg)
    if not np.isfinite(values).all():
        msg = "expected contrasts of finite numbers, found NaN or infinity"
        raise ValueError(msg)
    return values


def _keep_columns(fit: LinearFit, chosen: list[int]) -> None:
    """Keep some coefficients, and their tests where there are any."""
    covariance = np.asarray(fit["cov_coefficients"])
    _refuse_missing(np.isnan(np.diag(covariance))[chosen], [str(j) for j in chosen])
    fit["cov_coefficients"] = covariance[np.ix_(chosen, chosen)]
    earlier = fit.get("contrasts")
    fit["contrasts"] = np.asarray(np.eye(len(covariance)) if earlier is None else earlier)[:, chosen]
    for name in OF_COLUMNS:
        if fit.get(name) is not None:
            fit[name] = np.asarray(fit[name])[..., chosen]
    if fit.get("F") is not None:
        statistic, numerator = f_statistics(fit["t"], fit["cov_coefficients"])
        denominator = np.asarray(fit["df_prior"]) + np.asarray(fit["df_residual"])
        fit |= {"F": statistic, "F_p_value": upper_f(statistic, numerator, denominator)}


def _refuse_missing(is_missing: NDArray[np.bool_], positions: list[str]) -> None:
    if is_missing.any():
        needed = [positions[j] for j in np.flatnonzero(is_missing)]
        msg = f"contrasts need coefficients that are not estimable: {listing(needed)}"
        raise ValueError(msg)


def _contrasted(fit: LinearFit, matrix: Floats) -> dict[str, Floats]:
    """Return coefficients, standard errors over sigma and covariance of contrasts."""
    covariance = np.asarray(fit["cov_coefficients"])
    is_missing = np.isnan(np.diag(covariance))
    is_used = (matrix != 0).any(axis=1)
    _refuse_missing(is_missing & is_used, [str(j) for j in range(is_used.size)])
    if not is_used.any():
        is_used = ~is_missing
    matrix, covariance = matrix[is_used], covariance[np.ix_(is_used, is_used)]
    effects = np.asarray(fit["coefficients"])[:, is_used]
    errors = np.asarray(fit["stdev_unscaled"])[:, is_used]
    is_unknown = np.isnan(effects)
    effects, errors = np.where(is_unknown, 0.0, effects), np.where(is_unknown, MISSING_ERROR, errors)
    correlation = correlation_of(covariance)
    if (np.abs(correlation - np.eye(len(correlation))) < SMALLEST_CORRELATION).all():
        new_errors = np.sqrt(errors**2 @ matrix**2)
    else:
        root = np.linalg.cholesky(correlation)
        new_errors = np.column_stack([np.linalg.norm((errors * column) @ root, axis=1) for column in matrix.T])
    new_effects = effects @ matrix
    is_lost = new_errors > LARGEST_ERROR
    return {
        "coefficients": np.where(is_lost, np.nan, new_effects),
        "stdev_unscaled": np.where(is_lost, np.nan, new_errors),
        "cov_coefficients": matrix.T @ covariance @ matrix,
    }
