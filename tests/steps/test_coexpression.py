"""Co-expression: against partial correlations, at the edges, and with bad input."""

import re

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from comparing import assert_close
from dask.utils import key_split
from layouts import laid_out
from scipy import stats

import normalisr_dask as nd
from normalisr_dask.graph.tile_plan import TilePlan
from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, normalised_form, with_form
from normalisr_dask.storage.matrix_store import by_columns
from normalisr_dask.testing import count_reads

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
    with pytest.raises(ValueError, match=r"expected more cells than .* rank .* found 60 cells"):
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


def from_counts(counts: np.ndarray, chunks=((50, 40), (30, 1, 79)), seed: int = 0):
    """Return normalised expression that remembers its counts, and covariates to free it of."""
    random = np.random.default_rng(seed)
    n_genes, n_cells = counts.shape
    covariates = np.vstack([random.normal(size=(2, n_cells)), np.ones(n_cells)])
    weights, scaling = random.uniform(1, 3, n_cells), random.uniform(0, 1, n_genes)
    log_cpm = nd.lcpm(laid_out(counts, "csc_array", chunks)).lcpm
    return nd.normvar(log_cpm, covariates, weights, scaling).dtn, covariates * weights


class TestFromCounts:
    @pytest.mark.parametrize("dimreduce", [0, np.arange(90) % 4], ids=["none", "every gene's own"])
    def test_it_is_what_dense_expression_gives(self, counts, dimreduce):
        expression, covariates = from_counts(counts)
        found, expected = (
            dask.compute(nd.coex(values, covariates, bs=20, dimreduce=dimreduce))[0]
            for values in (expression, expression.compute())
        )
        for name in ("dot", "var", "log10_pvalue"):
            assert_close(getattr(found, name), getattr(expected, name), 1e-9)
        np.testing.assert_array_equal(found.pvalue, found.pvalue.T)

    def test_it_takes_the_route_that_reads_in_tasks(self, counts):
        expression, covariates = from_counts(counts)
        names = {key_split(key) for key in dict(nd.coex(expression, covariates).pvalue.__dask_graph__())}
        assert "dense_normalised" not in names
        assert "group-sums" in names

    def test_the_bits_do_not_depend_on_the_plan(self, counts):
        expression, covariates = from_counts(counts, ((90,), (11,) * 10))
        results = [
            dask.compute(nd.coex(expression, covariates, plan=plan_of(tiles_per_side, n_ranges)))[0]
            for tiles_per_side, n_ranges in ((1, 1), (2, 3), (5, 10), (3, 7))
        ]
        for result in results[1:]:
            for name, values in vars(result).items():
                np.testing.assert_array_equal(values, getattr(results[0], name), err_msg=name)

    def test_a_gene_without_counts(self, counts):
        with_empty = np.vstack([counts, np.zeros_like(counts[:1])])
        expression, covariates = from_counts(with_empty, ((91,), (110,)))
        found = dask.compute(nd.coex(expression, covariates))[0]
        assert np.isfinite(found.pvalue).all()
        assert np.isfinite(found.dot).all()

    def test_one_gene_and_two(self, counts):
        for n_genes in (1, 2):
            expression, covariates = from_counts(counts[-n_genes:], ((n_genes,), (110,)))
            found, expected = (
                dask.compute(nd.coex(values, covariates))[0] for values in (expression, expression.compute())
            )
            assert_close(found.pvalue, expected.pvalue, 1e-9)
            assert_close(found.var, expected.var, 1e-9)
            assert found.pvalue[0, 0] == 0


@pytest.mark.parametrize(("tiles_per_side", "n_ranges"), [(1, 1), (2, 3), (3, 7), (5, 1)])
def test_counts_are_read_once_a_group_and_once_before(count_store, tiles_per_side, n_ranges):
    """As the plan says that docs/scaling.md shows."""
    counts = nd.open_counts(count_store, cells_per_block=11)
    covariates = np.ones((1, 110))
    expression = nd.normvar(nd.lcpm(counts.matrix).lcpm, covariates, np.ones(110), np.ones(90)).dtn
    form = normalised_form(expression)
    known = [da.from_array(array.compute(), chunks=array.chunks) for array in (form.fit, form.log_cpm.cell_offset)]
    log_cpm = LogCpmForm(form.log_cpm.counts, known[1])
    expression = with_form(NormalisedForm.of_fit(log_cpm, form.covariates, form.weights, form.gene_scaling, known[0]))
    plan = plan_of(tiles_per_side, n_ranges)
    with count_reads(count_store / "X") as one_pass:
        dask.compute(*counts.matrix.to_delayed().ravel(), scheduler="synchronous")
    with count_reads(count_store / "X") as reads:
        dask.compute(*nd.coex(expression, covariates, plan=plan), scheduler="synchronous")
    opened = {key: number for key, number in one_pass.data().items() if key.startswith("data/")}
    assert opened
    assert {key: reads.data()[key] for key in opened} == {
        key: number * (1 + len(plan.groups)) for key, number in opened.items()
    }


