"""Histograms of −log10 P, inflation and QQ points, against all P-values sorted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2

from normalisr_dask.kernels.calibration import NULL_MEDIAN, add_histograms, genomic_inflation, histogram, qq_points

P_VALUES = arrays(
    np.float64,
    st.integers(1, 40),
    elements=st.one_of(st.floats(0.0, 1.0), st.floats(1e-300, 1e-5), st.sampled_from([0.0, 0.5, 1.0, np.nan])),
)


def sizes(p_values: np.ndarray) -> np.ndarray:
    """Ascending −log10 P without NaN."""
    with np.errstate(divide="ignore"):
        return np.sort(0.0 - np.log10(p_values[~np.isnan(p_values)]))


def test_the_null_median_is_that_of_chi2():
    assert pytest.approx(chi2.ppf(0.5, 1), rel=1e-14) == NULL_MEDIAN


@given(P_VALUES, st.integers(0, 40))
def test_parts_add_up_to_the_whole(p_values, split):
    whole = histogram(p_values, log10=False)
    parts = add_histograms([histogram(part, log10=False) for part in (p_values[:split], p_values[split:])])
    for found, wanted in zip(parts, whole, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert whole.n_tests == np.count_nonzero(~np.isnan(p_values))


@given(P_VALUES)
def test_points_are_order_statistics(p_values):
    expected, observed = qq_points(histogram(p_values, log10=False), n_points=60)
    ordered = sizes(p_values)
    n_tests = ordered.size
    np.testing.assert_allclose(expected[:n_tests], -np.log10(np.arange(1, n_tests + 1) / (n_tests + 1)), rtol=1e-12)
    np.testing.assert_allclose(observed[:n_tests], ordered[::-1], rtol=3.1e-5, atol=1e-300)
    assert np.isnan(expected[n_tests:]).all()
    assert np.isnan(observed[n_tests:]).all()


@pytest.mark.parametrize("n_tests", [1, 2, 3, 1000, 1001, 10**5])
@pytest.mark.parametrize("power", [0.7, 1.0, 1.6])
def test_inflation_is_the_median_of_chi2(n_tests, power):
    p_values = np.random.default_rng(n_tests).random(n_tests) ** power
    wanted = np.median(chi2.isf(p_values, 1)) / chi2.ppf(0.5, 1)
    assert genomic_inflation(histogram(p_values, log10=False)) == pytest.approx(wanted, rel=1e-4)


def test_without_underflow():
    log10_p = np.array([-5000.0, -400.0, -0.1])
    of_log = histogram(log10_p, log10=True)
    np.testing.assert_allclose(qq_points(of_log, n_points=3)[1], -log10_p, rtol=3.1e-5)
    # χ² of P = 1e-400: chi2.isf underflows, its asymptotic series does not
    z_squared = 2 * (400 * np.log(10) - 0.5 * np.log(np.pi / 2) - 0.5 * np.log(2 * 400 * np.log(10)))
    assert genomic_inflation(of_log) == pytest.approx(z_squared / NULL_MEDIAN, rel=1e-2)


def test_nothing_to_test():
    empty = histogram(np.full(3, np.nan), log10=True)
    assert empty.n_tests == 0
    assert np.isnan(genomic_inflation(empty))
    assert np.isnan(qq_points(empty, n_points=4)).all()
    assert add_histograms([]).n_tests == 0


def test_all_null_and_all_extreme():
    assert genomic_inflation(histogram(np.ones(5), log10=False)) == 0.0
    assert genomic_inflation(histogram(np.zeros(5), log10=False)) == np.inf


@pytest.mark.parametrize(
    ("values", "log10", "message"),
    [
        ([0.5, 1.5], False, r"expected P-values between 0 and 1, found 1\.5"),
        ([-0.5], False, r"found -0\.5"),
        ([0.01], True, r"expected log10 of P-values of at most 0, found 0\.01"),
    ],
)
def test_what_is_no_p_value_is_refused(values, log10, message):
    with pytest.raises(ValueError, match=message):
        histogram(np.array(values), log10=log10)
