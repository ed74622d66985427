"""Networks: against normalisr and SciPy, row blocks of any height, and without a matrix as with one."""

import dask
import dask.array as da
import numpy as np
import oracles
import pytest
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from layouts import EXPENSIVE, laid_out, partitions
from scipy.stats import false_discovery_control

import normalisr_dask as nd
from normalisr_dask.graph.tile_plan import TilePlan
from normalisr_dask.steps import network as steps
from normalisr_dask.testing import raise_if_computes

RANDOM = np.random.default_rng(3)
N_GENES, N_CELLS = 37, 60
COVARIATES = np.vstack([RANDOM.normal(size=N_CELLS), np.ones(N_CELLS)])
MODULES = RANDOM.normal(size=(4, N_CELLS))[RANDOM.integers(0, 4, N_GENES)]
EXPRESSION = RANDOM.normal(size=(N_GENES, N_CELLS)) + RANDOM.uniform(0, 1, (N_GENES, 1)) * MODULES


@pytest.fixture(scope="module")
def p_values() -> np.ndarray:
    return nd.coex(EXPRESSION, COVARIATES).pvalue.compute()


def test_it_is_normalisrs(p_values):
    for qcut in (0.01, 0.05, 0.5, 0.999):
        found = nd.binnet(p_values, qcut).compute()
        assert found.dtype == bool
        np.testing.assert_array_equal(found, oracles.binnet(p_values, qcut))
    assert not (found == found.T).all() or found.sum() == N_GENES * (N_GENES - 1)


def test_the_network_is_not_symmetric(p_values):
    found = nd.binnet(p_values, 0.05).compute()
    assert (found != found.T).any()
    assert not np.diag(found).any()


def test_ties_share_their_fate():
    p_values = np.full((6, 6), 0.04)
    np.fill_diagonal(p_values, 0)
    expected = ~np.eye(6, dtype=bool)
    np.testing.assert_array_equal(nd.binnet(p_values, 0.05), expected)
    np.testing.assert_array_equal(nd.binnet(p_values, 0.05), oracles.binnet(p_values, 0.05))


def test_a_row_may_be_empty():
    p_values = np.array([[0, 1e-9, 1], [1e-9, 0, 1], [1, 1, 0]])
    found = nd.binnet(p_values, 0.1).compute()
    np.testing.assert_array_equal(found, [[False, True, False], [True, False, False], [False] * 3])
    np.testing.assert_array_equal(nd.degree(found), [1, 1, 0])


@EXPENSIVE
@given(partitions(N_GENES), partitions(N_GENES), st.integers(1, 60), st.sampled_from(["dask", "zarr", "numpy"]))
def test_blocks_of_any_height(p_values, row_chunks, column_chunks, height, kind):
    net = laid_out(p_values, kind, (row_chunks, column_chunks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "BLOCK_VALUES", height * N_GENES)
        found = nd.binnet(net, 0.1)
    np.testing.assert_array_equal(found, oracles.binnet(p_values, 0.1))


def test_no_edge_at_all_is_told_when_it_is_computed():
    network = nd.binnet(np.ones((4, 4)), 0.05)
    with pytest.raises(RuntimeError, match=r"expected some gene pairs with Q <= 0.05, found none; take a larger qcut"):
        network.compute()


@pytest.mark.parametrize("qcut", [0, 1, -0.5, 2, np.nan])
def test_qcut_is_between_0_and_1(p_values, qcut):
    with pytest.raises(ValueError, match="expected qcut between 0 and 1"):
        nd.binnet(p_values, qcut)
    with pytest.raises(ValueError, match="expected qcut between 0 and 1"):
        nd.network(EXPRESSION, COVARIATES, qcut)


@pytest.mark.parametrize("shape", [(3, 4), (1, 1), (0, 0)])
def test_the_matrix_is_square_and_has_pairs(shape):
    with pytest.raises(ValueError, match="expected net with as many rows as columns, two or more"):
        nd.binnet(np.ones(shape), 0.05)


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.5])
def test_values_that_are_no_p_values(p_values, value):
    bad = p_values.copy()
    bad[3, 5] = value
    with pytest.raises(ValueError, match=rf"expected P-values in \[0, 1\], found {value:g}"):
        nd.binnet(bad, 0.05).compute()


def edges_of(found) -> dict[str, np.ndarray]:
    panels = dask.compute(*found.edges)
    return {
        name: np.concatenate([getattr(panel, name) for panel in panels]) if panels else np.empty(0)
        for name in ("row", "column", "r", "p_value", "q_value")
    }