def plan_of(tiles_per_side: int, n_ranges: int) -> TilePlan:
    return TilePlan(90, 110, 20, tiles_per_side, n_ranges, task_bytes=0, seconds=0.0)


class TestFloat32:
    """Its loss, of which the documentation of coex speaks."""

    @pytest.mark.parametrize("route", ["dense", "counts"])
    def test_its_loss(self, counts, route):
        expression, covariates = from_counts(counts)
        values = expression if route == "counts" else expression.compute()
        exact, found = (dask.compute(nd.coex(values, covariates, dtype=dtype))[0] for dtype in (np.float64, "float32"))
        assert found.pvalue.dtype == found.dot.dtype == np.float64
        scale = np.sqrt(np.outer(exact.var, exact.var))
        assert np.abs(found.dot / scale - exact.dot / scale).max() < 1e-6
        small = exact.log10_pvalue < -1
        assert small.sum() > 100
        assert np.abs(found.log10_pvalue[small] / exact.log10_pvalue[small] - 1).max() < 1e-5
        assert np.abs(found.pvalue - exact.pvalue).max() < 1e-5
        assert np.abs(found.pvalue - exact.pvalue).max() > 0

    def test_other_types_are_refused(self):
        with pytest.raises(ValueError, match="dtype"):
            nd.coex(EXPRESSION, COVARIATES, dtype=np.int64)


def test_log10_p_values_do_not_underflow():
    found = computed(np.vstack([EXPRESSION, EXPRESSION[2] + 1e-9 * RANDOM.normal(size=N_CELLS)]))
    assert found.log10_pvalue[2, -1] < -200
    np.testing.assert_array_equal(np.diag(found.log10_pvalue), 0)
    np.testing.assert_array_equal(found.log10_pvalue, found.log10_pvalue.T)
    others = ~np.eye(12, dtype=bool) & (found.pvalue > 1e-300)
    np.testing.assert_allclose(found.log10_pvalue[others], np.log10(found.pvalue[others]), rtol=1e-12, atol=1e-12)


def test_two_genes_and_one():
    whole = computed()
    np.testing.assert_array_equal(computed(EXPRESSION[:1]).pvalue, [[0]])
    pair = computed(EXPRESSION[:2])
    assert_close(pair.pvalue, whole.pvalue[:2, :2], 1e-12)


@pytest.mark.parametrize("side", [0, 7])
def test_stored_expression_is_read_by_the_tasks_and_gives_the_same(tmp_path, side):
    random = np.random.default_rng(3)
    values, covariates = random.normal(size=(40, 300)), np.vstack([np.ones(300), random.normal(size=300)])
    array = zarr.create_array(tmp_path / "expression.zarr", data=values, chunks=(16, 30))
    stored, in_memory = (
        nd.coex(by_columns(array, tmp_path / "expression.zarr"), covariates, bs=side),
        nd.coex(values, covariates),
    )
    assert_close(stored.dot, in_memory.dot.compute(), 1e-12)
    assert_close(stored.log10_pvalue, in_memory.log10_pvalue.compute(), 1e-9)


@pytest.mark.parametrize("n_cells", [12, 3000])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_genes_that_covariates_determine_pair_with_none(offset, n_cells):
    random = np.random.default_rng(n_cells)
    covariates = np.vstack([random.normal(size=(2, n_cells)) + offset, np.ones(n_cells)])
    covariates = np.vstack([covariates, 2 * covariates[0] - 3 * covariates[2]])
    ones = np.ones(n_cells)
    nothing = [0 * ones, 3.7 * ones, (1e8 + 0.3) * ones, 2.5 * covariates[1] - 0.7]
    found = computed(np.vstack([*nothing, random.normal(size=(4, n_cells))]), covariates)
    of_pairs = ~np.eye(8, dtype=bool)[:4]
    np.testing.assert_array_equal(found.pvalue[:4][of_pairs], 1)
    np.testing.assert_array_equal(found.dot[:4], 0)
    np.testing.assert_array_equal(found.var[:4], 0)
    assert (found.pvalue[4:, 4:][~np.eye(4, dtype=bool)] < 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dt": np.empty((0, 9))}, "expected genes in dt to make pairs of, found none"),
        ({"bs": -2}, "bs must be at least 0, not -2"),
        ({"dimreduce": -1}, "dimreduce must be 0 or more, not -1"),
    ],
)
@pytest.mark.parametrize("step", [nd.coex, lambda dt, dc, **options: nd.network(dt, dc, 0.1, **options)])
def test_what_makes_no_pairs(step, change, message):
    arguments = {"dt": np.eye(9), "dc": np.ones((1, 9))} | change
    with pytest.raises(ValueError, match=message):
        step(**arguments)
