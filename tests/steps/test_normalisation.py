"""Covariates, cell weights and normalised expression: definitions, both routes, edges, bad input."""

import re
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.sparse
from comparing import assert_close

import normalisr_dask as nd
from normalisr_dask.steps.expression import log_cpm_form, normalised_form

N_GENES, N_CELLS = 90, 110  # of the fixture counts


class Data:
    """Log-CPM of the fixture counts, dense and from the counts, and what the steps take with it."""

    def __init__(self, counts: np.ndarray) -> None:
        random = np.random.default_rng(1)
        self.implicit = nd.lcpm(scipy.sparse.csc_array(counts)).lcpm
        assert log_cpm_form(self.implicit) is not None
        self.dense = self.implicit.compute()
        self.covariates = np.vstack([random.normal(size=(2, N_CELLS)), random.random(N_CELLS) < 0.4, np.ones(N_CELLS)])
        self.weights = random.uniform(1, 3, N_CELLS)
        self.scaling = random.uniform(0, 1, N_GENES)
        self.scaling[:2] = 0, 1


@pytest.fixture(scope="module")
def data(counts: np.ndarray) -> Data:
    return Data(counts)


@pytest.fixture(params=["dense", "implicit"])
def log_cpm(request: pytest.FixtureRequest, data: Data):
    return getattr(data, request.param)


class TestNormcov:
    def test_continuous_rows_are_standardised_and_others_left(self):
        rows = np.array([[1.0, 2, 4, 9], [0, 1, 1, 0], [0, 1, 2, 1]])
        found = nd.normcov(rows).compute()
        for row in (0, 2):
            np.testing.assert_allclose(found[row], (rows[row] - rows[row].mean()) / rows[row].std(), rtol=1e-14)
        np.testing.assert_array_equal(found[1], rows[1])
        np.testing.assert_array_equal(found[3], 1)

    def test_no_covariates(self):
        np.testing.assert_array_equal(nd.normcov(np.empty((0, 5))).compute(), np.ones((1, 5)))
        assert nd.normcov(np.empty((0, 5)), c=False).compute().shape == (0, 5)

    def test_an_offset_costs_no_more_digits_than_it_must(self):
        rows = np.random.default_rng(0).normal(size=(2, 500))
        expected = nd.normcov(rows).compute()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nearly constant, for their offset
            assert_close(nd.normcov(da.from_array(rows + 1e8, chunks=(2, 60))), expected, 1e-6)

    @pytest.mark.parametrize("value", [0, 1, 0.1, 1e20])
    def test_a_constant_row(self, value):
        rows = np.vstack([np.arange(7.0), np.full(7, value)])
        message = rf"found row 1 \(counted from 0\) constant at {re.escape(f'{value:g}')}; leave it out"
        with pytest.raises(ValueError, match=message):
            nd.normcov(da.from_array(rows, chunks=(1, 3))).compute()

    def test_a_nearly_constant_row(self):
        rows = np.vstack([np.arange(7.0), 1e9 + np.arange(7.0)])
        with pytest.warns(RuntimeWarning, match=r"row 1 \(counted from 0\) is nearly constant: standard deviation 2"):
            found = nd.normcov(rows).compute(scheduler="synchronous")
        np.testing.assert_allclose(found[1], found[0], rtol=1e-12)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, value):
        rows = np.vstack([np.arange(7.0), np.arange(7.0)])
        rows[1, 4] = value
        with pytest.raises(ValueError, match=r"expected finite covariates, found 1 NaN or infinite in row 1"):
            nd.normcov(rows).compute(scheduler="synchronous")

    def test_one_dimension(self):
        with pytest.raises(ValueError, match="expected dc with 2 dimensions"):
            nd.normcov(np.arange(4))


