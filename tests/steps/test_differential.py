"""Differential expression: against least squares gene by gene, at the edges, and with bad input."""

import re
from typing import Any, Literal, NamedTuple

import dask
import dask.array as da
import mpmath
import numpy as np
import pytest
import scipy.sparse
from comparing import assert_close
from scipy import stats

import normalisr_dask as nd
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.results import DifferentialExpression
from normalisr_dask.steps.expression import normalised_form


class Data(NamedTuple):
    expression: Any
    covariates: np.ndarray
    dense: np.ndarray
    groupings: np.ndarray


@pytest.fixture(params=["dense", "implicit"])
def data(request: pytest.FixtureRequest, counts: np.ndarray) -> Data:
    """Normalised expression with an array's blocks or from the counts, one constant covariate among three."""
    reads = scipy.sparse.csc_array(counts)
    log_cpm = nd.lcpm(reads)
    covariates = nd.normcov(log_cpm.cov[:2])
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    expression, covariates = nd.normvar(log_cpm.lcpm, covariates, weights, nd.scaling_factor(reads))
    assert normalised_form(expression) is not None
    dense, covariates = dask.compute(expression, covariates)
    groupings = (np.random.default_rng(5).random((3, counts.shape[1])) < 0.3).astype(np.float64)
    return Data(dense if request.param == "dense" else expression, covariates, dense, groupings)


def results(groupings: Any, data: Data, **options: Any) -> DifferentialExpression:
    return dask.compute(nd.de(groupings, data.expression, data.covariates, lowmem=False, **options))[0]


def least_squares(grouping: np.ndarray, gene: np.ndarray, covariates: np.ndarray, lost: float = 0) -> tuple[float, ...]:
    """Return γ, its standard error, ν, P and α of one test, by a design matrix and Student's t."""
    design = np.vstack([grouping, covariates]).T
    solution, _, _, _ = np.linalg.lstsq(design, gene)
    residual = gene - design @ solution
    degrees = gene.size - np.linalg.matrix_rank(covariates) - 1 - lost
    error = np.sqrt(residual @ residual / degrees * np.linalg.pinv(design.T @ design)[0, 0])
    p_value = 2 * stats.t.sf(abs(solution[0] / error), degrees)
    return solution[0], error, degrees, p_value, solution[1:]


@pytest.mark.parametrize("dimreduce", [0, 4, np.arange(90) % 5], ids=["none", "all alike", "every gene's own"])
def test_every_test_is_a_regression(data: Data, dimreduce: Any):
    found = results(data.groupings, data, dimreduce=dimreduce)
    lost = np.broadcast_to(dimreduce, data.dense.shape[:1])
    for row, grouping in enumerate(data.groupings):
        for gene, values in enumerate(data.dense):
            gamma, error, degrees, p_value, alpha = least_squares(grouping, values, data.covariates, lost[gene])
            assert found.gamma[row, gene] == pytest.approx(gamma, rel=1e-8, abs=1e-11)
            assert found.se[row, gene] == pytest.approx(error, rel=1e-8)
            assert found.dof[row, gene] == degrees
            assert found.pvalue[row, gene] == pytest.approx(p_value, rel=1e-7)
            np.testing.assert_allclose(found.alpha[row, gene], alpha, rtol=1e-7, atol=1e-10)


def test_groupings_of_any_numbers(data: Data):
    groupings = np.random.default_rng(6).normal(-3, 2, size=data.groupings.shape)
    found = results(groupings, data)
    gamma, error, _, p_value, _ = least_squares(groupings[1], data.dense[7], data.covariates)
    assert found.gamma[1, 7] == pytest.approx(gamma, rel=1e-8)
    assert found.se[1, 7] == pytest.approx(error, rel=1e-8)
    assert found.pvalue[1, 7] == pytest.approx(p_value, rel=1e-7)


@pytest.mark.parametrize("sparse", [False, True], ids=["dense groupings", "sparse groupings"])
class TestGroupingsThatTellNothing:
    """P = 1 and γ = 0 without NaN; other groupings in the same call are as they would be alone."""

    def assert_nothing(self, found: DifferentialExpression, row: int) -> None:
        np.testing.assert_array_equal(found.pvalue[row], 1)
        np.testing.assert_array_equal(found.log10_pvalue[row], 0)
        for field in (found.gamma, found.se, found.varg):
            np.testing.assert_array_equal(field[row], 0)

    def assert_unaffected(self, found: DifferentialExpression, row: int, data: Data) -> None:
        alone = results(data.groupings[:1], data)
        for name, field in vars(found).items():
            assert_close(field[row], getattr(alone, name)[0], 1e-12)

    def with_one_more(self, grouping: np.ndarray, data: Data, *, sparse: bool) -> DifferentialExpression:
        groupings = np.vstack([grouping, data.groupings[:1]])
        return results(scipy.sparse.csr_array(groupings) if sparse else groupings, data)

    @pytest.mark.parametrize("value", [0.0, 1.0, 0.1])
    def test_one_value_in_all_cells(self, data: Data, sparse: bool, value: float):
        with pytest.warns(
            UntestableGroupingWarning, match="1 of 2 groupings cannot be tested, the first at position 0"
        ):
            found = self.with_one_more(np.full(data.dense.shape[1], value), data, sparse=sparse)
        self.assert_nothing(found, 0)
        np.testing.assert_array_equal(found.vart[0], 0)
        np.testing.assert_array_equal(found.alpha[0], 0)
        self.assert_unaffected(found, 1, data)

    def test_what_covariates_determine(self, data: Data, sparse: bool):
        grouping = np.array([0.3, -1.0, 2.5]) @ data.covariates
        with pytest.warns(UntestableGroupingWarning, match="the covariates determine it"):
            found = self.with_one_more(grouping, data, sparse=sparse)
        self.assert_nothing(found, 0)
        assert (found.vart[0] > 0).all()
        self.assert_unaffected(found, 1, data)


