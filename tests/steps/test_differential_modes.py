"""Groupings tested alone (single=1) and jointly (single=4): against least squares, at the edges, and with bad input."""

import warnings
from typing import Any, NamedTuple

import dask
import numpy as np
import pytest
import scipy.sparse
from comparing import assert_close
from scipy import stats

import normalisr_dask as nd
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.results import DifferentialExpression

N_GROUPINGS = 4


class Data(NamedTuple):
    expression: Any
    covariates: np.ndarray
    dense: np.ndarray


@pytest.fixture(params=["dense", "implicit"])
def data(request: pytest.FixtureRequest, counts: np.ndarray) -> Data:
    reads = scipy.sparse.csc_array(counts)
    log_cpm = nd.lcpm(reads)
    covariates = nd.normcov(log_cpm.cov[:2])
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    expression, covariates = nd.normvar(log_cpm.lcpm, covariates, weights, nd.scaling_factor(reads))
    dense, covariates = dask.compute(expression, covariates)
    return Data(dense if request.param == "dense" else expression, covariates, dense)


@pytest.fixture(params=["dense groupings", "sparse groupings"])
def as_given(request: pytest.FixtureRequest):
    return np.asarray if request.param == "dense groupings" else scipy.sparse.csr_array


@pytest.fixture
def groupings(counts: np.ndarray) -> np.ndarray:
    """Low numbers of groupings a cell: none, one, and several."""
    return (np.random.default_rng(8).random((N_GROUPINGS, counts.shape[1])) < 0.2).astype(np.float64)


def results(groupings: Any, data: Data, **options: Any) -> DifferentialExpression:
    return dask.compute(nd.de(groupings, data.expression, data.covariates, lowmem=False, **options))[0]


def assert_regression(
    found: DifferentialExpression, row: int, gene: int, design: np.ndarray, values: np.ndarray
) -> None:
    """Compare a test with the first coefficient of least squares on a design (regressors, cells) of full rank."""
    inverse = np.linalg.inv(design @ design.T)
    solution = inverse @ design @ values
    residual = values - solution @ design
    degrees = values.size - len(design)
    error = np.sqrt(residual @ residual / degrees * inverse[0, 0])
    assert found.gamma[row, gene] == pytest.approx(solution[0], rel=1e-8, abs=1e-11)
    assert found.se[row, gene] == pytest.approx(error, rel=1e-8)
    assert found.dof[row, gene] == degrees
    assert found.pvalue[row, gene] == pytest.approx(2 * stats.t.sf(abs(solution[0] / error), degrees), rel=1e-7)
    assert found.varg[row] == pytest.approx(1 / inverse[0, 0] / values.size, rel=1e-8)
    n_covariates = found.alpha.shape[2]
    np.testing.assert_allclose(found.alpha[row, gene], solution[len(solution) - n_covariates :], rtol=1e-7, atol=1e-9)


def assert_nothing(found: DifferentialExpression, row: int) -> None:
    np.testing.assert_array_equal(found.pvalue[row], 1)
    np.testing.assert_array_equal(found.log10_pvalue[row], 0)
    for name in ("gamma", "se", "varg", "alpha"):
        np.testing.assert_array_equal(getattr(found, name)[row], 0)
    for name, values in vars(found).items():
        assert np.isfinite(values).all(), name


class TestAlone:
    def test_every_test_is_a_regression_on_its_own_cells(self, data, groupings, as_given):
        found = results(as_given(groupings), data, single=1)
        n_others = groupings.sum(axis=0) - groupings
        for row in range(N_GROUPINGS):
            cells = n_others[row] == 0
            design = np.vstack([groupings[row, cells], data.covariates[:, cells]])
            for gene in range(0, len(data.dense), 7):
                assert_regression(found, row, gene, design, data.dense[gene, cells])

    @pytest.mark.parametrize("bs", [1, 3])
    def test_blocks_of_groupings_change_nothing(self, data, groupings, bs):
        expected, found = results(groupings, data, single=1), results(groupings, data, single=1, bs=bs)
        for name, values in vars(expected).items():
            assert_close(getattr(found, name), values, 1e-12)

    def test_lost_rank_costs_degrees_of_freedom(self, data, groupings):
        lost = np.arange(len(data.dense)) % 5
        expected, found = results(groupings, data, single=1), results(groupings, data, single=1, dimreduce=lost)
        np.testing.assert_array_equal(found.dof, expected.dof - lost)
        assert_close(found.gamma, expected.gamma, 1e-14)

    def test_without_covariates(self, data, groupings):
        data = data._replace(covariates=data.covariates[:0])
        found = results(groupings, data, single=1)
        cells = (groupings.sum(axis=0) - groupings)[2] == 0
        assert_regression(found, 2, 5, groupings[2:3, cells], data.dense[5, cells])

    def test_a_grouping_without_cells_of_its_own(self, data, groupings, as_given):
        groupings[1] = groupings[0]
        with pytest.warns(
            UntestableGroupingWarning, match="2 of 4 groupings cannot be tested, the first at position 0"
        ):
            found = results(as_given(groupings), data, single=1)
        assert_nothing(found, 0)
        assert_nothing(found, 1)
        assert found.varg[2] > 0

    def test_no_controls(self, data, groupings):
        groupings[0] = groupings[1:].sum(axis=0) == 0
        with pytest.warns(UntestableGroupingWarning, match="there are no cells without a grouping"):
            found = results(groupings, data, single=1)
        for row in range(N_GROUPINGS):
            assert_nothing(found, row)

    def test_too_few_cells_for_the_covariates(self, data, groupings):
        groupings[:] = 0
        groupings[1, 0] = 1
        groupings[[0, 2], 4:] = 1  # in two groupings, so in no test; cells 1 to 3 are in none
        with pytest.warns(UntestableGroupingWarning, match="too few cells"):
            found = results(groupings, data, single=1)
        assert_nothing(found, 1)
        assert (found.dof[1] == 0).all()

    def test_a_grouping_of_one_cell(self, data, groupings):
        groupings[3] = 0
        groupings[3, np.flatnonzero(groupings[:3].sum(axis=0) == 0)[0]] = 1
        found = results(groupings, data, single=1)
        cells = groupings[:3].sum(axis=0) == 0
        design = np.vstack([groupings[3, cells], data.covariates[:, cells]])
        assert_regression(found, 3, 11, design, data.dense[11, cells])

    def test_other_values_than_0_and_1(self, data, groupings, as_given):
        groupings[2, 5] = 0.5
        with pytest.raises(ValueError, match=r"expected 0 and 1 in dg for single=1, found 0\.5 in grouping 2"):
            results(as_given(groupings), data, single=1)


