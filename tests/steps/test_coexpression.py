"""Co-expression: against partial correlations, at the edges, and with bad input."""

import re

import dask
import dask.array as da
import numpy as np
import pytest
from comparing import assert_close
from scipy import stats

import normalisr_dask as nd

RANDOM = np.random.default_rng(0)
N_CELLS = 60
COVARIATES = np.vstack([RANDOM.normal(size=(2, N_CELLS)), np.ones(N_CELLS)])
EXPRESSION = RANDOM.normal(size=(11, N_CELLS)) + 0.5 * RANDOM.normal(size=N_CELLS) + 2 * COVARIATES[0]


def computed(expression=EXPRESSION, covariates=COVARIATES, **options):
    return dask.compute(nd.coex(da.asarray(expression).rechunk((4, 25)), covariates, **{"bs": 4} | options))[0]


def residuals(expression: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    fit = np.linalg.lstsq(covariates.T, expression.T)[0]
    return expression - (covariates.T @ fit).T


@pytest.mark.parametrize("dimreduce", [0, 3, np.arange(11) % 4], ids=["none", "all alike", "every gene's own"])
def test_every_pair_is_a_partial_correlation(dimreduce):
    """A pair has the smaller number of degrees of freedom of its two genes."""
    found = computed(dimreduce=dimreduce)
    left = residuals(EXPRESSION, COVARIATES)
    lost = np.broadcast_to(dimreduce, 11)
    for i, j in np.ndindex(11, 11):
        if i == j:
            assert found.pvalue[i, i] == found.dot[i, i] == 0
            continue
        degrees = N_CELLS - 1 - 3 - max(lost[i], lost[j])
        correlation = np.corrcoef(left[i], left[j])[0, 1]
        t_statistic = correlation * np.sqrt(degrees / (1 - correlation**2))
        assert found.pvalue[i, j] == pytest.approx(2 * stats.t.sf(abs(t_statistic), degrees), rel=1e-9)
        assert found.dot[i, j] == pytest.approx((left[i] * left[j]).mean(), abs=1e-13)
    np.testing.assert_allclose(found.var, (left**2).mean(axis=1), rtol=1e-12)


@pytest.mark.parametrize("bs", [0, 1, 5, 11, 100])
def test_tiles_of_any_size_are_symmetric_to_the_last_bit(bs):
    found = computed(bs=bs)
    np.testing.assert_array_equal(found.pvalue, found.pvalue.T)
    np.testing.assert_array_equal(found.dot, found.dot.T)
    assert_close(found.pvalue, computed().pvalue, 1e-12)


def test_genes_without_variance_after_covariates():
    expression = EXPRESSION.copy()
    expression[3] = 0
    expression[7] = np.array([1.0, -2.0, 1e4]) @ COVARIATES
    found = computed(expression)
    np.testing.assert_array_equal(found.var[[3, 7]], 0)
    for gene in (3, 7):
        others = np.arange(11) != gene
        np.testing.assert_array_equal(found.pvalue[gene, others], 1)
        np.testing.assert_array_equal(found.dot[gene, others], 0)
        assert found.pvalue[gene, gene] == 0
    unaffected = np.ix_(*[np.setdiff1d(np.arange(11), [3, 7])] * 2)
    np.testing.assert_array_equal(found.pvalue[unaffected], computed().pvalue[unaffected])


def test_a_gene_and_its_copy():
    """A perfect correlation has P = 0, whatever rounding makes of its R²."""
    found = computed(np.vstack([EXPRESSION, 3 * EXPRESSION[2], -EXPRESSION[2]]))
    assert np.isfinite(found.pvalue).all()
    assert found.pvalue[2, 11] < 1e-200
    assert found.pvalue[2, 12] < 1e-200


@pytest.mark.parametrize("exponent", [2, 4, 6, 8])
def test_an_offset_costs_no_more_digits_than_it_must(exponent):
    expected, found = computed(), computed(EXPRESSION + 10.0**exponent)
    for array, other in zip(found, expected, strict=True):
        assert_close(array, other, 1e-6)


def test_collinear_covariates_count_once():
    twice = np.vstack([COVARIATES, COVARIATES[0] - COVARIATES[1]])
    for array, other in zip(computed(covariates=twice), computed(), strict=True):
        assert_close(array, other, 1e-9)


def test_no_covariates_at_all():
    found = computed(covariates=np.empty((0, N_CELLS)))
    np.testing.assert_allclose(found.var, (EXPRESSION**2).mean(axis=1), rtol=1e-12)


def test_chunks_of_one_cell_and_one_gene():
    chunked = da.from_array(EXPRESSION, chunks=(1, 1))
    for array, other in zip(dask.compute(nd.coex(chunked, COVARIATES))[0], computed(), strict=True):
        assert_close(array, other, 1e-10)


def test_too_few_cells_for_the_degrees_of_freedom():
    with pytest.raises(ValueError, match="more cells than covariates of rank 3, rank loss 56 and 1"):
        nd.coex(EXPRESSION, COVARIATES, dimreduce=56).pvalue.compute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((EXPRESSION, COVARIATES[:, 1:]), "expected dc with 60 cells (columns), found 59"),
        ((EXPRESSION[0], COVARIATES), "expected dt with 2 dimensions (rows, cells), found 1"),
        ((EXPRESSION, COVARIATES[0]), "expected dc with 2 dimensions (rows, cells), found 1"),
    ],
)
def test_wrong_shapes(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nd.coex(*arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(value):
    expression = EXPRESSION.copy()
    expression[3, 4] = value
    with pytest.raises(ValueError, match="expected finite values in dt"):
        nd.coex(expression, COVARIATES).pvalue.compute()