def test_a_grouping_of_one_cell(data: Data):
    grouping = np.zeros((1, data.dense.shape[1]))
    grouping[0, 17] = 1
    found = results(grouping, data)
    gamma, error, _, p_value, _ = least_squares(grouping[0], data.dense[4], data.covariates)
    assert found.gamma[0, 4] == pytest.approx(gamma, rel=1e-8)
    assert found.se[0, 4] == pytest.approx(error, rel=1e-8)
    assert found.pvalue[0, 4] == pytest.approx(p_value, rel=1e-7)


def test_genes_without_variance_after_covariates(data: Data):
    """Normalisr divides rounding errors by rounding errors here, or by 1; the contract is P = 1 and γ = 0."""
    dense = data.dense.copy()
    dense[0] = 0
    dense[1] = 1e5 * data.covariates[-1]
    dense[2] = np.array([0.2, 1.7, -3.0]) @ data.covariates
    found = results(data.groupings, data._replace(expression=dense))
    np.testing.assert_array_equal(found.pvalue[:, :3], 1)
    for field in (found.gamma, found.vart, found.se):
        np.testing.assert_array_equal(field[:, :3], 0)
    unchanged = results(data.groupings, data._replace(expression=data.dense))
    assert_close(found.log10_pvalue[:, 3:], unchanged.log10_pvalue[:, 3:], 1e-12)


def test_collinear_covariates_count_once(data: Data):
    twice = np.vstack([data.covariates, data.covariates[1], data.covariates[0] + data.covariates[2]])
    found, expected = results(data.groupings, data._replace(covariates=twice)), results(data.groupings, data)
    np.testing.assert_array_equal(found.dof, expected.dof)
    for name in ("gamma", "se", "log10_pvalue", "varg", "vart"):
        assert_close(getattr(found, name), getattr(expected, name), 1e-9)


def test_no_covariates_at_all(data: Data):
    """Then nothing is removed, not even the mean."""
    none = np.empty((0, data.dense.shape[1]))
    found = results(data.groupings, data._replace(covariates=none))
    gamma, error, degrees, p_value, _ = least_squares(data.groupings[0], data.dense[3], none)
    assert found.dof[0, 3] == degrees == data.dense.shape[1] - 1
    assert found.gamma[0, 3] == pytest.approx(gamma, rel=1e-8)
    assert found.se[0, 3] == pytest.approx(error, rel=1e-8)
    assert found.pvalue[0, 3] == pytest.approx(p_value, rel=1e-7)
    assert found.alpha.shape == (3, 90, 0)


@pytest.mark.parametrize("single", [0, 1, 4])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense groupings", "sparse groupings"])
@pytest.mark.parametrize("exponent", [2, 4, 6, 8])
def test_an_offset_costs_no_more_digits_than_it_must(exponent: int, sparse: bool, single: Literal[0, 1, 4]):
    random = np.random.default_rng(exponent)
    groupings = (random.random((5, 300)) < 0.3).astype(float)
    expression = random.normal(size=(20, 300)) + 0.5 * groupings[0]
    covariates = np.vstack([random.normal(size=(2, 300)), np.ones(300)])
    expected = dask.compute(nd.de(groupings, expression, covariates, single=single))[0]
    given = scipy.sparse.csr_array(groupings) if sparse else groupings
    shifted = da.from_array(expression + 10.0**exponent, chunks=(7, 90))
    found = dask.compute(nd.de(given, shifted, covariates, single=single))[0]
    for name in ("gamma", "se", "vart", "log10_pvalue"):
        assert_close(getattr(found, name), getattr(expected, name), 1e-6)


def test_p_values_down_to_underflow():
    """P of a near-perfect fit is 0 in floating point; its logarithm is not."""
    random = np.random.default_rng(0)
    grouping = np.repeat([0.0, 1.0], 1000)
    noise = random.normal(size=2000)
    expression = np.vstack([grouping + scale * noise for scale in (1.0, 0.5, 0.3, 0.1, 1e-2, 1e-4)])
    found = dask.compute(nd.de(grouping[None], expression, np.ones((1, 2000))))[0]
    for gene, values in enumerate(expression):
        gamma, error, degrees, _, _ = least_squares(grouping, values, np.ones((1, 2000)))
        t_squared = mpmath.mpf((gamma / error) ** 2)
        exact = mpmath.betainc(degrees / 2, 0.5, 0, degrees / (degrees + t_squared), regularized=True)
        assert found.log10_pvalue[0, gene] == pytest.approx(float(mpmath.log10(exact)), rel=1e-7)
    assert (found.pvalue[0, :2] > 0).all()
    assert (found.pvalue[0, 2:] == 0).any()
    assert found.log10_pvalue[0, -1] < -5000


