r"""Interpolation in Chebyshev nodes: a smooth function of one number, evaluated in a few places and known everywhere.

For sums of :math:`e^{t L}` over a range h of :math:`t L`, the error of m nodes falls like :math:`(h/4)^m/m!` times the
largest value. Source: Trefethen, Approximation Theory and Approximation Practice (2013), chapter 8.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_NODES = 32
#: Accepted bound of the interpolation error, relative to the smallest value of an exponential.
TOLERANCE = 1e-11
#: Ranges narrower than this are widened, so that nodes stay apart.
NARROWEST = 1e-3


def nodes(bounds: Floats, n_nodes: int = N_NODES) -> Floats:
    """Return the nodes (n_nodes,) of the range from bounds[0] to bounds[1]."""
    low, width = _range(bounds)
    return np.asarray(low + width * (0.5 + 0.5 * np.cos(_angles(n_nodes))))


def interpolation_matrix(points: Floats, bounds: Floats, n_nodes: int = N_NODES) -> Floats:
    """Return V (points, n_nodes) with V @ values-at-nodes = values-at-points, for points within the bounds."""
    low, width = _range(bounds)
    position = np.clip(2 * (points - low) / width - 1, -1.0, 1.0)
    orders = np.arange(n_nodes)
    to_coefficients = np.cos(np.outer(orders, _angles(n_nodes))) * (2.0 / n_nodes)
    to_coefficients[0] /= 2
    return np.asarray(np.cos(np.outer(np.arccos(position), orders)) @ to_coefficients)


def nodes_needed(bounds: Floats, largest_log_weight: float, tolerance: float) -> int:
    """Return how many nodes, up to N_NODES, interpolate e^(t L) to a tolerance relative to its smallest value."""
    reach = _range(bounds)[1] * largest_log_weight
    return next((n_nodes for n_nodes in range(1, N_NODES) if _error(reach, n_nodes) <= tolerance), N_NODES)


def check_range(weights: Floats, scaling: Floats) -> Floats:
    """Return smallest and largest scaling (2,), if the nodes suffice for e^(2 t L).

    Parameters
    ----------
    weights
        w = e^L (cells,).
    scaling
        t (genes,).

    Raises
    ------
    ValueError
        If the weights range too widely.
    """
    bounds = np.array([scaling.min(), scaling.max()])
    reach = 2 * _range(bounds)[1] * np.abs(np.log(weights)).max()
    if _error(reach, N_NODES) > TOLERANCE:
        msg = (
            f"expected cell weights within a factor of about 1000 of each other, found {weights.min():.3g} "
            f"to {weights.max():.3g}; remove outlying cells (qc_outlier), or give dense expression"
        )
        raise ValueError(msg)
    return bounds


def _error(reach: float, n_nodes: int) -> float:
    """Return a bound of the interpolation error of exponentials that change by e^reach, relative to the smallest."""
    if reach == 0:
        return 0.0
    logarithm = reach + n_nodes * math.log(reach / 4) - math.lgamma(n_nodes + 1)
    return math.exp(min(logarithm, 0.0))


def _range(bounds: Floats) -> tuple[float, float]:
    return float(bounds[0]), max(float(bounds[1] - bounds[0]), NARROWEST)


def _angles(n_nodes: int) -> Floats:
    return np.asarray(np.pi * (np.arange(n_nodes) + 0.5) / n_nodes)
