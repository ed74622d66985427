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
        with pytest.raises(ValueError, match=r"expected 0 and 1 in dg for single=1 .*, found 0\.5 in grouping 2"):
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


@pytest.mark.parametrize("options", [{"single": 0}, {"single": 1}, {"single": 4}, {"single": 4, "mpc": 2}], ids=str)
class TestAtTheEdges:
    def test_no_groupings_give_no_tests(self, data, groupings, options):
        found = results(groupings[:0], data, **options)
        n_genes, n_covariates = len(data.dense), len(data.covariates)
        assert found.pvalue.shape == found.gamma.shape == found.vart.shape == (0, n_genes)
        assert found.alpha.shape == (0, n_genes, n_covariates)

    def test_more_lost_rank_than_cells(self, data, groupings, options):
        n_cells = groupings.shape[1]
        with pytest.raises(ValueError, match=f"rank loss 1000 and 1 for the grouping, found {n_cells} cells"):
            results(groupings, data, dimreduce=1000, **options)

    def test_no_grouping_can_be_tested(self, data, groupings, options, capfd):
        with pytest.warns(UntestableGroupingWarning, match="4 of 4 groupings cannot be tested"):
            found = results(np.zeros_like(groupings), data, **options)
        np.testing.assert_array_equal(found.pvalue, 1)
        assert capfd.readouterr() == ("", "")


def covariates_of(kind: str, n_cells: int, random: np.random.Generator) -> np.ndarray:
    rows = np.vstack([np.ones(n_cells), random.normal(size=(2, n_cells))])
    log_total = random.normal(9, 0.5, n_cells)
    return {
        "centred": rows,
        "one that others determine": np.vstack([rows, 2 * rows[2] - 3 * rows[0]]),
        "one twice": np.vstack([rows, rows[2]]),
        "about 100": np.vstack([rows[1:] + 100, rows[:1]]),
        "a number and its square": np.vstack([log_total, log_total**2, rows[:1]]),
    }[kind]


@pytest.mark.parametrize("single", [0, 1, 4])
@pytest.mark.parametrize("n_cells", [40, 3000])
@pytest.mark.parametrize(
    "kind", ["centred", "one that others determine", "one twice", "about 100", "a number and its square"]
)
class TestNothingIsLeft:
    """One rule in every mode: a gene that covariates determine has P = 1, γ = 0 and no variance."""

    def found(self, kind: str, n_cells: int, single: int, seed: int) -> tuple[DifferentialExpression, int]:
        """Return tests of the genes of which nothing is left, and the number of these; then two with noise."""
        random = np.random.default_rng(seed)
        covariates = covariates_of(kind, n_cells, random)
        guide = random.integers(5, size=n_cells)
        ones, noise = np.ones(n_cells), random.normal(size=(2, n_cells))
        nothing = [0 * ones, 0.1 * ones, 3.7 * ones, (1e8 + 0.3) * ones, 2.5 * covariates[1] - 0.7]
        if single == 1:  # in its own cells only
            nothing += [np.where(guide < 2, 3.7, noise[0]), np.where(guide < 2, 1.3 * covariates[1] + 0.2, noise[0])]
        small = [noise[0], 1e5 + noise[1]]
        groupings = (guide == np.arange(1, 5)[:, None]).astype(np.float64)
        genes = np.vstack(nothing + small)
        (found,) = dask.compute(nd.de(groupings, genes, covariates, single=single, lowmem=False))
        return found, len(nothing)

    @pytest.mark.parametrize("seed", range(3))
    def test_p_is_1(self, kind: str, n_cells: int, single: int, seed: int):
        found, n_nothing = self.found(kind, n_cells, single, seed)
        tested = slice(0, 1) if single == 1 else slice(None)
        np.testing.assert_array_equal(found.pvalue[tested, :n_nothing], 1)
        np.testing.assert_array_equal(found.log10_pvalue[tested, :n_nothing], 0)
        for name in ("gamma", "vart", "se"):
            np.testing.assert_array_equal(getattr(found, name)[tested, :n_nothing], 0)

    def test_noise_is_left(self, kind: str, n_cells: int, single: int):
        found, n_nothing = self.found(kind, n_cells, single, 0)
        assert (found.vart[:, n_nothing:] > 0.1).all()
        assert (found.gamma[:, n_nothing:] != 0).all()


class TestWhatOtherGroupingsDetermine:
    """With single=4, the grouping that determines a gene has P = 0, and all others P = 1 and γ = 0."""

    random = np.random.default_rng(0)
    n_cells = 500
    covariates = np.vstack([random.normal(size=(2, n_cells)), np.ones(n_cells)])
    guides = random.multinomial(1, [0.4, 0.2, 0.2, 0.2], size=n_cells).T[1:].astype(np.float64)
    copies = random.poisson(2, size=(30, n_cells)).astype(np.float64) * np.logspace(-3, 3, 30)[:, None]

    def test_genes_that_groupings_determine(self):
        genes = np.vstack(
            [
                2 * self.guides[1] + 3,
                2 * self.guides[1] + self.covariates[0],
                self.guides[0] + 2 * self.guides[2],
                self.guides[0] + 1e-5 * self.guides[2],
            ]
        )
        (found,) = dask.compute(nd.de(self.guides, genes, self.covariates, single=4))
        effects = np.array([[0, 0, 1, 1], [2, 2, 0, 0], [0, 0, 2, 1e-5]])
        np.testing.assert_array_equal(found.gamma[effects == 0], 0)
        np.testing.assert_allclose(found.gamma[effects > 0], effects[effects > 0], rtol=1e-10)
        np.testing.assert_array_equal(found.pvalue, effects == 0)
        np.testing.assert_array_equal(found.vart[effects == 0], 0)

    def test_at_an_offset_that_leaves_few_digits(self):
        genes = 1e5 + 2 * self.guides[1:2] + self.covariates[0]
        (found,) = dask.compute(nd.de(self.guides, genes, self.covariates, single=4))
        np.testing.assert_allclose(found.pvalue, [[1], [0], [1]], atol=1e-3)
        np.testing.assert_allclose(found.gamma, [[0], [2], [0]], atol=1e-9)

    def test_among_many_of_any_size(self):
        genes = 5 * self.copies[[3, 11, 29]] + self.covariates[0]
        (found,) = dask.compute(nd.de(self.copies, genes, self.covariates, single=4))
        np.testing.assert_array_equal(found.pvalue == 0, np.arange(30)[:, None] == [3, 11, 29])
        assert set(np.unique(found.pvalue)) == {0.0, 1.0}

    def test_a_little_noise_is_real(self):
        genes = 2 * self.guides[1] + 1e-5 * self.random.normal(size=(50, self.n_cells))
        (found,) = dask.compute(nd.de(self.guides, genes, self.covariates, single=4))
        assert ((found.pvalue[[0, 2]] > 0) & (found.pvalue[[0, 2]] < 1)).all()
        assert stats.kstest(found.pvalue[[0, 2]].ravel(), "uniform").pvalue > 1e-3
