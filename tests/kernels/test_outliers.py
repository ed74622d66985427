"""Outliers of a vector."""

import numpy as np
import pytest

from normalisr_dask.kernels.outliers import variance_outliers


def test_outliers_on_both_sides_are_found_and_the_input_is_left_alone():
    weights = np.append(np.random.default_rng(0).normal(5, 0.2, size=300), [0.5, 9.0])
    weights.flags.writeable = False
    kept = variance_outliers(weights, pcut=1e-6, outrate=0.02)
    np.testing.assert_array_equal(np.flatnonzero(~kept), [300, 301])


def test_the_order_of_cells_does_not_matter():
    random = np.random.default_rng(1)
    weights, order = random.gamma(20, size=200), random.permutation(200)
    kept = variance_outliers(weights, pcut=0.5, outrate=0.1)
    assert 0 < kept.sum() < 200
    np.testing.assert_array_equal(variance_outliers(weights[order], pcut=0.5, outrate=0.1), kept[order])


@pytest.mark.parametrize("weights", [np.array([1.0, -2.0]), np.array([1.0, np.inf])])
def test_weights_must_be_positive(weights):
    with pytest.raises(ValueError, match=r"expected positive weights, found .* for cell 1"):
        variance_outliers(weights, pcut=0.1, outrate=0.1)
