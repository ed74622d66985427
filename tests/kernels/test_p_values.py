"""P-values of association tests against mpmath's multiprecision arithmetic, and their properties."""

import math
from collections.abc import Callable

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaincc

from normalisr_dask.kernels.p_values import (
    log10_p_value,
    p_value,
    pairwise_log10_p_value,
    pairwise_p_value,
)

DEGREES_OF_FREEDOM = [0.5, 1, 1.5, 2, 3, 5, 7.7, 10, 29, 30, 30.25, 31, 50, 100, 1e3, 12345.678, 1e4, 1e6, 1e8]
any_r_squared = st.floats(0, 1)
any_degrees_of_freedom = st.one_of(st.integers(1, 10**8), st.floats(0.5, 1e8))


def r_squared_near(log10_p: np.ndarray, degrees_of_freedom: float) -> np.ndarray:
    """R² < 1 whose log10 P is of the order of the given ones."""
    squares = -np.expm1(2 * math.log(10) * log10_p / degrees_of_freedom)
    return squares[squares < 1]


def exact_p_value(r_squared: float, degrees_of_freedom: float) -> mpmath.mpf:
    """Incomplete beta integral, ∫ exp(−a l) / √(1 − exp(−l)) dl from −log(1 − R²) on, by quadrature with 25 digits."""
    with mpmath.workdps(25):
        a, square = mpmath.mpf(degrees_of_freedom) / 2, mpmath.mpf(r_squared)

        def integrand(u: mpmath.mpf) -> mpmath.mpf:
            decay = u * u / a
            return u * mpmath.exp(-u * u) / mpmath.sqrt(square * mpmath.exp(-decay) - mpmath.expm1(-decay))

        integral = mpmath.quad(integrand, [0, 0.5, 1, 2, 4, 9])
        return (1 - square) ** a * 2 * integral / (a * mpmath.beta(a, mpmath.mpf(1) / 2))


@pytest.mark.parametrize("degrees_of_freedom", DEGREES_OF_FREEDOM)
def test_both_forms_reproduce_the_exact_p_value(degrees_of_freedom: float) -> None:
    log10_scale = -np.array([1e-6, 1e-3, 0.05, 0.3, 0.7, 1.5, 4, 12, 40, 120, 290, 1e3, 3e4, 1e6])
    squares = r_squared_near(log10_scale, degrees_of_freedom)
    assert squares.size >= 7
    exact = [exact_p_value(square, degrees_of_freedom) for square in squares.tolist()]
    np.testing.assert_allclose(p_value(squares, degrees_of_freedom), [float(p) for p in exact], rtol=1e-11, atol=1e-300)
    exact_log10 = [float(mpmath.log10(p)) for p in exact]
    np.testing.assert_allclose(log10_p_value(squares, degrees_of_freedom), exact_log10, rtol=1e-11, atol=2e-15)


def test_r_squared_next_to_one_keeps_its_precision() -> None:
    square = 1 - 2.0**-53
    for degrees_of_freedom in (1, 4, 30, 200, 125_000):
        exact = mpmath.log10(exact_p_value(square, degrees_of_freedom))
        assert log10_p_value(square, degrees_of_freedom) == pytest.approx(float(exact), rel=1e-12)


def test_agrees_with_scipy_on_realistic_tests() -> None:
    random = np.random.default_rng(1)
    for degrees_of_freedom in (3, 30, 500, 20_000):
        strength = np.where(random.random(5_000) < 0.1, 30, 1)  # a tenth of the tests have strong effects
        t_squared = strength * random.chisquare(1, 5_000)
        squares = t_squared / (degrees_of_freedom + t_squared)
        expected = betaincc(0.5, degrees_of_freedom / 2, squares)
        np.testing.assert_allclose(p_value(squares, degrees_of_freedom), expected, rtol=1e-9, atol=1e-300)


def test_one_and_two_degrees_of_freedom_have_closed_forms() -> None:
    correlations = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(p_value(correlations**2, 1), 2 / np.pi * np.arccos(correlations), rtol=2e-12)
    np.testing.assert_allclose(p_value(correlations**2, 2), 1 - correlations, rtol=1e-13)


@given(any_r_squared, any_r_squared, any_degrees_of_freedom)
def test_p_falls_as_r_squared_rises(one: float, other: float, degrees_of_freedom: float) -> None:
    squares = np.sort([one, other])
    p = p_value(squares, degrees_of_freedom)
    log10_p = log10_p_value(squares, degrees_of_freedom)
    assert 1 >= p[0] >= p[1] * (1 - 1e-11) >= 0
    assert 0 >= log10_p[0] >= log10_p[1] * (1 + 1e-11) - 1e-14


@given(st.floats(0, 0.999), st.integers(1, 10**6), st.integers(1, 10**6))
def test_p_falls_as_degrees_of_freedom_rise(r_squared: float, one: int, other: int) -> None:
    p = log10_p_value([r_squared, r_squared], np.sort([one, other]))
    assert p[0] >= p[1] * (1 + 1e-11) - 1e-14


@given(any_r_squared, any_degrees_of_freedom)
def test_both_forms_agree(r_squared: float, degrees_of_freedom: float) -> None:
    p, log10_p = p_value(r_squared, degrees_of_freedom), log10_p_value(r_squared, degrees_of_freedom)
    assert (log10_p == -np.inf) == (r_squared == 1)
    assert p == pytest.approx(10.0**log10_p, rel=1e-11, abs=1e-305)


