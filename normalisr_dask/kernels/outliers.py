"""Outliers of a vector by iterated normal fits."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr


def variance_outliers(weights: NDArray[np.float64], *, pcut: float, outrate: float) -> NDArray[np.bool_]:
    """Return which cells are no outliers (cells,); see :func:`normalisr_dask.qc_outlier`.

    Raises
    ------
    ValueError
        If a bound is out of range, a weight is not positive and finite, or too many cells are outliers.
    """
    if not 0 < pcut < 1:
        msg = f"expected pcut between 0 and 1, found {pcut}"
        raise ValueError(msg)
    if not 0 < outrate < 0.5:
        msg = f"expected outrate between 0 and 0.5, found {outrate}"
        raise ValueError(msg)
    if weights.ndim != 1 or weights.size == 0:
        msg = f"expected weights as one number a cell, found shape {weights.shape}"
        raise ValueError(msg)
    if not (np.isfinite(weights) & (weights > 0)).all():
        first = int(np.flatnonzero(~(np.isfinite(weights) & (weights > 0)))[0])
        msg = f"expected positive weights, found {weights[first]} for cell {first} (counted from 0)"
        raise ValueError(msg)
    n_cells = weights.size
    low, high = int(np.ceil(outrate * n_cells)), int(np.floor((1 - outrate) * n_cells))
    if low >= n_cells or high >= n_cells or low > high:
        msg = f"expected cells enough to leave out a share of {outrate} on either side, found {n_cells}"
        raise ValueError(msg)
    ordered = np.partition(weights, [low, high])
    kept = _fitted(weights, (weights >= ordered[low]) & (weights <= ordered[high]), pcut / n_cells)
    # The set of all cells counts as seen in the first round, as Normalisr has it.
    seen = [np.ones(n_cells, dtype=bool).tobytes()]
    while seen.count(kept.tobytes()) < max(3, 0.1 * len(seen)):
        seen.append(kept.tobytes())
        kept = _fitted(weights, kept, pcut / n_cells)
    if (~kept).mean() > 2 * outrate:
        msg = (
            f"expected at most {2 * outrate:.3g} of the cells as variance outliers, found {(~kept).mean():.3g}; "
            "raise outrate, lower pcut, or look at the cells' weights"
        )
        raise ValueError(msg)
    return kept


def _fitted(weights: NDArray[np.float64], kept: NDArray[np.bool_], cut: float) -> NDArray[np.bool_]:
    """Return the cells with two-sided P of at least ``cut`` under the normal fit of the kept cells."""
    mean = weights[kept].mean()
    deviation = np.sqrt(((weights[kept] - mean) ** 2).mean())
    if deviation == 0:
        return np.asarray(weights == mean)
    return np.asarray(2 * ndtr(-np.abs(weights - mean) / deviation) >= cut)
