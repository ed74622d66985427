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


def nodes(bounds: Floats) -> Floats:
    """Return the nodes (N_NODES,) of the range from bounds[0] to bounds[1]."""
    low, width = _range(bounds)
    return np.asarray(low + width * (0.5 + 0.5 * np.cos(_angles())))


def interpolation_matrix(points: Floats, bounds: Floats) -> Floats:
    """Return V (points, N_NODES) with V @ values-at-nodes = values-at-points, for points within the bounds."""
    low, width = _range(bounds)
    position = np.clip(2 * (points - low) / width - 1, -1.0, 1.0)
    orders = np.arange(N_NODES)
    to_coefficients = np.cos(np.outer(orders, _angles())) * (2.0 / N_NODES)
    to_coefficients[0] /= 2
    return np.asarray(np.cos(np.outer(np.arccos(position), orders)) @ to_coefficients)


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
    error = math.exp(reach) * (reach / 4) ** N_NODES / math.factorial(N_NODES)
    if error > TOLERANCE:
        msg = (
            f"expected cell weights within a factor of about 1000 of each other, found {weights.min():.3g} "
            f"to {weights.max():.3g}; remove outlying cells (qc_outlier), or give dense expression"
        )
        raise ValueError(msg)
    return bounds


def _range(bounds: Floats) -> tuple[float, float]:
    return float(bounds[0]), max(float(bounds[1] - bounds[0]), NARROWEST)


def _angles() -> Floats:
    return np.asarray(np.pi * (np.arange(N_NODES) + 0.5) / N_NODES)
