"""P-values adjusted for many tests, by the methods that go by the names of their authors."""

from collections.abc import Callable

import numpy as np

from normalisr_dask.kernels.least_squares import Floats
from normalisr_dask.kernels.multiple_testing import benjamini_hochberg


def _running_maximum(ascending: Floats) -> Floats:
    return np.asarray(np.minimum(np.maximum.accumulate(ascending, axis=-1), 1.0))


def _running_minimum(ascending: Floats) -> Floats:
    return np.asarray(np.minimum(np.minimum.accumulate(ascending[..., ::-1], axis=-1)[..., ::-1], 1.0))


def _yekutieli(p: Floats) -> Floats:
    ranks = np.arange(1, p.shape[-1] + 1)
    return _running_minimum(p * (np.sum(1.0 / ranks) * p.shape[-1] / ranks))


def _holm(p: Floats) -> Floats:
    return _running_maximum(p * np.arange(p.shape[-1], 0, -1))


def _hochberg(p: Floats) -> Floats:
    return _running_minimum(p * np.arange(p.shape[-1], 0, -1))


def _bonferroni(p: Floats) -> Floats:
    return np.asarray(np.minimum(p * p.shape[-1], 1.0))


def _unadjusted(p: Floats) -> Floats:
    return p


def _hommel(p: Floats) -> Floats:
    """Adjust by Hommel's procedure: from closed Simes tests of all numbers of true hypotheses."""
    n_tests = p.size
    ranks = np.arange(1, n_tests + 1)
    adjusted = np.full(n_tests, np.min(n_tests * p / ranks, initial=1.0))
    best = adjusted.copy()
    for n_true in range(n_tests - 1, 1, -1):
        first = n_tests - n_true + 1
        tail = np.min(n_true * p[first:] / np.arange(2, n_true + 1))
        best[:first] = np.minimum(n_true * p[:first], tail)
        best[first:] = best[first - 1]
        adjusted = np.maximum(adjusted, best)
    return np.maximum(adjusted, p)


#: Adjusted P-values of sorted ones, by method; Hommel's takes one family, the others rows of families.
METHODS: dict[str, Callable[[Floats], Floats]] = {
    "BH": benjamini_hochberg,
    "BY": _yekutieli,
    "holm": _holm,
    "hochberg": _hochberg,
    "hommel": _hommel,
    "bonferroni": _bonferroni,
    "none": _unadjusted,
}


def adjust(p_values: Floats, method: str) -> Floats:
    """Return adjusted P-values of one family, in its order; NaN stays and does not count.

    Parameters
    ----------
    p_values
        (tests,).
    method
        One of `METHODS`.

    Examples
    --------
    >>> adjust(np.array([0.01, np.nan, 0.04, 0.03]), "holm")
    array([0.03,  nan, 0.06, 0.06])
    """
    adjusted = np.full(p_values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    if order.size:
        adjusted[order] = METHODS[method](p_values[order])
    return adjusted


def adjust_rows(p_values: Floats, method: str) -> Floats:
    """Return adjusted P-values of families, one a row, without NaN; any method but Hommel's."""
    order = np.argsort(p_values, axis=1, kind="stable")
    adjusted = np.empty_like(p_values)
    np.put_along_axis(adjusted, order, METHODS[method](np.take_along_axis(p_values, order, axis=1)), axis=1)
    return adjusted