class TestJointly:
    def test_every_test_is_a_regression_with_all_others(self, data, groupings, as_given):
        found = results(as_given(groupings), data, single=4)
        for row in range(N_GROUPINGS):
            others = np.delete(groupings, row, axis=0)
            design = np.vstack([groupings[row], others, data.covariates])
            for gene in range(0, len(data.dense), 7):
                assert_regression(found, row, gene, design, data.dense[gene])

    def test_groupings_of_any_numbers(self, data, as_given):
        groupings = np.random.default_rng(6).normal(-3, 2, size=(N_GROUPINGS, data.dense.shape[1]))
        found = results(as_given(groupings), data, single=4)
        design = np.vstack([groupings[1], np.delete(groupings, 1, axis=0), data.covariates])
        assert_regression(found, 1, 7, design, data.dense[7])

    def test_one_grouping_is_as_if_others_were_ignored(self, data, groupings):
        expected, found = results(groupings[:1], data), results(groupings[:1], data, single=4)
        for name, values in vars(expected).items():
            assert_close(getattr(found, name), values, 1e-10)

    @pytest.mark.parametrize("bs", [1, 3])
    def test_blocks_of_groupings_change_nothing(self, data, groupings, bs):
        expected, found = results(groupings, data, single=4), results(groupings, data, single=4, bs=bs)
        for name, values in vars(expected).items():
            assert_close(getattr(found, name), values, 1e-12)

    def test_groupings_that_others_determine(self, data, groupings, as_given):
        """Two identical groupings cannot be told apart, nor two and their sum; the others are tested all the same."""
        more = np.vstack([groupings, groupings[0], groupings[1] + groupings[2]])
        with pytest.warns(
            UntestableGroupingWarning, match="5 of 6 groupings cannot be tested, the first at position 0"
        ):
            found = results(as_given(more), data, single=4)
        for row in (0, 1, 2, 4, 5):
            assert_nothing(found, row)
        expected = results(groupings, data, single=4)
        for name, values in vars(found).items():
            assert_close(values[3], getattr(expected, name)[3], 1e-9)

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_one_value_in_all_cells(self, data, groupings, value):
        more = np.vstack([np.full(groupings.shape[1], value), groupings])
        with pytest.warns(
            UntestableGroupingWarning, match="1 of 5 groupings cannot be tested, the first at position 0"
        ):
            found = results(more, data, single=4)
        assert_nothing(found, 0)
        expected = results(groupings, data, single=4)
        for name, values in vars(found).items():
            assert_close(values[1:], getattr(expected, name), 1e-9)

    def test_more_groupings_than_cells_leave_no_degree_of_freedom(self, data):
        n_cells = data.dense.shape[1]
        groupings = np.random.default_rng(1).normal(size=(n_cells + 1, n_cells))
        with (
            warnings.catch_warnings(action="ignore", category=UntestableGroupingWarning),
            pytest.raises(ValueError, match=f"found {n_cells} cells; take more cells or fewer covariates"),
        ):
            results(groupings, data, single=4)

    def test_all_principal_components_are_all_covariates(self, data, groupings):
        expected = results(groupings, data, single=4)
        found = results(groupings, data, single=4, mpc=N_GROUPINGS + len(data.covariates))
        for name, values in vars(expected).items():
            assert_close(getattr(found, name), values, 1e-9)

    def test_few_principal_components_are_those_of_the_other_rows(self, data, groupings):
        found = results(groupings, data, single=4, mpc=2)
        others = np.vstack([np.delete(groupings, 1, axis=0), data.covariates])
        components = np.linalg.svd(others, full_matrices=False)[2][:2]
        design = np.vstack([groupings[1], components])
        inverse = np.linalg.inv(design @ design.T)
        np.testing.assert_allclose(found.gamma[1], (inverse @ design @ data.dense.T)[0], rtol=1e-8, atol=1e-11)
        assert (found.dof[1] == data.dense.shape[1] - 3).all()

    @pytest.mark.parametrize(
        ("option", "message"),
        [
            ({"single": 5}, "single"),
            ({"single": 4, "method": "magic"}, "method"),
            ({"single": 4, "mpc": -1}, "mpc"),
            ({"single": 4, "tol": 0}, "tol"),
        ],
    )
    def test_unknown_options(self, data, groupings, option, message):
        with pytest.raises(ValueError, match=message):
            nd.de(groupings, data.expression, data.covariates, **option)

    def test_a_method_that_normalisr_lacks_too(self, data, groupings):
        with pytest.raises(NotImplementedError, match="scipys"):
            nd.de(groupings, data.expression, data.covariates, single=4, method="scipys")