def test_it_unpacks_as_normalisr_does(data: Data):
    result = nd.de(data.groupings, data.expression, data.covariates)
    pvalue, gamma, alpha, varg, vart = result
    assert (pvalue, gamma, alpha, varg, vart) == (result.pvalue, result.gamma, None, result.varg, result.vart)


def test_too_few_cells_for_the_degrees_of_freedom():
    random = np.random.default_rng(0)
    covariates = random.normal(size=(4, 6))
    result = nd.de(np.array([[0, 0, 0, 1, 1, 1]]), random.normal(size=(5, 6)), covariates)
    assert np.isfinite(result.pvalue.compute()).all()
    expected = "more cells than covariates of rank 4, rank loss 1 and 1 for the grouping, found 6 cells"
    for lost in (1, [0, 0, 1, 0, 0]):
        result = nd.de(np.array([[0, 0, 0, 1, 1, 1]]), random.normal(size=(5, 6)), covariates, dimreduce=lost)
        with pytest.raises(ValueError, match=expected):
            result.pvalue.compute()


class TestBadInput:
    """One line that says what was expected, found, and where; before anything is computed where shapes can tell."""

    expression = np.random.default_rng(1).normal(size=(5, 8))
    groupings = np.array([[0, 1] * 4])
    covariates = np.ones((1, 8))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dg": np.zeros((1, 7))}, "expected dg with 8 cells (columns), found 7"),
            ({"dg": np.zeros(8)}, "expected dg with 2 dimensions (rows, cells), found 1"),
            ({"dc": np.zeros((1, 9))}, "expected dc with 8 cells (columns), found 9"),
            ({"dt": np.zeros((5, 8, 1))}, "expected dt with 2 dimensions (rows, cells), found 3"),
            ({"single": 2}, "single 2 is not one of"),
            ({"dimreduce": [0, 0]}, "expected dimreduce with one value for each of 5 genes, found shape (2,)"),
            ({"dimreduce": -3}, "dimreduce must be 0 or more, not -3"),
            ({"dimreduce": np.nan}, "dimreduce must be 0 or more, not nan"),
            ({"bs": -2}, "bs must be at least 0, not -2"),
        ],
    )
    def test_shapes_and_choices(self, change: dict[str, Any], message: str):
        arguments = {"dg": self.groupings, "dt": self.expression, "dc": self.covariates} | change
        with pytest.raises(ValueError, match=re.escape(message)):
            nd.de(**arguments)

    @pytest.mark.parametrize("name", ["dg", "dt", "dc"])
    def test_what_is_no_array(self, name: str):
        arguments = {"dg": self.groupings, "dt": self.expression, "dc": self.covariates}
        arguments[name] = arguments[name].tolist()
        with pytest.raises(TypeError, match=rf"expected {name} as a NumPy, .* or Zarr array, found list"):
            nd.de(**arguments)

    @pytest.mark.parametrize("name", ["dg", "dt", "dc"])
    @pytest.mark.parametrize("kind", ["complex128", "<U32"])
    def test_what_is_no_real_number(self, name: str, kind: str):
        arguments = {"dg": self.groupings, "dt": self.expression, "dc": self.covariates}
        arguments[name] = arguments[name].astype(kind)
        with pytest.raises(TypeError, match=f"expected {name} of real numbers, found {kind}"):
            nd.de(**arguments)

    @pytest.mark.parametrize("lost", [-1.0, np.nan, np.inf])
    def test_loss_of_rank_of_a_gene(self, lost: float):
        result = nd.de(self.groupings, self.expression, self.covariates, dimreduce=[0, 0, 1, lost, 0])
        with pytest.raises(ValueError, match=f"0 or more for every gene, found {lost:g} at gene 3"):
            result.pvalue.compute()

    @pytest.mark.parametrize("single", [0, 1, 4])
    def test_values_too_large_to_be_squared(self, single: Literal[0, 1, 4]):
        result = nd.de(self.groupings, 1e200 * self.expression, self.covariates, single=single)
        with pytest.raises(ValueError, match="expected values of dt whose squares can be added up"):
            result.pvalue.compute()

    @pytest.mark.parametrize("name", ["dg", "dt", "dc"])
    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_values_that_are_not_finite(self, name: str, value: float):
        arguments = {"dg": self.groupings, "dt": self.expression, "dc": self.covariates}
        arguments[name] = arguments[name].astype(float)
        arguments[name][0, 3] = value
        with pytest.raises(ValueError, match="expected finite"):
            nd.de(**arguments).pvalue.compute()
