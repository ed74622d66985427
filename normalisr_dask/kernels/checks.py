"""Checks of small arrays whose values are known only inside a task: each returns its input or raises."""

import warnings

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def row_kinds(rows: Floats, *, first: Floats) -> Floats:
    """Return of each row how many values are neither 0 nor 1, not 1, not finite, and not ``first``, (q, 4)."""
    rows = np.asarray(rows, dtype=np.float64)
    tests = ((rows != 0) & (rows != 1), rows != 1, ~np.isfinite(rows), rows != first[:, None])
    return np.stack([test.sum(axis=1) for test in tests], axis=1).astype(np.float64)


def covariate_kinds(kinds: Floats, first: Floats, mean: Floats, squares: Floats, *, n_cells: int) -> Floats:
    """Return of each covariate whether it is continuous, its mean and its population standard deviation, (q, 3).

    Parameters
    ----------
    kinds
        From :func:`row_kinds` (q, 4).
    first
        First value (q,).
    mean
        Mean (q,).
    squares
        Sum of squares about the mean (q, 1).
    n_cells
        Number of cells.

    Raises
    ------
    ValueError
        If a covariate is constant or not finite; names its row.
    """
    neither, _, infinite, different = kinds.T
    if np.any(infinite > 0):
        row = int(np.flatnonzero(infinite > 0)[0])
        msg = f"expected finite covariates, found {int(infinite[row])} NaN or infinite in row {row} (counted from 0)"
        raise ValueError(msg)
    if np.any(different == 0):
        row = int(np.flatnonzero(different == 0)[0])
        msg = (
            f"expected covariates that vary over cells, found row {row} (counted from 0) constant at "
            f"{first[row]:g}; leave it out, the constant one is appended by normcov"
        )
        raise ValueError(msg)
    is_continuous = neither > 0
    deviation = np.sqrt(squares[:, 0] / n_cells)
    nearly = is_continuous & ((deviation < 1e-50) | (deviation < 1e-6 * np.abs(mean)))
    if nearly.any():
        row = int(np.flatnonzero(nearly)[0])
        message = (
            f"covariate in row {row} (counted from 0) is nearly constant: standard deviation {deviation[row]:.3g}, "
            f"mean {mean[row]:.3g}; results may be imprecise"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return np.column_stack([is_continuous, mean, deviation])


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
