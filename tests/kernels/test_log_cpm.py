"""The posterior of log proportions, and random numbers that depend on gene and cell alone."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import digamma, polygamma

from normalisr_dask.kernels.log_cpm import TABLE_SIZE, posterior_mean, posterior_variance, standard_normal

INDEX = np.arange(60)
NOISE = standard_normal(9, INDEX, INDEX)


def test_looked_up_values_are_those_of_the_functions():
    for largest in (5, TABLE_SIZE, TABLE_SIZE + 1, 10**6):
        counts = np.array([[0, 1, 2], [3, largest, 0]])
        np.testing.assert_allclose(posterior_mean(counts, 1e7), digamma(counts + 1.0) - digamma(1e7 + 2), rtol=1e-15)
        expected = polygamma(1, counts + 1.0) - polygamma(1, 1e7 + 2)
        np.testing.assert_allclose(posterior_variance(counts, 1e7), expected, rtol=1e-15)


def test_no_counts_at_all():
    assert posterior_mean(np.zeros((0, 3), dtype=int), 10).shape == (0, 3)
    assert posterior_variance(np.zeros((3, 0)), 10).shape == (3, 0)


@given(st.integers(0, 59), st.integers(1, 60), st.lists(st.integers(0, 59), max_size=5))
def test_any_block_of_the_noise_is_the_same(start, stop, cells):
    genes = np.arange(start, max(start, stop))
    cells = np.array(cells, dtype=np.int64)
    np.testing.assert_array_equal(standard_normal(9, cells, genes), NOISE[np.ix_(genes, cells)])


def test_noise_is_standard_normal_and_never_infinite():
    noise = standard_normal(1, np.arange(300), np.arange(1001))
    assert np.isfinite(noise).all()
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3


def test_seeds_differ_and_cells_far_away_too():
    assert np.abs(standard_normal(10, INDEX, INDEX) - NOISE).min() > 0
    far = standard_normal(9, INDEX + 2**40, INDEX)
    assert np.abs(far - NOISE).min() > 0