class TestComputeVar:
    def test_one_round_is_that_of_the_definition(self, data, log_cpm):
        fit = np.linalg.lstsq(data.covariates.T, data.dense.T)[0]
        residual = data.dense - (data.covariates.T @ fit).T
        z = (residual - residual.mean(axis=1, keepdims=True)) / residual.std(axis=1, keepdims=True)
        y = np.log((z**2).mean(axis=0)) / 2
        fitted = data.covariates.T @ np.linalg.lstsq(data.covariates.T, y)[0]
        assert_close(nd.compute_var(log_cpm, data.covariates), np.exp(fitted.max() - fitted), 1e-10)

    def test_collinear_covariates(self, data, log_cpm):
        twice = np.vstack([data.covariates, data.covariates[0] + data.covariates[3]])
        assert_close(nd.compute_var(log_cpm, twice), nd.compute_var(log_cpm, data.covariates).compute(), 1e-9)

    def test_genes_without_residual_variance_say_nothing(self, data):
        """normalisr divides by zero here."""
        expected = nd.compute_var(data.dense, data.covariates).compute()
        explained = [np.zeros(N_CELLS), np.full(N_CELLS, 7.0), np.array([1.0, -0.3, 2.0, 1e4]) @ data.covariates]
        assert_close(nd.compute_var(np.vstack([data.dense, *explained]), data.covariates), expected, 1e-10)

    def test_an_offset_costs_no_more_digits_than_it_must(self, data):
        expected = nd.compute_var(data.dense, data.covariates).compute()
        for offset in (1e2, 1e4, 1e6, 1e8):
            assert_close(nd.compute_var(data.dense + offset, data.covariates), expected, 1e-6)

    @pytest.mark.parametrize("cell", range(0, N_CELLS, 7))
    def test_a_cell_that_a_covariate_has_for_itself(self, data, log_cpm, cell):
        """Nothing is left of its genes but rounding: its weight is huge, and those of others are as without it."""
        alone = np.arange(N_CELLS) == cell
        found = nd.compute_var(log_cpm, np.vstack([data.covariates, alone])).compute()
        others = nd.compute_var(data.dense[:, ~alone], data.covariates[:, ~alone]).compute()
        assert found[cell] > 1e9
        assert_close(found[~alone] / found[~alone].min(), others, 1e-9)

    def test_covariates_that_leave_nothing(self):
        expression = np.array([[1.0, 2.0, 1.0, 2.0], [0.0, 3.0, 0.0, 3.0]])
        explaining = np.array([[0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
        with pytest.raises(ValueError, match="every cell, found none in any cell; take more genes or fewer covariates"):
            nd.compute_var(expression, explaining).compute()

    def test_rounds_end_when_nothing_changes(self, data):
        few = nd.compute_var(data.dense, data.covariates, stepmax=50, eps=0.5)
        np.testing.assert_array_equal(few, nd.compute_var(data.dense, data.covariates, stepmax=51, eps=0.5))

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"stepmax": 0}, ValueError, "stepmax must be at least 1, not 0"),
            ({"stepmax": 1.5}, TypeError, "stepmax must be a whole number, not 1.5"),
            ({"eps": 0}, ValueError, "eps must be a positive number, not 0"),
            ({"eps": np.nan}, ValueError, "eps must be a positive number, not nan"),
            ({"dc": np.ones((1, 9))}, ValueError, f"expected dc with {N_CELLS} cells (columns), found 9"),
            ({"dt": np.ones(9)}, ValueError, "expected dt with 2 dimensions (rows, cells), found 1"),
        ],
    )
    def test_bad_input(self, data, options, error, message):
        with pytest.raises(error, match=re.escape(message)):
            nd.compute_var(**{"dt": data.dense, "dc": data.covariates} | options)

    def test_covariates_that_are_not_finite(self, data, log_cpm):
        covariates = data.covariates.copy()
        covariates[0, 5] = np.nan
        with pytest.raises(ValueError, match="expected finite covariates"):
            nd.compute_var(log_cpm, covariates).compute(scheduler="synchronous")


def normalised_by_hand(expression, covariates, weights, scaling, *, keepvar=True):
    """Return normalised expression gene by gene."""
    result = np.empty_like(expression)
    for gene, values in enumerate(expression):
        scale = weights ** scaling[gene]
        design, scaled = (covariates * scale).T, values * scale
        residual = scaled - design @ np.linalg.lstsq(design, scaled)[0]
        factor = (scaled.std() / np.sqrt((residual**2).mean())) ** scaling[gene] if keepvar else 1
        result[gene] = factor * residual
    return result


