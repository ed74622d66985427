"""Benjamini-Hochberg Q-values against SciPy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.stats import false_discovery_control

from normalisr_dask.kernels.multiple_testing import benjamini_hochberg

p_values = arrays(np.float64, array_shapes(max_dims=2, max_side=30), elements=st.floats(0, 1))


@given(p_values)
def test_equals_scipy(p: np.ndarray) -> None:
    for axis in range(-1, p.ndim):
        np.testing.assert_array_equal(benjamini_hochberg(p, axis=axis), false_discovery_control(p, axis=axis))


@given(p_values)
def test_q_is_between_p_and_one_and_in_the_order_of_p(p: np.ndarray) -> None:
    q = benjamini_hochberg(p)
    assert (q >= p).all()
    assert (q <= 1).all()
    assert (np.diff(np.take_along_axis(q, np.argsort(p, axis=-1), axis=-1), axis=-1) >= 0).all()


def test_nan_stays_and_does_not_count() -> None:
    p = np.random.default_rng(0).random((20, 20)) ** 3
    np.fill_diagonal(p, np.nan)
    q = benjamini_hochberg(p)
    for row, (p_of_row, q_of_row) in enumerate(zip(p, q, strict=True)):
        assert np.isnan(q_of_row[row])
        others = np.arange(20) != row
        np.testing.assert_array_equal(q_of_row[others], false_discovery_control(p_of_row[others]))
    np.testing.assert_array_equal(benjamini_hochberg(np.full((2, 3), np.nan)), np.full((2, 3), np.nan))


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_zero_size(shape: tuple[int, ...]) -> None:
    assert benjamini_hochberg(np.empty(shape)).shape == shape


def test_input_is_not_changed_and_may_be_read_only() -> None:
    p = np.random.default_rng(0).random((3, 50))
    before = p.copy()
    p.flags.writeable = False
    benjamini_hochberg(p)
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("value", [-0.5, 1.5, np.inf])
def test_p_value_out_of_range(value: float) -> None:
    with pytest.raises(ValueError, match=rf"P-values must be in \[0, 1\], but {value:g} is among them"):
        benjamini_hochberg([0.1, value, np.nan])
