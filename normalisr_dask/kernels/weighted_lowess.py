"""LOWESS whose points have weights: weights count as numbers of points, and there are some 200 local lines at most.

Source: Cleveland, Journal of the American Statistical Association 74:829 (1979), doi:10.2307/2286407.
"""

import numpy as np
from numba import njit

from normalisr_dask.kernels.least_squares import Floats
from normalisr_dask.kernels.lowess import lowess

#: Local lines to aim at; where all weights are equal, they are this share of the range apart.
N_ANCHORS = 200
DELTA = 0.01
#: Number of points from which on the span falls, its smallest value, and how fast it falls.
SMALL_N, SMALLEST_SPAN, POWER = 500, 0.3, 1.0 / 3.0
#: Bounds of the weights, in units of their upper quartile.
WEIGHT_BOUNDS = (1e-8, 100.0)
#: A window of smaller radius, or points of smaller spread, has a mean but no line.
NO_SPREAD = 1e-7


def anchor_distance(x: Floats) -> float:
    """Return the smallest distance of local lines that needs no more than about `N_ANCHORS`, for sorted x."""
    if x.size <= N_ANCHORS:
        return 0.0
    gaps = np.sort(np.diff(x))
    sums = np.cumsum(gaps)[::-1]
    n_cut = np.arange(min(N_ANCHORS, gaps.size))
    return float((sums[n_cut] / (N_ANCHORS - n_cut)).min())


@njit(nogil=True, cache=True)
def _anchors(x: Floats, distance: float) -> np.ndarray:
    """Return the first point, the last, and every point farther than the distance from the anchor before."""
    places = np.empty(x.shape[0], dtype=np.int64)
    places[0] = 0
    n_anchors = 1
    for place in range(1, x.shape[0]):
        if x[place] - x[places[n_anchors - 1]] > distance or place == x.shape[0] - 1:
            places[n_anchors] = place
            n_anchors += 1
    return places[:n_anchors]


@njit(nogil=True, cache=True)
def _local_value(x: Floats, y: Floats, weights: Floats, place: int, enough: float) -> float:
    """Return the local line at a point through the nearest points of enough weight together."""
    left, right = place, place
    total = weights[place]
    last = x.shape[0] - 1
    while total < enough and (left > 0 or right < last):
        if left == 0:
            to_right = True
        elif right == last:
            to_right = False
        else:
            to_right = x[right + 1] - x[place] <= x[place] - x[left - 1]
        if to_right:
            right += 1
            total += weights[right]
        else:
            left -= 1
            total += weights[left]
    while left > 0 and x[left - 1] == x[left]:
        left -= 1
    while right < last and x[right + 1] == x[right]:
        right += 1
    radius = max(x[place] - x[left], x[right] - x[place])
    sum_weights, sum_x, sum_y = 0.0, 0.0, 0.0
    local = np.empty(right - left + 1)
    for near in range(left, right + 1):
        weight = weights[near]
        if radius >= NO_SPREAD:
            distance = abs(x[near] - x[place]) / radius
            weight *= (1.0 - distance**3) ** 3
        local[near - left] = weight
        sum_weights += weight
        sum_x += weight * x[near]
        sum_y += weight * y[near]
    mean_x, mean_y = sum_x / sum_weights, sum_y / sum_weights
    if radius < NO_SPREAD:
        return mean_y
    spread, product = 0.0, 0.0
    for near in range(left, right + 1):
        offset = x[near] - mean_x
        spread += local[near - left] * offset * offset
        product += local[near - left] * offset * (y[near] - mean_y)
    if spread < NO_SPREAD:
        return mean_y
    value = mean_y + product / spread * (x[place] - mean_x)
    return float(value)


@njit(nogil=True, cache=True)
def _local_values(x: Floats, y: Floats, weights: Floats, places: np.ndarray, enough: float) -> Floats:
    values = np.empty(places.shape[0])
    for number in range(places.shape[0]):
        values[number] = _local_value(x, y, weights, places[number], enough)
    return values


def spread_trend(x: Floats, y: Floats, weights: Floats, span: float | None) -> Floats:
    """Return the smooth trend of y over x at every point, in the order of the points.

    Parameters
    ----------
    x, y, weights
        Points and how much each counts (m,).
    span
        Share of the weight that a local line takes; by the number of points if None.
    """
    if span is None:
        span = min(SMALLEST_SPAN + (1.0 - SMALLEST_SPAN) * (SMALL_N / x.size) ** POWER, 1.0)
    order = np.argsort(x, kind="stable")
    ordered = x[order]
    smooth = np.empty_like(y)
    if np.ptp(weights) == 0.0:
        smooth[order] = lowess(x, y, span=span, delta=DELTA * float(np.ptp(x)), n_rounds=0)[1]
        return smooth
    if x.size < 4.0 + 1.0 / span:
        mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
        spread = np.sum(weights * (x - mean_x) ** 2)
        slope = np.sum(weights * (x - mean_x) * (y - mean_y)) / spread if spread > 0.0 else 0.0
        return np.asarray(mean_y + slope * (x - mean_x))
    scaled = np.clip(weights / np.quantile(weights, 0.75), *WEIGHT_BOUNDS)[order]
    places = _anchors(ordered, anchor_distance(ordered))
    values = _local_values(ordered, y[order], scaled, places, span * scaled.sum())
    smooth[order] = np.interp(ordered, ordered[places], values)
    return smooth
