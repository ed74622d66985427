"""Interpolation of exponentials at Chebyshev nodes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalisr_dask.kernels.chebyshev import N_NODES, check_range, interpolation_matrix, nodes, with_all_nodes


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
        assert nodes(bounds).size == bounds[2] <= N_NODES
        np.testing.assert_allclose(found, np.exp(growth * (scaling - low)), rtol=1e-9)


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (0.3, 0.3), (0.0, 0.0), (0.5, 0.5 + 1e-9)])
def test_ends_and_ranges_without_width(bounds):
    points, node_range = np.array(bounds), np.array([*bounds, N_NODES])
    found = interpolation_matrix(points, node_range) @ np.exp(2 * nodes(node_range))
    np.testing.assert_allclose(found, np.exp(2 * points), rtol=1e-13)
    assert nodes(node_range).shape == (N_NODES,)
    assert np.unique(nodes(node_range)).size == N_NODES


def test_no_points():
    assert interpolation_matrix(np.empty(0), np.array([0.0, 1.0, 5])).shape == (0, 5)


def test_few_nodes_where_weights_and_scaling_range_little():
    """And no digit is lost by it."""
    weights, scaling = np.array([0.8, 1.0, 1.3]), np.linspace(0.2, 0.9, 7)
    node_range = check_range(weights, scaling)
    assert node_range[2] < N_NODES / 2
    for weight in weights:
        found = interpolation_matrix(scaling, node_range) @ weight ** (2 * nodes(node_range))
        np.testing.assert_allclose(found, weight ** (2 * scaling), rtol=1e-14)
    assert check_range(np.ones(3), scaling)[2] == 1


def test_sums_at_nodes_take_the_place_of_all():
    sums = np.arange(1.0, 13).reshape(2, 6)  # two numbers at each of three nodes
    found = with_all_nodes(sums, 3, axis=1)
    assert found.shape == (2, 2 * N_NODES)
    np.testing.assert_array_equal(found[:, :6], sums)
    assert not found[:, 6:].any()


def test_weights_that_range_too_widely():
    weights = np.array([1e-4, 1e4])
    with pytest.raises(
        ValueError, match=r"found 0\.0001 to 1e\+04; remove outlying cells \(qc_outlier\), or give dense"
    ):
        check_range(weights, np.array([0.0, 1.0]))
    np.testing.assert_array_equal(check_range(weights, np.array([0.7, 0.7]))[:2], [0.7, 0.7])
