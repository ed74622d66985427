"""The exponential function of the loops over entries, against NumPy's."""

import numpy as np
import pytest

from normalisr_dask.kernels.exponential import LARGEST_EXPONENT, powers


@pytest.mark.parametrize("span", [1e-300, 1e-9, 0.3, 5.0, 80.0, LARGEST_EXPONENT])
@pytest.mark.parametrize("exponent", [1.0, -1.0, 0.37])
def test_powers_are_those_of_numpy_to_the_last_places(span, exponent):
    factors = np.random.default_rng(1).uniform(-span, span, size=10_007)
    found = np.empty_like(factors)
    powers(factors, exponent, found)
    np.testing.assert_allclose(found, np.exp(exponent * factors), rtol=2 * np.finfo(float).eps, atol=0)


def test_zero_gives_one_and_no_numbers_give_none():
    found = np.empty(3)
    powers(np.zeros(3), 5.0, found)
    np.testing.assert_array_equal(found, 1.0)
    powers(np.empty(0), 1.0, np.empty(0))


def test_what_would_overflow_or_underflow_stops_at_the_largest_exponent():
    found = np.empty(2)
    powers(np.array([-1e4, 1e4]), 1.0, found)
    np.testing.assert_allclose(found, np.exp([-LARGEST_EXPONENT, LARGEST_EXPONENT]), rtol=1e-15)


def test_the_arrays_may_be_one():
    values = np.linspace(-3, 3, 101)
    expected = np.exp(0.5 * values)
    powers(values, 0.5, values)
    np.testing.assert_allclose(values, expected, rtol=5e-16)
