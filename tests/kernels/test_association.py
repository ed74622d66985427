"""The small algebra of the association test."""

import numpy as np
import pytest

from normalisr_dask.kernels import association


def squares(residual: float, about_mean: float, raw: float) -> np.ndarray:
    return np.array([[residual, about_mean, raw]])


class TestVarianceThatIsLeft:
    @pytest.mark.parametrize(
        ("residual", "about_mean", "raw"), [(1.0, 2.0, 3.0), (1e-9, 1.0, 1.0), (1e-20, 1e-20, 1e-20), (1.0, 1.0, 1e20)]
    )
    def test_small_but_real(self, residual, about_mean, raw):
        assert association.residual_variance(squares(residual, about_mean, raw), n_cells=10) == residual / 10

    @pytest.mark.parametrize(
        ("residual", "about_mean", "raw"), [(0.0, 0.0, 0.0), (0.0, 1.0, 1.0), (1e-16, 1.0, 1.0), (1e-13, 1e-13, 1e17)]
    )
    def test_rounding(self, residual, about_mean, raw):
        assert association.residual_variance(squares(residual, about_mean, raw), n_cells=10) == 0

    def test_whether_a_row_varies(self):
        rows = np.array([[0.0] * 9, [0.1] * 9, [0.0] * 8 + [1.0], [1e8] * 8 + [1e8 + 1]])
        found = association.row_squares(
            rows, coefficients=np.zeros((4, 0)), mean=rows.mean(axis=1), covariates=np.empty((0, 9))
        )
        np.testing.assert_array_equal(association.varies(found), [False, False, True, True])


def test_a_test_that_tells_nothing_is_defined():
    products = np.array([[3.0, 3.0], [3.0, 3.0]])
    row_variance, gene_variance = np.array([[0.0], [2.0]]), np.array([[4.0, 4.0], [0.0, 4.0]])
    found = association.gamma(products, row_variance, gene_variance, n_cells=2)
    np.testing.assert_array_equal(found, [[0, 0], [0, 0.75]])
    found = association.r_squared(products, row_variance, gene_variance, n_cells=2)
    np.testing.assert_allclose(found, [[0, 0], [0, 1.5**2 / 8]])
    found = association.standard_error(found, row_variance, gene_variance, np.array([8.0, 8.0]))
    np.testing.assert_array_equal(found[0], 0)
    assert np.isfinite(found).all()


def test_r_squared_is_at_most_one():
    found = association.r_squared(np.array([[1 + 1e-12]]), np.array([[1.0]]), np.array([[1.0]]), n_cells=1)
    assert found == 1


def test_degrees_of_freedom_count_the_rank_of_the_covariates():
    covariates = np.vstack([np.ones(9), np.arange(9.0), 3 - np.arange(9.0)])
    gram = covariates @ covariates.T
    np.testing.assert_array_equal(association.degrees_of_freedom(gram, np.array([0.0, 2.0]), n_cells=9), [6, 4])
    with pytest.raises(ValueError, match="covariates of rank 2, rank loss 6 and 1 for the grouping, found 9 cells"):
        association.degrees_of_freedom(gram, np.array([0.0, 6.0]), n_cells=9)
    np.testing.assert_array_equal(association.degrees_of_freedom(np.empty((0, 0)), np.zeros(1), n_cells=9), [8])


def test_values_that_are_not_finite():
    rows = np.array([[1.0, 2.0], [np.nan, 1.0]])
    with pytest.raises(ValueError, match="expected finite values in dg, found nan as the sum of a row's values"):
        association.row_products(rows, covariates=np.ones((1, 2)), name="dg")