class TestWithoutAMatrix:
    @pytest.mark.parametrize("bs", [0, 9, 36])
    @pytest.mark.parametrize("dimreduce", [0, np.arange(N_GENES) % 5], ids=["none", "every gene's own"])
    @pytest.mark.parametrize("qcut", [1e-4, 0.05, 0.9])
    def test_it_is_binnets(self, bs, dimreduce, qcut):
        tested = dask.compute(nd.coex(EXPRESSION, COVARIATES, bs, dimreduce=dimreduce))[0]
        expected = nd.binnet(tested.pvalue, qcut).compute()
        network = nd.network(EXPRESSION, COVARIATES, qcut, bs, dimreduce=dimreduce)
        found = edges_of(network)
        rows, columns = np.nonzero(expected)
        np.testing.assert_array_equal(found["row"], rows)
        np.testing.assert_array_equal(found["column"], columns)
        np.testing.assert_array_equal(found["p_value"], tested.pvalue[rows, columns])
        scale = np.sqrt(tested.var[rows] * tested.var[columns])
        np.testing.assert_allclose(found["r"], tested.dot[rows, columns] / scale, rtol=1e-12)
        np.testing.assert_array_equal(network.degree, expected.sum(axis=1))

    def test_q_values_are_those_of_the_whole_row(self, p_values):
        found = edges_of(nd.network(EXPRESSION, COVARIATES, 0.2))
        for row in range(N_GENES):
            others = np.arange(N_GENES) != row
            q_values = np.full(N_GENES, np.nan)
            q_values[others] = false_discovery_control(p_values[row, others])
            mine = found["row"] == row
            np.testing.assert_allclose(found["q_value"][mine], q_values[found["column"][mine]], rtol=1e-12)
            assert mine.sum() == (q_values[others] <= 0.2).sum()

    def test_from_counts_by_any_plan(self, counts):
        log_cpm = nd.lcpm(laid_out(counts, "csc_array", ((90,), (25,) * 4 + (10,)))).lcpm
        covariates = np.ones((1, 110))
        expression = nd.normvar(log_cpm, covariates, np.ones(110), np.ones(90)).dtn
        expected = nd.binnet(nd.coex(expression, covariates, bs=20).pvalue, 0.3).compute()
        results = [
            edges_of(nd.network(expression, covariates, 0.3, plan=TilePlan(90, 110, 20, *shares, 0, 0.0)))
            for shares in ((1, 1), (2, 3), (5, 5))
        ]
        for result in results:
            np.testing.assert_array_equal([result["row"], result["column"]], np.nonzero(expected))
            for name, values in result.items():
                np.testing.assert_array_equal(values, results[0][name])

    def test_on_a_cluster(self, client: Client):
        """Workers see the same bits."""
        expected = edges_of(nd.network(EXPRESSION, COVARIATES, 0.1, 10))
        with dask.config.set(scheduler=client):
            found = edges_of(nd.network(EXPRESSION, COVARIATES, 0.1, 10))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values)

    def test_genes_without_variance_have_no_edges(self):
        expression = EXPRESSION.copy()
        expression[[3, 8]] = 1.0
        network = nd.network(expression, COVARIATES, 0.5)
        assert (network.degree.compute()[[3, 8]] == 0).all()
        assert not np.isin(edges_of(network)["column"], [3, 8]).any()

    def test_one_gene_has_no_pairs(self):
        network = nd.network(EXPRESSION[:1], COVARIATES, 0.5)
        assert edges_of(network)["row"].size == 0
        np.testing.assert_array_equal(network.degree, [0])

    def test_two_genes(self):
        network = nd.network(EXPRESSION[:1] + [[0.0], [1.0]] * RANDOM.normal(size=N_CELLS), COVARIATES, 0.5)
        np.testing.assert_array_equal(network.degree, [1, 1])

    def test_no_edges_are_no_error(self):
        network = nd.network(RANDOM.normal(size=(5, N_CELLS)), COVARIATES, 1e-9)
        assert edges_of(network)["row"].size == 0
        np.testing.assert_array_equal(network.degree, np.zeros(5))


def test_building_networks_computes_nothing():
    lazy = da.from_array(EXPRESSION, chunks=(10, 20))
    with raise_if_computes():
        nd.degree(nd.binnet(nd.coex(lazy, COVARIATES).pvalue, 0.1))
        nd.network(lazy, COVARIATES, 0.1)
        nd.network(da.ones((100, N_CELLS)), COVARIATES, 0.1, 2)  # many tiles, and no warning of Dask's


def test_degree_of_a_lazy_network(p_values):
    network = nd.binnet(da.from_array(p_values, chunks=7), 0.1)
    degree = nd.degree(network)
    assert degree.dtype == np.int64
    np.testing.assert_array_equal(degree, oracles.binnet(p_values, 0.1).sum(axis=1))
