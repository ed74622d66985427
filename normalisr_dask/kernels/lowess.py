"""LOWESS: Cleveland's robust local lines through a scatter, and the curve as a function.

Source: Cleveland, Journal of the American Statistical Association 74:829 (1979), doi:10.2307/2286407; the details
(window, anchors, robustness without cut-offs) are those of ``lowess`` in statsmodels.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Smallest weight that counts as a neighbour, and smallest weighted spread of neighbours about their mean.
NEGLIGIBLE = 1e-12


@njit(nogil=True, cache=True)
def _local_value(x: Floats, y: Floats, robustness: Floats, place: int, left: int, right: int, weights: Floats) -> float:
    """Return the local line at one point, from the neighbours left ≤ j < right."""
    centre = x[place]
    radius = max(centre - x[left], x[right - 1] - centre)
    if radius == 0.0:  # all neighbours are tied with the point: statsmodels, too, takes the point itself
        return float(y[place])
    total = 0.0
    n_neighbours = 0
    for near in range(left, right):
        distance = abs(x[near] - centre) / radius
        weight = (1.0 - distance * distance * distance) ** 3 * robustness[near]
        weights[near] = weight
        total += weight
        n_neighbours += weight > NEGLIGIBLE
    if n_neighbours < 2:
        return float(y[place])
    mean = 0.0
    for near in range(left, right):
        weights[near] /= total
        mean += weights[near] * x[near]
    spread = 0.0
    for near in range(left, right):
        spread += weights[near] * (x[near] - mean) ** 2
    spread = max(spread, NEGLIGIBLE)
    value = 0.0
    for near in range(left, right):
        value += weights[near] * (1.0 + (centre - mean) * (x[near] - mean) / spread) * y[near]
    return value


@njit(nogil=True, cache=True)
def _smooth_once(x: Floats, y: Floats, robustness: Floats, n_near: int, delta: float, fitted: Floats) -> None:
    """Fit local lines at anchors at least ``delta`` apart, and draw straight lines between them."""
    n_points = x.shape[0]
    weights = np.empty(n_points)
    place, last = 0, -1
    left, right = 0, n_near
    while True:
        while right < n_points and x[place] > (x[left] + x[right]) / 2.0:
            left += 1
            right += 1
        fitted[place] = _local_value(x, y, robustness, place, left, right, weights)
        if last < place - 1 and last >= 0:
            width = x[place] - x[last]
            for between in range(last + 1, place):
                share = (x[between] - x[last]) / width
                fitted[between] = share * fitted[place] + (1.0 - share) * fitted[last]
        last = place
        cut = x[last] + delta
        stop = n_points - 1
        for ahead in range(last + 1, n_points):
            stop = ahead
            if x[ahead] > cut:
                break
            if x[ahead] == x[last]:
                fitted[ahead] = fitted[last]
                last = ahead
        if last >= n_points - 1:
            return
        place = max(stop - 1, last + 1)


@njit(nogil=True, cache=True)
def _smooth(x: Floats, y: Floats, n_near: int, delta: float, n_rounds: int) -> Floats:
    """Smooth sorted points, ``n_rounds`` times again with robustness weights."""
    fitted = np.empty(x.shape[0])
    robustness = np.ones(x.shape[0])
    for step in range(n_rounds + 1):
        _smooth_once(x, y, robustness, n_near, delta, fitted)
        if step == n_rounds:
            break
        distance = np.abs(y - fitted)
        median = np.median(distance)
        for place in range(x.shape[0]):
            if median == 0.0:
                share = 1.0 if distance[place] > 0.0 else 0.0
            else:
                share = min(distance[place] / (6.0 * median), 1.0)
            robustness[place] = (1.0 - share * share) ** 2
    return fitted


def lowess(x: Floats, y: Floats, *, span: float, delta: float, n_rounds: int = 3) -> tuple[Floats, Floats]:
    """Smooth y over x.

    Parameters
    ----------
    x, y
        Points (m,), finite; m at least 1.
    span
        Share of the points that a local line takes, 0 to 1; at least two points.
    delta
        Distance within which straight lines between local ones do.
    n_rounds
        Rounds of robustness weights after the first fit.

    Returns
    -------
    x sorted and the smoothed y, both (m,).

    Notes
    -----
    Time O(anchors · span · m), with at most range/delta anchors or so.
    """
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    if x.size == 1:
        return x, y
    n_near = min(max(int(span * x.size + 1e-10), 2), x.size)
    return x, _smooth(x, y, n_near, delta, n_rounds)


@njit(nogil=True, cache=True)
def _curve_index(x: Floats, value: float, hint: int) -> int:
    """Return the last j with x[j] ≤ value, for a value inside the range; the hint is where the last one was."""
    if x[hint] <= value < x[hint + 1]:
        return hint
    low, high = 0, x.shape[0] - 1
    while high - low > 1:
        middle = (low + high) // 2
        if x[middle] <= value:
            low = middle
        else:
            high = middle
    return low


@njit(nogil=True, cache=True, error_model="numpy")
def precisions(values: Floats, curve_x: Floats, curve_y: Floats, weights: Floats) -> None:
    """Multiply weights by curve(value)⁻⁴, in place; the curve is constant beyond its ends, and NaN of NaN.

    Parameters
    ----------
    values
        (genes, n).
    curve_x, curve_y
        Points of the curve, ascending in x (m,).
    weights
        Changed in place (genes, n).
    """
    last = curve_x.shape[0] - 1
    for gene in range(values.shape[0]):
        hint = 0
        before = np.nan
        precision = np.nan
        for sample in range(values.shape[1]):
            value = values[gene, sample]
            if value != before:  # samples of a group share their fitted value; NaN differs from itself
                if np.isnan(value):
                    height = np.nan
                elif value <= curve_x[0]:
                    height = curve_y[0]
                elif value >= curve_x[last]:
                    height = curve_y[last]
                else:
                    hint = _curve_index(curve_x, value, hint)
                    slope = (curve_y[hint + 1] - curve_y[hint]) / (curve_x[hint + 1] - curve_x[hint])
                    height = curve_y[hint] + slope * (value - curve_x[hint])
                precision = (1.0 / (height * height)) ** 2
                before = value
            weights[gene, sample] *= precision
