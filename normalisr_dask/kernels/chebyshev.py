r"""Interpolation in Chebyshev nodes: a smooth function of one number, evaluated in a few places and known everywhere.

For sums of :math:`e^{t L}` over a range h of :math:`t L`, the error of m nodes falls like :math:`(h/4)^m/m!` times the
largest value. Source: Trefethen, Approximation Theory and Approximation Practice (2013), chapter 8.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

N_NODES = 32
#: Accepted bound of the interpolation error, relative to the smallest value of an exponential.
TOLERANCE = 1e-11
#: Error with which more nodes add nothing.
ENOUGH = 1e-16
#: Ranges narrower than this are widened, so that nodes stay apart.
NARROWEST = 1e-3
#: Of the values of all nodes at some points.
PIECE_BYTES = 32 << 20


def nodes(node_range: Floats) -> Floats:
    """Return as many nodes as node_range[2] says, between node_range[0] and node_range[1]."""
    low, width = _range(node_range)
    return np.asarray(low + width * (0.5 + 0.5 * np.cos(_angles(int(node_range[2])))))


def growth_at_nodes(weights: Floats, node_range: Floats) -> Iterator[Floats]:
    """Yield e^(τ L) of all cells (n,) with weights e^L, for one node τ after the other: all nodes would take room."""
    log_weights = np.log(weights)
    for node in nodes(node_range):
        yield np.exp(node * log_weights)


def interpolation_matrix(points: Floats, node_range: Floats) -> Floats:
    """Return V (points, nodes) with V @ values-at-nodes = values-at-points, for points within the range."""
    low, width = _range(node_range)
    n_nodes = int(node_range[2])
    position = np.clip(2 * (points - low) / width - 1, -1.0, 1.0)
    orders = np.arange(n_nodes)
    to_coefficients = np.cos(np.outer(orders, _angles(n_nodes))) * (2.0 / n_nodes)
    to_coefficients[0] /= 2
    return np.asarray(np.cos(np.outer(np.arccos(position), orders)) @ to_coefficients)


def pieces(n_points: int, bytes_of_point: int, most: int = 1 << 62) -> Iterator[slice]:
    """Yield runs of points of which what is interpolated together takes at most PIECE_BYTES, and at most so many."""
    at_a_time = min(max(1, PIECE_BYTES // bytes_of_point), most)
    for start in range(0, n_points, at_a_time):
        yield slice(start, min(start + at_a_time, n_points))


def with_all_nodes(sums: Floats, n_nodes: int, axis: int) -> Floats:
    """Return sums at ``n_nodes`` nodes along an axis, with zeros for the others: shapes are known before the data."""
    missing = [(0, 0)] * sums.ndim
    missing[axis] = (0, sums.shape[axis] // n_nodes * (N_NODES - n_nodes))
    return np.pad(sums, missing)


def nodes_needed(bounds: Floats, largest_log_weight: float, tolerance: float) -> int:
    """Return how many nodes, up to N_NODES, interpolate e^(t L) to a tolerance relative to its smallest value."""
    reach = _range(bounds)[1] * largest_log_weight
    return next((n_nodes for n_nodes in range(1, N_NODES) if _error(reach, n_nodes) <= tolerance), N_NODES)


def check_range(weights: Floats, scaling: Floats) -> Floats:
    """Return smallest and largest scaling, and the number of nodes that e^(2 t L) needs, (3,), if so many suffice.

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
    largest = 2 * np.abs(np.log(weights)).max()
    if _error(_range(bounds)[1] * largest, N_NODES) > TOLERANCE:
        msg = (
            f"expected cell weights within a factor of about 1000 of each other, found {weights.min():.3g} "
            f"to {weights.max():.3g}; remove outlying cells (qc_outlier), or give dense expression"
        )
        raise ValueError(msg)
    return np.append(bounds, nodes_needed(bounds, largest, ENOUGH))


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
