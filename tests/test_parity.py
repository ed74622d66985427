"""Every step, and the whole chain, gives what normalisr 1.0.0 gives: real and simulated counts, both routes.

Route "dense" goes over dense blocks; route "implicit" starts from sparse blocks, so that log-CPM and normalised
expression remember the counts and the later steps work on these.
"""

import dask
import dask.array as da
import numpy as np
import oracles
import pytest
import scipy.sparse
from comparing import assert_close, assert_same_p_values
from layouts import laid_out
from oracles import PublishedChain

import normalisr_dask as nd
from normalisr_dask.steps.expression import LogCpmForm, log_cpm_form, normalised_form, with_form

TOLERANCE = 1e-8


@pytest.fixture(scope="module", params=["simulated", "pbmc3k", pytest.param("whole pbmc3k", marks=pytest.mark.slow)])
def chain(request: pytest.FixtureRequest) -> PublishedChain:
    name = {"simulated": "simulated_chain", "pbmc3k": "pbmc3k_chain", "whole pbmc3k": "whole_pbmc3k_chain"}
    return request.getfixturevalue(name[request.param])


@pytest.fixture(params=["dense", "implicit"])
def route(request: pytest.FixtureRequest) -> str:
    return request.param


def blocks(counts: np.ndarray, route: str) -> da.Array:
    """Return counts in two blocks of genes and three of cells, dense or sparse."""
    n_genes, n_cells = counts.shape
    chunks = (
        (n_genes // 3, n_genes - n_genes // 3),
        (n_cells // 2, n_cells // 5, n_cells - n_cells // 2 - n_cells // 5),
    )
    return laid_out(counts, {"dense": "dask", "implicit": "csc_array"}[route], chunks)


def log_cpm(chain: PublishedChain, route: str):
    """Return normalisr's log-CPM for the dense route; ours, which remembers the counts, for the other."""
    if route == "dense":
        return chain.log_cpm
    result = nd.lcpm(blocks(chain.counts, route)).lcpm
    assert log_cpm_form(result) is not None
    return result


def some_cells(expression, cells: np.ndarray):
    """Drop cells from log-CPM, as the pipeline does: computed once, from all cells."""
    form = log_cpm_form(expression)
    if form is None:
        return expression[:, cells]
    return with_form(LogCpmForm(form.counts[:, np.flatnonzero(cells)], form.cell_offset[cells]))


def normalised(chain: PublishedChain, route: str):
    """Return normalised expression and covariates from normalisr's own input to normvar."""
    if route == "dense":
        return chain.normalised
    cells = chain.inliers
    expression = some_cells(log_cpm(chain, route), cells)
    result = nd.normvar(expression, chain.covariates[:, cells], chain.weights[cells], chain.scaling)
    assert normalised_form(result.dtn) is not None
    return result


class TestEachStepAlone:
    def test_qc_reads(self, chain, route):
        found = nd.qc_reads(blocks(chain.reads, route), *chain.bounds)
        for positions, expected in zip(found, chain.kept, strict=True):
            np.testing.assert_array_equal(positions, expected)

    def test_lcpm(self, chain, route):
        found = nd.lcpm(blocks(chain.counts, route))
        assert_close(found.lcpm, chain.log_cpm, TOLERANCE)
        assert_close(found.mean, chain.log_cpm, TOLERANCE)
        assert_close(found.cov, chain.summary, TOLERANCE)

    def test_posterior_variance_is_given_also_without_resampling(self, chain, route):
        expected = oracles.lcpm(chain.counts, varscale=1, lowmem=False)[2]
        assert_close(nd.lcpm(blocks(chain.counts, route)).var, expected, TOLERANCE)

    @pytest.mark.parametrize("ntot", [None, 10**9])
    def test_lcpm_as_it_is_without_normalisation(self, chain, route, ntot):
        expected, mean, _, _ = oracles.lcpm(chain.counts, normalize=False, ntot=ntot, lowmem=False)
        found = nd.lcpm(blocks(chain.counts, route), normalize=False, ntot=ntot, nocov=True)
        assert_close(found.lcpm, expected, TOLERANCE)
        assert_close(found.mean, mean, TOLERANCE)
        assert found.cov is None

    @pytest.mark.parametrize("varname", ["nt0mean", "lognt0mean", "log1-nt0mean", "logtpropmean", "logtmeanprop"])
    def test_scaling_factor(self, chain, route, varname):
        counts = chain.counts[(chain.counts == 0).any(axis=1)]  # log of the share of zeros must be finite
        for bounds in ((0, "max"), ("min", "max"), ("max", 0.25), (-1.5, "min")):
            expected = oracles.scaling_factor(counts, varname, *bounds)
            assert_close(nd.scaling_factor(blocks(counts, route), varname, *bounds), expected, TOLERANCE)

    @pytest.mark.parametrize("c", [True, False])
    def test_normcov(self, chain, c):
        covariates = np.vstack([chain.summary, chain.given_groupings[:2, chain.kept[1]]])
        assert_close(nd.normcov(covariates, c), oracles.normcov(covariates, c), TOLERANCE)

    @pytest.mark.parametrize("stepmax", [1, 3])
    def test_compute_var(self, chain, route, stepmax):
        expected = oracles.compute_var(chain.log_cpm, chain.covariates, stepmax)
        assert_close(nd.compute_var(log_cpm(chain, route), chain.covariates, stepmax), expected, TOLERANCE)

    def test_qc_outlier(self, chain):
        np.testing.assert_array_equal(nd.qc_outlier(chain.weights), chain.inliers)

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"cat": 0},
            {"cat": 2},
            {"keepvar": False},
            {"normmean": True},
            {"cat": 2, "normmean": True, "keepvar": False},
        ],
        ids=str,
    )
    def test_normvar(self, chain, route, options):
        categories = chain.given_groupings[:2, chain.kept[1]]
        covariates = np.vstack([chain.covariates, categories[:1]])
        arguments = (covariates, chain.weights, chain.scaling, categories)
        expected = oracles.normvar(chain.log_cpm, *arguments, **options)
        found = nd.normvar(log_cpm(chain, route), *arguments, **options)
        for name, array in zip(("dtn", "dcn", "dextran"), expected, strict=True):
            assert_close(getattr(found, name), array, TOLERANCE)

    def test_de(self, chain, route):
        expression, covariates = normalised(chain, route)
        found = nd.de(chain.groupings, expression, covariates, lowmem=False)
        assert_same_differential_expression(found, chain.differential)

    def test_de_with_sparse_groupings(self, chain, route):
        expression, covariates = normalised(chain, route)
        found = nd.de(scipy.sparse.csr_array(chain.groupings.astype(np.int8)), expression, covariates, lowmem=False)
        assert_same_differential_expression(found, chain.differential)

    def test_de_of_groupings_with_any_numbers_and_lost_rank(self, chain, route):
        expression, covariates = normalised(chain, route)
        groupings = np.random.default_rng(4).normal(5, 3, size=(3, chain.groupings.shape[1]))
        expected = oracles.de(groupings, *chain.normalised, dimreduce=6)
        assert_same_differential_expression(nd.de(groupings, expression, covariates, dimreduce=6), expected)

    def test_de_with_collinear_covariates(self, chain, route):
        expression, covariates = normalised(chain, route)
        covariates = np.vstack([*dask.compute(covariates), chain.normalised[1][:1] - 2 * chain.normalised[1][1:2]])
        expected = oracles.de(chain.groupings, chain.normalised[0], covariates)
        assert_same_differential_expression(nd.de(chain.groupings, expression, covariates), expected)

    @pytest.mark.parametrize(
        "options", [{"single": 1}, {"single": 4}, {"single": 4, "mpc": 3, "method": "scipy"}], ids=str
    )
    def test_de_beside_other_groupings(self, chain, route, options):
        expression, covariates = normalised(chain, route)
        random = np.random.default_rng(7)
        n_cells = chain.groupings.shape[1]
        groupings = np.vstack([chain.groupings[:3], random.random((3, n_cells)) < 0.1]).astype(np.float64)
        expected = oracles.de(groupings, *chain.normalised, lowmem=False, **options)
        found = nd.de(scipy.sparse.csr_array(groupings), expression, covariates, lowmem=False, **options)
        assert_same_differential_expression(found, expected)

    def test_coex(self, chain, route):
        assert_same_coexpression(chain, *normalised(chain, route))

    def test_coex_with_lost_rank_of_every_gene(self, chain, route):
        """A pair loses the larger of its two; normalisr 1.0.0 crashes here, and is asked twice."""
        expression, covariates = normalised(chain, route)
        genes = slice(None, None, max(1, chain.counts.shape[0] // 60))
        n_genes = len(range(*genes.indices(chain.counts.shape[0])))
        lost = np.where(np.arange(n_genes) % 3 == 0, 7, 2)
        expected = [oracles.coex(chain.normalised[0][genes], chain.normalised[1], dimreduce=loss)[0] for loss in (2, 7)]
        found = nd.coex(expression[genes], covariates, dimreduce=lost).pvalue
        assert_same_p_values(found, np.where(np.maximum.outer(lost, lost) == 7, expected[1], expected[0]))

    def test_coex_with_lost_rank(self, chain, route):
        assert_same_coexpression(chain, *normalised(chain, route), dimreduce=5)


class TestGenePairsOfCounts:
    """All genes of the chain, so that expression still remembers the counts and tasks read these block by block."""

    def test_coex(self, chain):
        if chain.counts.shape[0] > 2000:
            pytest.skip("of all genes it is the business of a slow test")
        expression, covariates = normalised(chain, "implicit")
        expected = oracles.coex(*chain.normalised)
        found = dask.compute(nd.coex(expression, covariates, bs=90))[0]
        assert_same_p_values(found.pvalue, expected[0])
        assert_close(found.dot, expected[1], TOLERANCE)
        assert_close(found.var, expected[2], TOLERANCE)

    def test_coex_and_its_network(self, chain):
        if chain.counts.shape[0] > 2000:
            pytest.skip("of all genes it is the business of a slow test")
        expression, covariates = normalised(chain, "implicit")
        expected = oracles.binnet(oracles.coex(*chain.normalised)[0], 0.1)
        panels = dask.compute(*nd.network(expression, covariates, 0.1, bs=90).edges)
        found = np.zeros_like(expected)
        for panel in panels:
            found[panel.row, panel.column] = True
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(nd.binnet(nd.coex(expression, covariates).pvalue, 0.1), expected)


def test_the_chain(chain, route):
    reads = blocks(chain.reads, route)
    genes, cells = nd.qc_reads(reads, *chain.bounds)
    np.testing.assert_array_equal(genes, chain.kept[0])
    np.testing.assert_array_equal(cells, chain.kept[1])
    counts = blocks(chain.reads[np.ix_(genes, cells)], route)
    expression = nd.lcpm(counts)
    covariates = nd.normcov(expression.cov)
    weights = nd.compute_var(expression.lcpm, covariates)
    inliers = nd.qc_outlier(weights)
    np.testing.assert_array_equal(inliers, chain.inliers)
    scaling = nd.scaling_factor(counts)
    groupings = chain.given_groupings[:, cells][:, inliers]
    result = nd.normvar(
        some_cells(expression.lcpm, inliers), covariates[:, inliers], weights[inliers], scaling, dextra=groupings
    )
    found = nd.de(groupings, result.dtn, result.dcn, lowmem=False)
    assert_close(scaling, chain.scaling, TOLERANCE)
    assert_close(covariates, chain.covariates, TOLERANCE)
    assert_close(weights, chain.weights, TOLERANCE)
    assert_close(result.dtn, chain.normalised[0], TOLERANCE)
    assert_close(result.dcn, chain.normalised[1], TOLERANCE)
    assert_close(result.dextran, groupings * chain.weights[chain.inliers], TOLERANCE)
    assert_same_differential_expression(found, chain.differential)
    assert_same_coexpression(chain, result.dtn, result.dcn)


def assert_same_differential_expression(found, expected) -> None:
    found = dask.compute(found)[0]
    pvalue, gamma, alpha, varg, vart = expected
    assert_same_p_values(found.pvalue, pvalue)
    assert_close(found.gamma, gamma, TOLERANCE)
    assert_close(found.varg, varg, TOLERANCE)
    assert_close(found.vart, vart, TOLERANCE)
    assert (found.alpha is None) == (alpha is None)
    if alpha is not None:
        assert_close(found.alpha, alpha, TOLERANCE)
    # What normalisr does not give: the same P as a logarithm, which never underflows.
    assert np.isfinite(found.log10_pvalue).all()
    normal = found.pvalue > np.finfo(float).tiny
    np.testing.assert_allclose(found.log10_pvalue[normal], np.log10(found.pvalue[normal]), rtol=1e-9, atol=1e-12)


def assert_same_coexpression(chain: PublishedChain, expression, covariates, **options) -> None:
    """Compare co-expression of some hundred genes: of all genes it is the business of a slow test."""
    genes = slice(None, None, max(1, chain.counts.shape[0] // 200))
    expected = oracles.coex(chain.normalised[0][genes], chain.normalised[1], **options)
    found = dask.compute(nd.coex(expression[genes], covariates, bs=90, **options))[0]
    assert_same_p_values(found.pvalue, expected[0])
    assert_close(found.dot, expected[1], TOLERANCE)
    assert_close(found.var, expected[2], TOLERANCE)


@pytest.mark.slow
def test_coex_of_all_genes(whole_pbmc3k_chain: PublishedChain):
    expected = oracles.coex(*whole_pbmc3k_chain.normalised)
    found = dask.compute(nd.coex(*whole_pbmc3k_chain.normalised))[0]
    assert_same_p_values(found.pvalue, expected[0])
    assert_close(found.dot, expected[1], TOLERANCE)
    assert_close(found.var, expected[2], TOLERANCE)
