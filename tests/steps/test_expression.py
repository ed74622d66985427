"""Expression behind one interface: what remembers the counts, and that both forms answer alike."""

import dask
import numpy as np
import pytest
import scipy.sparse
from comparing import assert_close
from layouts import laid_out

import normalisr_dask as nd
from normalisr_dask.steps.expression import (
    DenseForm,
    LogCpmForm,
    NormalisedForm,
    expression_of,
    gram,
    log_cpm_form,
    normalised_form,
)


@pytest.fixture(scope="module")
def forms(counts: np.ndarray) -> tuple[NormalisedForm, DenseForm, np.ndarray]:
    """The same normalised expression in both forms, and covariates to free it of."""
    random = np.random.default_rng(0)
    matrix = laid_out(counts, "csc_array", ((50, 40), (30, 1, 79)))
    covariates = np.vstack([random.normal(size=(2, counts.shape[1])), np.ones(counts.shape[1])])
    weights, scaling = random.uniform(1, 3, counts.shape[1]), random.uniform(0, 1, counts.shape[0])
    expression = nd.normvar(nd.lcpm(matrix).lcpm, covariates, weights, scaling).dtn
    implicit = expression_of(expression, "dt")
    dense = expression_of(expression.map_blocks(np.asarray, dtype=float, meta=np.empty((0, 0))), "dt")
    return implicit, dense, covariates * weights


class TestWhatRemembersTheCounts:
    def test_log_cpm_of_sparse_counts(self, counts):
        for kind in ("scipy", "csc_array", "csr_array", "csr_matrix"):
            matrix = laid_out(counts, kind, ((90,), (60, 50)))
            assert isinstance(log_cpm_form(nd.lcpm(matrix).lcpm), LogCpmForm)
            assert isinstance(log_cpm_form(nd.lcpm(matrix).mean), LogCpmForm)

    def test_not_that_of_dense_counts_or_draws_or_what_was_not_normalised(self, counts):
        sparse = scipy.sparse.csc_array(counts)
        others = [nd.lcpm(counts), nd.lcpm(sparse, varscale=1, seed=1), nd.lcpm(sparse, normalize=False)]
        assert [log_cpm_form(other.lcpm) for other in others] == [None] * 3

    def test_not_what_is_made_of_it(self, counts):
        log_cpm = nd.lcpm(scipy.sparse.csc_array(counts)).lcpm
        assert [log_cpm_form(other) for other in (log_cpm[1:], log_cpm + 1, log_cpm.rechunk(7))] == [None] * 3

    def test_normalised_expression_of_it(self, forms):
        implicit, dense, _ = forms
        assert isinstance(implicit, NormalisedForm)
        assert isinstance(dense, DenseForm)
        assert implicit.shape == dense.shape
        assert implicit.chunks == dense.chunks

    def test_not_where_normalised_covariates_were_removed(self, counts):
        log_cpm = nd.lcpm(scipy.sparse.csc_array(counts)).lcpm
        arguments = (np.ones((1, counts.shape[1])), np.ones(counts.shape[1]), np.ones(counts.shape[0]))
        assert normalised_form(nd.normvar(log_cpm, *arguments).dtn) is not None
        assert normalised_form(nd.normvar(log_cpm, *arguments, normmean=True).dtn) is None


class TestBothFormsAnswerAlike:
    @pytest.mark.parametrize("sparse", [False, True], ids=["dense rows", "sparse rows"])
    def test_residuals_and_products(self, forms, sparse):
        implicit, dense, covariates = forms
        rows = (np.random.default_rng(1).random((4, covariates.shape[1])) < 0.3).astype(np.int8)
        like = dense.array
        row_array = laid_out(rows, "csc_array" if sparse else "dask", ((4,), like.chunks[1]))
        covariate_array = laid_out(covariates, "dask", ((3,), like.chunks[1]))
        row_fit = np.linalg.lstsq(covariates.T, rows.T)[0].T
        results = []
        for form in (implicit, dense):
            own = form.residuals(covariate_array, gram(covariate_array))
            fit = laid_out(row_fit, "dask", ((4,), (3,)))
            products = form.products(row_array, fit, covariate_array, own)
            results.append(dask.compute(own.fit, own.squares, products))
        for found, expected in zip(*results, strict=True):
            assert_close(found, expected, 1e-10)
        expression = like.compute()
        residual = expression - (covariates.T @ np.linalg.lstsq(covariates.T, expression.T)[0]).T
        for fit, squares, products in results:
            assert_close(fit @ covariates + residual, expression, 1e-11)
            assert_close(squares[:, 0], (residual**2).sum(axis=1), 1e-11)
            assert_close(squares[:, 2], (expression**2).sum(axis=1), 1e-11)
            assert_close(products, rows @ residual.T, 1e-10)

    def test_the_form_is_the_array_that_remembers_it(self, forms):
        implicit, dense, _ = forms
        np.testing.assert_array_equal(implicit.to_dask().compute(), dense.array.compute())


def test_a_known_fit_gives_the_form_back(forms):
    """As a pipeline does that stored it."""
    implicit, dense, _ = forms
    again = NormalisedForm.of_fit(
        implicit.log_cpm, implicit.covariates, implicit.weights, implicit.gene_scaling, implicit.fit
    )
    np.testing.assert_array_equal(again.to_dask().compute(), dense.array.compute())