class TestNormvar:
    @pytest.mark.parametrize("keepvar", [True, False])
    def test_it_is_a_weighted_regression_of_every_gene(self, data, log_cpm, keepvar):
        found = nd.normvar(log_cpm, data.covariates, data.weights, data.scaling, keepvar=keepvar).dtn
        expected = normalised_by_hand(data.dense, data.covariates, data.weights, data.scaling, keepvar=keepvar)
        assert (normalised_form(found) is None) == (log_cpm is data.dense)
        assert_close(found, expected, 1e-11)

    @pytest.mark.parametrize(("cat", "scaled"), [(0, [0, 1]), (1, [0, 1, 3]), (2, [0, 1, 2, 3])])
    def test_which_covariates_are_scaled(self, data, cat, scaled):
        expected = data.covariates.copy()
        expected[scaled] *= data.weights
        found = nd.normvar(data.dense, data.covariates, data.weights, data.scaling, cat=cat).dcn
        assert_close(found, expected, 1e-15)

    @pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
    def test_scaling_that_is_the_same_for_all_genes(self, data, log_cpm, value):
        """Then the nodes of interpolation lie close together."""
        scaling = np.full(N_GENES, value)
        expected = normalised_by_hand(data.dense, data.covariates, data.weights, scaling)
        assert_close(nd.normvar(log_cpm, data.covariates, data.weights, scaling).dtn, expected, 1e-10)

    def test_scaling_beyond_one(self, data, log_cpm):
        scaling = 1.7 * data.scaling
        expected = normalised_by_hand(data.dense, data.covariates, data.weights, scaling)
        assert_close(nd.normvar(log_cpm, data.covariates, data.weights, scaling).dtn, expected, 1e-10)

    def test_collinear_covariates(self, data, log_cpm):
        twice = np.vstack([data.covariates, 2 * data.covariates[1] - data.covariates[3]])
        found = nd.normvar(log_cpm, twice, data.weights, data.scaling).dtn
        expected = normalised_by_hand(data.dense, data.covariates, data.weights, data.scaling)
        assert_close(found, expected, 1e-9)

    def test_genes_that_covariates_explain(self, data):
        """Nothing is left of them, and nothing is divided by it."""
        expression = data.dense.copy()
        expression[1] = 7
        expression[2] = 0
        found = nd.normvar(expression, data.covariates, data.weights, data.scaling).dtn.compute()
        np.testing.assert_allclose(found[1:3], 0, atol=1e-13)
        expected = normalised_by_hand(data.dense, data.covariates, data.weights, data.scaling)
        assert_close(found[3:], expected[3:], 1e-11)

    def test_normmean_leaves_nothing_of_the_normalised_covariates(self, data, log_cpm):
        found = nd.normvar(log_cpm, data.covariates, data.weights, data.scaling, normmean=True)
        expression, covariates = dask.compute(*found)
        assert np.abs(expression @ covariates.T).max() < 1e-9 * np.abs(expression).max() * N_CELLS

    def test_extra_rows_are_scaled(self, data):
        extra = np.random.default_rng(0).normal(size=(3, N_CELLS))
        found = nd.normvar(data.dense, data.covariates, data.weights, data.scaling, extra)
        assert len(found) == 3
        assert_close(found.dextran, extra * data.weights, 1e-15)

    @pytest.mark.parametrize("spread", [3, 30, 300])
    def test_weights_over_a_wide_range(self, data, log_cpm, spread):
        weights = np.exp(np.random.default_rng(2).uniform(-0.5, 0.5, N_CELLS) * np.log(spread))
        weights[:2] = spread**0.5, spread**-0.5
        expected = normalised_by_hand(data.dense, data.covariates, weights, data.scaling)
        assert_close(nd.normvar(log_cpm, data.covariates, weights, data.scaling).dtn, expected, 1e-9)

    def test_weights_over_a_range_that_interpolation_cannot_hold(self, data):
        weights = data.weights.copy()
        weights[3] = 1e9
        with pytest.raises(
            ValueError, match=r"found 1\.\d* to 1e\+09; remove outlying cells .* or give dense expression"
        ):
            nd.normvar(data.implicit, data.covariates, weights, data.scaling).dtn.compute()
        assert np.isfinite(nd.normvar(data.dense, data.covariates, weights, data.scaling).dtn.compute()).all()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dc": np.empty((0, N_CELLS))}, "expected at least one covariate in dc, found none; normcov appends"),
            ({"dc": np.ones((1, 9))}, f"expected dc with {N_CELLS} cells (columns), found 9"),
            ({"w": np.ones(9)}, f"expected w with one value for each of {N_CELLS} cells, found shape (9,)"),
            ({"wt": np.ones((1, 90))}, f"expected wt with one value for each of {N_GENES} genes, found shape (1, 90)"),
            ({"dextra": np.ones((2, 9))}, f"expected dextra with {N_CELLS} cells (columns), found 9"),
            ({"cat": 3}, "cat 3 is not one of '0', '1', '2'"),
        ],
    )
    def test_wrong_shapes_and_choices(self, data, change, message):
        arguments = {"dt": data.dense, "dc": data.covariates, "w": data.weights, "wt": data.scaling}
        with pytest.raises(ValueError, match=re.escape(message)):
            nd.normvar(**arguments | change)

    @pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
    def test_weights_that_are_not_positive(self, data, log_cpm, value):
        weights = data.weights.copy()
        weights[7] = value
        with pytest.raises(
            ValueError, match=rf"expected positive weights w, found {value} for cell 7 \(counted from 0\)"
        ):
            nd.normvar(log_cpm, data.covariates, weights, data.scaling).dtn.compute()

    @pytest.mark.parametrize("value", [-0.1, np.nan])
    def test_scaling_that_is_negative(self, data, log_cpm, value):
        scaling = data.scaling.copy()
        scaling[4] = value
        with pytest.raises(ValueError, match=rf"expected scaling factors wt of 0 or more, found {value} for gene 4"):
            nd.normvar(log_cpm, data.covariates, data.weights, scaling).dtn.compute()
