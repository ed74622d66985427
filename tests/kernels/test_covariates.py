"""Combinations of covariates that are orthonormal, whatever the covariates' units, offsets and rank."""

import numpy as np
import pytest

from normalisr_dask.kernels.covariates import combined, orthonormal_combinations, products_with_ones

N_CELLS = 500
RANDOM = np.random.default_rng(0)
NORMAL, LOG_TOTAL, ONES = RANDOM.normal(size=(2, N_CELLS)), RANDOM.normal(9, 0.5, size=N_CELLS), np.ones(N_CELLS)
COVARIATES = {
    "normal": NORMAL,
    "with a constant row": np.vstack([NORMAL, 3.0 * ONES]),
    "about 100": np.vstack([ONES, NORMAL + 100]),
    "about 10,000": np.vstack([NORMAL + 1e4, ONES]),
    "units far apart": np.vstack([1e-9 * NORMAL[0], 1e9 * NORMAL[1], ONES]),
    "a number and its square": np.vstack([LOG_TOTAL, LOG_TOTAL**2, ONES]),
    "groups that add up to one": np.eye(3)[RANDOM.integers(3, size=N_CELLS)].T,
}


def basis_of(covariates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows that the combinations make, and what turns coefficients on them into those on covariates."""
    both = orthonormal_combinations(products_with_ones(covariates), n_cells=N_CELLS)
    return combined(covariates, combinations=both[: len(covariates)]), both[len(covariates) :]


@pytest.mark.parametrize("covariates", COVARIATES.values(), ids=COVARIATES)
class TestBasis:
    def test_it_is_orthonormal(self, covariates: np.ndarray):
        rows, _ = basis_of(covariates)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-6)  # 1e4² of 16 digits leaves 8

    def test_it_spans_the_covariates(self, covariates: np.ndarray):
        rows, _ = basis_of(covariates)
        scaled = covariates / np.linalg.norm(covariates, axis=1)[:, None]
        orthonormal = np.linalg.qr(rows.T)[0]
        assert np.abs(scaled - scaled @ orthonormal @ orthonormal.T).max() < 1e-15

    def test_coefficients_on_it_are_coefficients_on_the_covariates(self, covariates: np.ndarray):
        rows, to_covariates = basis_of(covariates)
        on_basis = np.array([[1.0, -2.0, 0.5]])[:, : len(covariates)]
        np.testing.assert_allclose(on_basis @ to_covariates @ covariates, on_basis @ rows, atol=1e-9)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_covariates_that_others_determine_count_once(offset: float):
    independent = np.vstack([ONES, NORMAL + offset])
    covariates = np.vstack([independent, independent[2], 2 * independent[1] - 3 * independent[0], np.zeros(N_CELLS)])
    rows, to_covariates = basis_of(covariates)
    assert np.count_nonzero(rows.any(axis=1)) == 3
    gene = RANDOM.normal(size=N_CELLS)
    smallest = np.linalg.lstsq(covariates.T, gene)[0]
    np.testing.assert_allclose(gene @ rows.T @ to_covariates, smallest, rtol=1e-9, atol=1e-9)


def test_no_covariates():
    rows, to_covariates = basis_of(np.empty((0, N_CELLS)))
    assert rows.shape == (0, N_CELLS)
    assert to_covariates.shape == (0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value: float):
    with pytest.raises(ValueError, match="expected finite covariates, weights and scaling factors"):
        orthonormal_combinations(products_with_ones(np.array([[1.0, value]])), n_cells=2)
