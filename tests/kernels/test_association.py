"""The small algebra of the association test."""

import numpy as np
import pytest
import scipy.sparse

from normalisr_dask.kernels import association, joint
from normalisr_dask.kernels.linear_algebra import coefficients


def squares_of(rows: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    """Return the sums of squares of rows, with coefficients as a first pass over the cells gives them."""
    n_cells, gram = rows.shape[1], covariates @ covariates.T
    products = association.row_products(rows, covariates=covariates, name="dt")
    fit = coefficients(products[:, :-1], gram)
    sums = association.residual_sums(rows, coefficients=fit, mean=products[:, -1] / n_cells, covariates=covariates)
    return association.refined_fit(fit, sums, gram, n_cells=n_cells, name="dt")[:, -3:]


def test_entries_given_twice_count_as_their_sum():
    entries = (np.array([1.0, 2.0, 4.0]), np.array([0, 0, 3]), np.array([0, 2, 3]))
    twice = scipy.sparse.csr_array(entries, shape=(2, 5))
    given = {"coefficients": np.ones((2, 1)), "mean": np.zeros(2), "covariates": np.arange(5.0)[None]}
    dense = np.array([[3.0, 0, 0, 0, 0], [0, 0, 0, 4, 0]])
    np.testing.assert_allclose(association.residual_sums(twice, **given), association.residual_sums(dense, **given))


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_products_of_groupings_are_those_of_all_blocks(share):
    rows = np.random.default_rng(0).random((8, 300)) < share
    rows = np.where(rows, 2.0, 0.0)
    for blocks in (
        [rows[:, :100], rows[:, 100:]],
        [scipy.sparse.csc_array(part) for part in np.split(rows, 3, axis=1)],
    ):
        gram = np.zeros((8, 8))
        for block in blocks:
            before = gram.copy()
            gram, old = joint.with_products(gram, block), gram
            np.testing.assert_array_equal(old, before)
        np.testing.assert_allclose(gram, rows @ rows.T)


class TestVarianceThatIsLeft:
    covariates = np.vstack([np.ones(4000), np.random.default_rng(0).normal(size=(2, 4000))])
    noise = np.random.default_rng(1).normal(size=4000)

    @pytest.mark.parametrize(("offset", "size"), [(0, 1.0), (0, 1e-140), (1e5, 1.0), (1e5, 1e-5), (1e8, 1.0)])
    def test_small_but_real(self, offset, size):
        rows = offset + size * self.noise[None]
        exact = self.noise - np.linalg.lstsq(self.covariates.T, self.noise)[0] @ self.covariates
        found = association.residual_variance(squares_of(rows, self.covariates), n_cells=4000)
        np.testing.assert_allclose(found, size**2 * np.mean(exact**2), rtol=1e-15 * offset / size + 1e-12)

    @pytest.mark.parametrize("weights", [(0.0, 0.0, 0.0), (0.1, 0, 0), (1e8, 0, 0), (3.7, 1.0, -2.5), (0, 1e5, 1e-3)])
    def test_rounding(self, weights):
        rows = (np.array(weights) @ self.covariates)[None]
        assert association.residual_variance(squares_of(rows, self.covariates), n_cells=4000) == 0

    def test_whether_a_row_varies(self):
        rows = np.repeat([[0.0], [0.1], [0.0], [1e8]], 90_000, axis=1)
        rows[2:, -1] += 1
        found = association.varies(squares_of(rows, np.empty((0, 90_000))))
        np.testing.assert_array_equal(found, [False, False, True, True])

    def test_values_too_large_to_be_squared(self):
        with pytest.raises(ValueError, match="expected values of dt whose squares can be added up"):
            squares_of(np.array([[1e200, 1.0]]), np.ones((1, 2)))


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
