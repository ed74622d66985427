"""Cell scales, and the factor that gives a gene its variance back."""

import numpy as np

from normalisr_dask.kernels import normalisation

N_CELLS = 40


def test_the_scale_is_fitted_with_an_intercept_whether_covariates_hold_one_or_not():
    random = np.random.default_rng(0)
    covariates = random.normal(size=(2, N_CELLS))
    squares = np.exp(0.6 * covariates[0] - 0.2 * covariates[1] + 1)[None] * 50
    with_constant = np.vstack([covariates, np.ones(N_CELLS)])
    scale = random.uniform(1, 2, N_CELLS)
    expected = np.exp(0.3 * covariates[0] - 0.1 * covariates[1]) * scale
    for given in (covariates, with_constant):
        found = normalisation.fit_cell_scale(squares, given, scale, n_genes=50)
        np.testing.assert_allclose(found, expected / expected.min(), rtol=1e-12)


def test_weights_are_inverse_and_one_at_least():
    np.testing.assert_allclose(normalisation.weights_from_scale(np.array([1.0, 2.0, 4.0])), [4, 2, 1])


def test_genes_without_residual_variance_have_none_and_no_factor():
    moments = np.array([[0.0, 40.0, 400.0], [0.0, 1e-28, 40.0], [0.0, 0.0, 0.0]])
    found = normalisation.mean_and_deviation(moments, n_cells=N_CELLS)
    np.testing.assert_array_equal(found, [[0, 1], [0, 0], [0, 0]])
    squares = np.array([[40.0, 10.0, 400.0], [40.0, 1e-28, 40.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(normalisation.variance_factor(squares, np.ones(3)), [2, 0, 0])
    np.testing.assert_allclose(normalisation.variance_factor(squares, np.zeros(3)), [1, 0, 0])


def test_pairs_of_covariates_are_the_upper_triangle():
    first, second = normalisation.covariate_pairs(3)
    np.testing.assert_array_equal(first, [0, 0, 0, 1, 1, 2])
    np.testing.assert_array_equal(second, [0, 1, 2, 1, 2, 2])


def test_panels_cover_all_genes_of_blocks_of_any_width():
    """Wide blocks are worked on a few genes at a time; the result must not show it."""
    random = np.random.default_rng(1)
    n_cells = normalisation.PANEL_ENTRIES // 3
    expression = random.normal(size=(7, n_cells))
    arguments = {
        "coefficients": random.normal(size=(7, 1)),
        "covariates": np.ones((1, n_cells)),
        "cell_scale": np.ones(n_cells),
    }
    found = normalisation.residual_moments(expression, **arguments)
    residual = expression - arguments["coefficients"]
    expected = np.stack([residual.sum(axis=1), (residual**2).sum(axis=1), (expression**2).sum(axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
