"""Interpolation of exponentials at Chebyshev nodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalisr_dask.kernels.chebyshev import N_NODES, check_range, interpolation_matrix, nodes


@given(st.floats(0, 2), st.floats(0, 1.5), st.floats(1, 1000))
def test_exponentials_are_interpolated_wherever_the_range_is_accepted(low, width, ratio):
    """Relative to the smallest of the weights that are summed, which is 1 / sqrt(ratio)."""
    weights = np.array([ratio**-0.5, 1.0, ratio**0.5])
    scaling = np.linspace(low, low + width, 11)
    try:
        bounds = check_range(weights, scaling)
    except ValueError:
        assert width * np.log(ratio) > 5
        return
    for weight in weights:
        growth = 2 * np.log(weight)
        found = interpolation_matrix(scaling, bounds) @ np.exp(growth * (nodes(bounds) - low))
        np.testing.assert_allclose(found, np.exp(growth * (scaling - low)), rtol=1e-9)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.3, 0.3), (0.0, 0.0), (0.5, 0.5 + 1e-9)])
def test_ends_and_ranges_without_width(bounds):
    points = np.array(bounds)
    found = interpolation_matrix(points, points) @ np.exp(2 * nodes(points))
    np.testing.assert_allclose(found, np.exp(2 * points), rtol=1e-13)
    assert nodes(points).shape == (N_NODES,)
    assert np.unique(nodes(points)).size == N_NODES


def test_no_points():
    assert interpolation_matrix(np.empty(0), np.array([0.0, 1.0])).shape == (0, N_NODES)


def test_weights_that_range_too_widely():
    weights = np.array([1e-4, 1e4])
    with pytest.raises(
        ValueError, match=r"found 0\.0001 to 1e\+04; remove outlying cells \(qc_outlier\), or give dense"
    ):
        check_range(weights, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(check_range(weights, np.array([0.7, 0.7])), [0.7, 0.7])
