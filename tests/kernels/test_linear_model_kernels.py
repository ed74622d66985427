"""Kernels of linear models: blocks without rows, LOWESS beside stored curves, ranks, read-only input."""

import numpy as np
import pytest
from limma_fixtures import load

from normalisr_dask.kernels import array_weights, array_weights_reml
from normalisr_dask.kernels.block_correlation import block_correlations
from normalisr_dask.kernels.least_squares import column_space, fit_rows, independent_columns
from normalisr_dask.kernels.lowess import lowess, precisions
from normalisr_dask.kernels.mean_variance import fit_with_facts, trend_weights
from normalisr_dask.kernels.p_adjustment import METHODS, adjust, adjust_rows
from normalisr_dask.kernels.robust_priors import winsorised_moments
from normalisr_dask.kernels.variance_priors import natural_spline, trigamma, trigamma_inverse

DESIGN = np.column_stack([np.ones(6), np.arange(6.0)])
BLOCKS = np.array([0, 0, 1, 1, 2, 2])
NO_ROWS = np.empty((0, 6))


def test_blocks_without_rows_give_none() -> None:
    assert fit_rows(NO_ROWS, design=DESIGN, blocks=BLOCKS, correlation=0.1).shape == (0, 6)
    assert fit_with_facts(NO_ROWS, NO_ROWS, NO_ROWS, design=DESIGN).shape == (0, 11)
    assert block_correlations(NO_ROWS, NO_ROWS, design=DESIGN, blocks=BLOCKS).shape == (0,)
    curve = np.array([1.0, 2.0])
    found = trend_weights(np.empty((0, 2)), design=DESIGN, curve_x=curve, curve_y=curve, slopes=np.zeros(3))
    assert found.shape == (0, 6)
    first = array_weights.first_state(6, 10, None)
    state = array_weights.fold_genes(first, NO_ROWS, NO_ROWS, design=DESIGN)
    for before, after in zip(first, state, strict=True):
        np.testing.assert_array_equal(before, after)
    assert array_weights_reml.scaled_squares(NO_ROWS, design=DESIGN, sample_weights=np.ones(6)).shape == (0, 7)


@pytest.mark.parametrize("case", range(8))
def test_curves_are_those_stored(case: int) -> None:
    stored = {
        name.removeprefix(f"c{case}_"): value for name, value in load("f24").items() if name.startswith(f"c{case}_")
    }
    x, y = stored["x"], stored["y"]
    found_x, found_y = lowess(x, y, span=stored["frac"].item(), delta=0.01 * np.ptp(x))
    np.testing.assert_array_equal(found_x, stored["xs"])
    np.testing.assert_allclose(found_y, stored["fit"], rtol=1e-10, atol=1e-11)


def test_a_curve_is_constant_beyond_its_ends() -> None:
    weights = np.ones((1, 6))
    x, y = np.array([0.0, 1.0, 1.0, 3.0]), np.array([1.0, 2.0, 2.0, 4.0])
    precisions(np.array([[-1.0, 0.5, 2.0, 9.0, np.nan, 1.0]]), x, y, weights)
    np.testing.assert_allclose(weights[0] ** -0.25, [1, 1.5, 3, 4, np.nan, 2])


@pytest.mark.parametrize(
    ("columns", "pivot", "rank"),
    [
        (np.eye(3), [0, 1, 2], 3),
        (np.array([[1.0, 1, 0], [1, 1, 1], [1, 1, 2]]), [0, 2, 1], 2),
        (np.array([[0.0, 1], [0, 2], [0, 3]]), [1, 0], 1),
        (np.ones((2, 3)) * [1, 2, 3], [0, 1, 2], 1),
        (np.array([[1.0, 1], [1, 1 + 1e-9], [1, 1]]), [0, 1], 1),
        (np.array([[1.0, 1], [1, 1 + 1e-5], [1, 1]]), [0, 1], 2),
    ],
)
def test_columns_are_kept_in_their_order(columns: np.ndarray, pivot: list[int], rank: int) -> None:
    found, found_rank = independent_columns(columns)
    assert (found.tolist(), found_rank) == (pivot, rank)
    basis = column_space(columns)
    np.testing.assert_allclose(basis.T @ basis, np.eye(rank), atol=1e-15)


def test_trigamma_is_inverted_over_its_range() -> None:
    for y in (1e-5, 0.01, 1.0, 50.0, 1e7):
        assert trigamma_inverse(float(trigamma(np.array(y)))) == pytest.approx(y, rel=1e-3 if y < 1e-4 else 1e-6)


def test_splines_are_lines_beyond_their_ends() -> None:
    x = np.linspace(-2, 6, 81)
    basis = natural_spline(x, np.array([0.0, 1.0, 2.5, 4.0]))
    assert np.linalg.matrix_rank(basis) == 4
    for beyond in (x <= 0, x >= 4):
        np.testing.assert_allclose(np.diff(basis[beyond], 2, axis=0), 0, atol=1e-9)


@pytest.mark.parametrize("prior_df", [3.0, 40.0, np.inf])
def test_winsorised_moments_are_those_of_a_sample(prior_df: float) -> None:
    random = np.random.default_rng(0)
    below = 1.0 if np.isinf(prior_df) else random.chisquare(prior_df, 400_000) / prior_df
    logs = np.log(random.chisquare(8, 400_000) / 8 / below)
    clipped = np.clip(logs, *np.quantile(logs, [0.05, 0.9]))
    mean, variance = winsorised_moments(8.0, prior_df, (0.05, 0.1))
    assert mean == pytest.approx(clipped.mean(), abs=0.01)
    assert variance == pytest.approx(clipped.var(), rel=0.01)


@pytest.mark.parametrize("method", sorted(set(METHODS) - {"hommel"}))
def test_rows_are_adjusted_as_families(method: str) -> None:
    tails = np.random.default_rng(0).random((5, 4))
    np.testing.assert_array_equal(adjust_rows(tails, method), [adjust(row, method) for row in tails])
