"""Checks of small arrays whose values are known only inside a task: each returns its input or raises."""

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def covariate_kinds(extremes: Floats, mean: Floats, deviation: Floats) -> NDArray[np.bool_]:
    """Return which covariates are continuous (q,).

    Parameters
    ----------
    extremes
        Minimum, maximum, number of values outside {0, 1} and of non-finite values (4, q).
    mean, deviation
        Mean and population standard deviation (q,).

    Raises
    ------
    ValueError
        If a covariate is constant or not finite; names its row.
    """
    smallest, largest, outside, infinite = extremes
    if np.any(infinite > 0):
        row = int(np.flatnonzero(infinite > 0)[0])
        msg = f"expected finite covariates, found {int(infinite[row])} NaN or infinite in row {row} (counted from 0)"
        raise ValueError(msg)
    if np.any(smallest == largest):
        row = int(np.flatnonzero(smallest == largest)[0])
        msg = (
            f"expected covariates that vary over cells, found row {row} (counted from 0) constant at "
            f"{smallest[row]:g}; leave it out, the constant one is appended by normcov"
        )
        raise ValueError(msg)
    is_continuous = np.asarray(outside > 0)
    nearly = is_continuous & ((deviation < 1e-50) | (deviation < 1e-6 * np.abs(mean)))
    if nearly.any():
        row = int(np.flatnonzero(nearly)[0])
        message = (
            f"covariate in row {row} (counted from 0) is nearly constant: standard deviation {deviation[row]:.3g}, "
            f"mean {mean[row]:.3g}; results may be imprecise"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return is_continuous


def positive_weights(weights: Floats) -> Floats:
    """Return the cell weights.

    Raises
    ------
    ValueError
        If one is not positive and finite; names its cell.
    """
    wrong = ~(np.isfinite(weights) & (weights > 0))
    if wrong.any():
        cell = int(np.flatnonzero(wrong)[0])
        msg = f"expected positive weights w, found {weights[cell]} for cell {cell} (counted from 0)"
        raise ValueError(msg)
    return weights


def non_negative_scaling(scaling: Floats) -> Floats:
    """Return the gene scaling.

    Raises
    ------
    ValueError
        If one is negative or not finite; names its gene.
    """
    wrong = ~(np.isfinite(scaling) & (scaling >= 0))
    if wrong.any():
        gene = int(np.flatnonzero(wrong)[0])
        msg = f"expected scaling factors wt of 0 or more, found {scaling[gene]} for gene {gene} (counted from 0)"
        raise ValueError(msg)
    return scaling
