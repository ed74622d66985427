"""Pseudo-inverses with rank, and least squares from products."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalisr_dask.kernels.linear_algebra import (
    coefficients,
    cross_product,
    stacked_coefficients,
    symmetric_pinv,
    times_transposed,
)


def gram(seed: int, size: int, rank: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(size, rank)) @ np.random.default_rng(seed + 1).normal(
        size=(rank, 40)
    )
    return rows @ rows.T


@given(st.integers(0, 2**20), st.integers(1, 6), st.integers(0, 6))
def test_it_is_the_pseudo_inverse_and_counts_the_rank(seed, size, rank):
    matrix = gram(seed, size, min(rank, size))
    inverse, found = symmetric_pinv(matrix)
    assert found == np.linalg.matrix_rank(matrix, tol=1e-8 * max(np.linalg.eigvalsh(matrix).max(), 1e-300))
    expected = np.linalg.pinv(matrix, rcond=1e-8, hermitian=True)
    np.testing.assert_allclose(inverse, expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max(initial=0))


def test_stacks_of_matrices():
    matrices = np.stack([gram(1, 4, rank) for rank in (0, 1, 2, 4)])
    inverses, ranks = symmetric_pinv(matrices)
    np.testing.assert_array_equal(ranks, [0, 1, 2, 4])
    for matrix, inverse in zip(matrices, inverses, strict=True):
        np.testing.assert_array_equal(inverse, symmetric_pinv(matrix)[0])


def test_matrices_without_rows():
    inverse, rank = symmetric_pinv(np.empty((0, 0)))
    assert inverse.shape == (0, 0)
    assert rank == 0
    inverses, ranks = symmetric_pinv(np.empty((0, 2, 2)))
    assert inverses.shape == (0, 2, 2)
    assert ranks.shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    with pytest.raises(ValueError, match="expected finite covariates, weights and scaling factors"):
        symmetric_pinv(np.array([[1.0, value], [value, 1.0]]))


def test_coefficients_are_those_of_least_squares_of_smallest_norm():
    random = np.random.default_rng(0)
    covariates = random.normal(size=(3, 50))
    covariates = np.vstack([covariates, covariates[0] + covariates[1]])
    rows = random.normal(size=(6, 50))
    found = coefficients(cross_product(rows, others=covariates), covariates @ covariates.T)
    np.testing.assert_allclose(found, np.linalg.lstsq(covariates.T, rows.T)[0].T, atol=1e-12)


@given(st.integers(0, 2**20), st.integers(0, 6))
def test_stacked_coefficients_are_those_of_the_pseudo_inverse(seed, size):
    """Of every rank, of diagonals that differ, and next to matrices that cannot be solved."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.uniform(-2, 2, size=size)
    grams = np.stack([gram(seed + rank, size, rank) * np.outer(scale, scale) for rank in range(size + 1)])
    products = np.einsum("nkl,nl->nk", grams, random.normal(size=(size + 1, size)))
    expected = np.einsum("nkl,nl->nk", symmetric_pinv(grams)[0], products)
    found = stacked_coefficients(products, grams)
    fitted, wanted = (np.einsum("nkl,nl->nk", grams, values) for values in (found, expected))
    np.testing.assert_allclose(fitted, wanted, atol=1e-7 * np.abs(products).max(initial=0))
    is_full = symmetric_pinv(grams, 1e-4)[1] == size
    np.testing.assert_allclose(
        found[is_full], expected[is_full], rtol=1e-7, atol=1e-9 * np.abs(expected).max(initial=0)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 0)])
def test_stacked_coefficients_of_values_that_are_not_finite(value, place):
    matrix = np.eye(2)
    matrix[place] = matrix[place[::-1]] = value
    with pytest.raises(ValueError, match="expected finite covariates, weights and scaling factors"):
        stacked_coefficients(np.ones((2, 2)), np.stack([np.eye(2), matrix]))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_bits_of_a_product_do_not_tell_whether_equal_arrays_are_one_in_memory(dtype):
    """BLAS has a function for an array times itself, whose last bits are its own."""
    rows = np.random.default_rng(0).normal(size=(50, 1_000)).astype(dtype)
    product = times_transposed(rows, rows)
    np.testing.assert_array_equal(times_transposed(rows, rows.copy()), product)
    np.testing.assert_array_equal(product, product.T)
    np.testing.assert_array_equal(cross_product(rows, others=rows.copy()), cross_product(rows, others=rows))
    np.testing.assert_allclose(times_transposed(rows, rows[:, ::-1]), rows @ rows[:, ::-1].T)