@pytest.mark.parametrize("degrees_of_freedom", [0.5, 1, 2, 50, 1e8])
def test_edge_values(degrees_of_freedom: float) -> None:
    squares = [0.0, 1.0, 1 + 4e-16, np.nan, -0.1, 1.1, np.inf]
    np.testing.assert_array_equal(p_value(squares, degrees_of_freedom), [1, 0, 0, *[np.nan] * 4])
    expected = [0, -np.inf, -np.inf, *[np.nan] * 4]
    np.testing.assert_array_equal(log10_p_value(squares, degrees_of_freedom), expected)
    assert p_value(5e-324, degrees_of_freedom) == pytest.approx(1, rel=1e-15)
    assert log10_p_value(5e-324, degrees_of_freedom) == pytest.approx(0, abs=1e-15)


def test_nan_leaves_its_neighbours_alone() -> None:
    squares = np.full(1_000, 0.01)
    squares[::7] = np.nan
    p = p_value(squares, 300)
    np.testing.assert_array_equal(np.isnan(p), np.isnan(squares))
    assert np.unique(p[~np.isnan(p)]).size == 1


@pytest.mark.parametrize("function", [p_value, log10_p_value])
@pytest.mark.parametrize("shape", [(), (4,), (4, 1), (3, 1, 1), (3, 4, 700), (1, 1)])
def test_degrees_of_freedom_broadcast(function: Callable[..., np.ndarray], shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(2)
    squares = random.random((3, 700, 4) if shape == (4,) else (3, 4, 700))
    degrees_of_freedom = random.integers(3, 9, shape)
    expected = [
        function(square, nu).item()
        for square, nu in zip(squares.flat, np.broadcast_to(degrees_of_freedom, squares.shape).flat, strict=True)
    ]
    np.testing.assert_allclose(function(squares, degrees_of_freedom).ravel(), expected, rtol=1e-13)


def test_pairs_take_the_smaller_degrees_of_freedom() -> None:
    random = np.random.default_rng(3)
    squares = random.random((40, 60))
    rows, columns = random.integers(20, 23, 40), random.integers(19, 22, 60)
    smaller = np.minimum.outer(rows, columns)
    np.testing.assert_array_equal(pairwise_p_value(squares, rows, columns), p_value(squares, smaller))
    np.testing.assert_array_equal(pairwise_log10_p_value(squares, rows, columns), log10_p_value(squares, smaller))
    np.testing.assert_array_equal(pairwise_p_value(squares, rows, 20), p_value(squares, np.minimum(rows, 20)[:, None]))
    np.testing.assert_array_equal(pairwise_p_value(squares, 20, 20), p_value(squares, 20))
    np.testing.assert_array_equal(pairwise_p_value(squares[:, :0], rows, columns[:0]), np.empty((40, 0)))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
def test_zero_size(shape: tuple[int, ...]) -> None:
    squares = np.empty(shape)
    for degrees_of_freedom in (30, np.full(shape[-1:], 30.0), np.full(shape, 30.0)):
        for function in (p_value, log10_p_value):
            result = function(squares, degrees_of_freedom)
            assert result.shape == shape
            assert result.dtype == np.float64


def test_read_only_strided_and_other_types_of_input() -> None:
    squares = np.random.default_rng(4).random((60, 40))
    expected = p_value(squares, 12)
    squares.flags.writeable = False
    np.testing.assert_array_equal(p_value(squares, 12), expected)
    np.testing.assert_array_equal(p_value(squares.T, 12), expected.T)
    np.testing.assert_array_equal(p_value(squares[::3, 1::2], 12), expected[::3, 1::2])
    np.testing.assert_array_equal(p_value(squares.tolist(), 12), expected)
    np.testing.assert_allclose(p_value(squares.astype(np.float32), 12), expected, rtol=1e-4)


def test_writes_into_out_also_in_place() -> None:
    squares = np.random.default_rng(5).random((7, 400))
    expected = p_value(squares, 50)
    out = np.empty_like(squares)
    assert p_value(squares, 50, out=out) is out
    np.testing.assert_array_equal(out, expected)
    p_value(squares, 50, out=squares)
    np.testing.assert_array_equal(squares, expected)


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.empty((3, 2)), r"a C-contiguous float64 array of shape \(3, 2\)"),
        (np.empty((2, 3), dtype=np.float32), "float32"),
        (np.empty((3, 2)).T, "a not C-contiguous"),
    ],
)
def test_unfit_out(out: np.ndarray, found: str) -> None:
    with pytest.raises(
        ValueError, match=r"out must be a C-contiguous float64 array of shape \(2, 3\), but is .*" + found
    ):
        p_value(np.zeros((2, 3)), 10, out=out)


@pytest.mark.parametrize("value", [0, -3, np.nan, np.inf])
def test_impossible_degrees_of_freedom(value: float) -> None:
    for function in (p_value, log10_p_value):
        with pytest.raises(ValueError, match=f"must be finite and positive, but {value:g} is among them"):
            function([0.5, 0.5], [10, value])
    with pytest.raises(ValueError, match="must be finite and positive"):
        pairwise_p_value(np.zeros((1, 1)), [10], [value])


def test_degrees_of_freedom_that_do_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"of shape \(2,\) do not broadcast to R² of shape \(2, 3\)"):
        p_value(np.zeros((2, 3)), [10, 11])
    with pytest.raises(ValueError, match=r"of shape \(3, 2\) do not broadcast to R² of shape \(2, 3\)"):
        pairwise_p_value(np.zeros((2, 3)), [10, 11, 12], [10, 11])
    with pytest.raises(ValueError, match=r"of shape \(3, 2\) do not broadcast to R² of shape \(2, 3\)"):
        pairwise_p_value(np.zeros((2, 3)), [10, 10, 10], [10, 10])
