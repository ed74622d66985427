"""The first principal component: against NumPy's SVD, the rule for its sign, and what does not vary."""

import numpy as np
import pytest

from normalisr_dask.kernels import principal_component as kernels

RANDOM = np.random.default_rng(4)


def test_loadings_are_those_of_the_svd():
    values = RANDOM.normal(size=(7, 30)) + RANDOM.normal(size=30)
    left = np.linalg.svd(values)[0][:, 0]
    found = kernels.top_loadings(values @ values.T)
    np.testing.assert_allclose(found, left * np.sign(left.sum()), atol=1e-12)
    assert found.sum() > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_sign_of_opposites_is_that_of_the_first(sign):
    values = RANDOM.normal(size=30)
    opposites = sign * np.stack([values, -values])
    np.testing.assert_allclose(kernels.top_loadings(opposites @ opposites.T), np.array([1, -1]) / np.sqrt(2))


def test_one_gene_is_its_own_component():
    np.testing.assert_array_equal(kernels.top_loadings(np.array([[4.0]])), [1.0])


def test_what_does_not_vary_has_no_component():
    with pytest.raises(ValueError, match="expected genes that vary after covariates, found none"):
        kernels.top_loadings(np.zeros((3, 3)))


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="expected finite expression of the genes, found NaN or infinity"):
        kernels.top_loadings(np.array([[1.0, np.nan], [np.nan, 1.0]]))


def test_constant_rows_become_zeros():
    rows = np.array([[1.0, 2.0, 3.0], [0.1, 0.1, 0.1], [0.0, 0.0, 0.0]])
    mean = rows.mean(axis=1)
    squares = ((rows - mean[:, None]) ** 2).sum(axis=1, keepdims=True)
    found = kernels.standardise(rows, mean=mean, squares=squares, n_cells=3)
    np.testing.assert_allclose(found, [[-np.sqrt(1.5), 0, np.sqrt(1.5)], [0] * 3, [0] * 3], atol=1e-15)


def test_whitened_rows_are_orthonormal():
    rows = RANDOM.normal(size=(4, 30))
    rows = np.vstack([rows, rows[0] + 1e-4 * rows[1], rows[2] - rows[3]])
    whitened = kernels.mixed(rows, weights=kernels.whitening(rows @ rows.T))
    determined = np.abs(whitened).max(axis=1) == 0
    assert determined.sum() == 2
    np.testing.assert_allclose((whitened @ whitened.T)[~determined][:, ~determined], np.eye(4), atol=1e-12)


def test_blocks_without_cells():
    none = np.empty((2, 0))
    arguments = {"coefficients": np.ones((2, 1)), "covariates": np.empty((1, 0)), "inverse_deviation": np.ones(2)}
    np.testing.assert_array_equal(kernels.dense_products(none, **arguments), np.zeros((2, 2)))
    assert kernels.dense_scores(none, **arguments, loadings=np.ones(2)).shape == (1, 0)


def test_blocks_are_not_changed():
    block = RANDOM.normal(size=(3, 5))
    block.flags.writeable = False
    arguments = {"coefficients": np.ones((3, 1)), "covariates": np.ones((1, 5)), "inverse_deviation": np.ones(3)}
    products = kernels.dense_products(block, **arguments)
    np.testing.assert_allclose(products, (block - 1) @ (block - 1).T)
