"""However an input is laid out and whoever computes it, the result is that of one NumPy block, within 1e-10."""

from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import pytest
from comparing import assert_close
from dask.base import DaskMethodsMixin
from distributed import Client
from hypothesis import given
from hypothesis import strategies as st
from layouts import DENSE_KINDS, EXPENSIVE, SPARSE_KINDS, Chunks, laid_out, partitions

import normalisr_dask as nd

TOLERANCE = 1e-10
N_GENES, N_CELLS = 90, 110  # of the fixture counts

kinds = st.sampled_from(DENSE_KINDS + SPARSE_KINDS)
dense_kinds = st.sampled_from(DENSE_KINDS)
schedulers = st.sampled_from(["synchronous", "threads"])
gene_chunks, cell_chunks = partitions(N_GENES), partitions(N_CELLS)
layouts = st.tuples(kinds, st.tuples(gene_chunks, cell_chunks))
dense_layouts = st.tuples(dense_kinds, st.tuples(gene_chunks, cell_chunks))
cell_layouts = st.tuples(dense_kinds, st.tuples(st.just(()), cell_chunks))
grouping_layouts = st.tuples(kinds, st.tuples(partitions(4), cell_chunks))


@dataclass(frozen=True)
class Inputs:
    """Input of every step, computed from one NumPy block."""

    counts: np.ndarray
    covariates: np.ndarray
    log_cpm: np.ndarray
    weights: np.ndarray
    scaling: np.ndarray
    expression: np.ndarray
    normalised_covariates: np.ndarray
    groupings: np.ndarray

    def __repr__(self) -> str:
        return "inputs"  # failures of hypothesis print their arguments


@pytest.fixture(scope="module")
def inputs(counts: np.ndarray) -> Inputs:
    log_cpm = nd.lcpm(counts)
    covariates = nd.normcov(log_cpm.cov)
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    scaling = nd.scaling_factor(counts)
    expression, normalised_covariates = nd.normvar(log_cpm.lcpm, covariates, weights, scaling)
    groupings = (np.random.default_rng(1).random((4, N_CELLS)) < 0.3).astype(np.int8)
    return Inputs(
        counts,
        *dask.compute(covariates, log_cpm.lcpm, weights, scaling, expression, normalised_covariates),
        groupings,
    )


def of_kind(values: np.ndarray, layout: tuple[str, Chunks]) -> Any:
    """Return the array as an input of the layout's kind; rows without chunks of their own come in one."""
    kind, (row_chunks, column_chunks) = layout
    return laid_out(values, kind, (row_chunks or (values.shape[0],), column_chunks))


def computed(result: Any, scheduler: str | None = None) -> dict[str, np.ndarray]:
    """Compute the fields of a step's result in one go."""
    fields = result._asdict() if hasattr(result, "_asdict") else {"": result}
    if not isinstance(result, tuple | DaskMethodsMixin) and not isinstance(result, np.ndarray):
        fields = vars(result)
    return dask.compute({name: field for name, field in fields.items() if field is not None}, scheduler=scheduler)[0]


def assert_same(found: Any, expected: Any, scheduler: str | None = None) -> None:
    """Assert that two results of a step are the same, field by field."""
    found, expected = computed(found, scheduler), computed(expected, "synchronous")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert_close(values, expected[name], TOLERANCE)


@EXPENSIVE
@given(layouts, schedulers)
def test_qc_reads(inputs, layout, scheduler):
    bounds = (150, 50, 0.5, 400, 60, 0.7)
    with dask.config.set(scheduler=scheduler):
        found = nd.qc_reads(of_kind(inputs.counts, layout), *bounds)
    expected = nd.qc_reads(inputs.counts, *bounds)
    assert all(0 < len(kept) < size for kept, size in zip(expected, inputs.counts.shape, strict=True))
    for positions, others in zip(found, expected, strict=True):
        np.testing.assert_array_equal(positions, others)


@EXPENSIVE
@given(layouts, schedulers, st.booleans())
def test_lcpm(inputs, layout, scheduler, normalize):
    found = nd.lcpm(of_kind(inputs.counts, layout), normalize)
    assert_same(found, nd.lcpm(inputs.counts, normalize), scheduler)


@EXPENSIVE
@given(layouts, schedulers)
def test_lcpm_drawn_from_the_posterior(inputs, layout, scheduler):
    found = nd.lcpm(of_kind(inputs.counts, layout), varscale=0.5, seed=3)
    assert_same(found, nd.lcpm(inputs.counts, varscale=0.5, seed=3), scheduler)


@EXPENSIVE
@given(layouts, schedulers, st.sampled_from(["nt0mean", "logtpropmean", "logtmeanprop", "log1-nt0mean"]))
def test_scaling_factor(inputs, layout, scheduler, varname):
    found = nd.scaling_factor(of_kind(inputs.counts, layout), varname, "min")
    assert_same(found, nd.scaling_factor(inputs.counts, varname, "min"), scheduler)


@EXPENSIVE
@given(st.tuples(dense_kinds, st.tuples(partitions(3), cell_chunks)), schedulers)
def test_normcov(inputs, layout, scheduler):
    covariates = np.vstack([inputs.covariates[:2] * 7 + 3, inputs.groupings[:1]])
    assert_same(nd.normcov(of_kind(covariates, layout)), nd.normcov(covariates), scheduler)


@EXPENSIVE
@given(layouts, cell_layouts, schedulers, st.sampled_from([1, 2]))
def test_compute_var_from_counts(inputs, layout, covariate_layout, scheduler, stepmax):
    """Sparse chunks take the implicit route, others the dense one."""
    with dask.config.set(scheduler=scheduler):
        log_cpm = nd.lcpm(of_kind(inputs.counts, layout)).lcpm
        found = nd.compute_var(log_cpm, of_kind(inputs.covariates, covariate_layout), stepmax)
        assert_same(found, nd.compute_var(inputs.log_cpm, inputs.covariates, stepmax), scheduler)


@EXPENSIVE
@given(dense_layouts, cell_layouts, schedulers)
def test_compute_var_from_dense_expression(inputs, layout, covariate_layout, scheduler):
    found = nd.compute_var(of_kind(inputs.log_cpm, layout), of_kind(inputs.covariates, covariate_layout))
    assert_same(found, inputs.weights, scheduler)


@EXPENSIVE
@given(layouts, cell_layouts, schedulers, st.sampled_from([0, 1, 2]), st.booleans(), st.booleans())
def test_normvar_from_counts(inputs, layout, covariate_layout, scheduler, cat, keepvar, normmean):
    options = {"dextra": inputs.groupings, "cat": cat, "keepvar": keepvar, "normmean": normmean}
    arguments = (inputs.weights, inputs.scaling)
    log_cpm = nd.lcpm(of_kind(inputs.counts, layout)).lcpm
    found = nd.normvar(log_cpm, of_kind(inputs.covariates, covariate_layout), *arguments, **options)
    assert_same(found, nd.normvar(inputs.log_cpm, inputs.covariates, *arguments, **options), scheduler)


@EXPENSIVE
@given(dense_layouts, cell_layouts, schedulers)
def test_normvar_from_dense_expression(inputs, layout, covariate_layout, scheduler):
    arguments = (inputs.weights, inputs.scaling)
    found = nd.normvar(of_kind(inputs.log_cpm, layout), of_kind(inputs.covariates, covariate_layout), *arguments)
    assert_same(found, nd.normvar(inputs.log_cpm, inputs.covariates, *arguments), scheduler)


@EXPENSIVE
@given(layouts, grouping_layouts, cell_layouts, schedulers, st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 4]))
def test_de_from_counts(inputs, layout, grouping_layout, covariate_layout, scheduler, bs, single):
    log_cpm = nd.lcpm(of_kind(inputs.counts, layout)).lcpm
    expression = nd.normvar(log_cpm, inputs.covariates, inputs.weights, inputs.scaling).dtn
    found = nd.de(
        of_kind(inputs.groupings, grouping_layout),
        expression,
        of_kind(inputs.normalised_covariates, covariate_layout),
        bs,
        single=single,
        lowmem=False,
    )
    expected = nd.de(inputs.groupings, inputs.expression, inputs.normalised_covariates, single=single, lowmem=False)
    assert_same(found, expected, scheduler)


@EXPENSIVE
@given(dense_layouts, grouping_layouts, cell_layouts, schedulers, st.sampled_from([0, 1, 4]))
def test_de_from_dense_expression(inputs, layout, grouping_layout, covariate_layout, scheduler, single):
    found = nd.de(
        of_kind(inputs.groupings, grouping_layout),
        of_kind(inputs.expression, layout),
        of_kind(inputs.normalised_covariates, covariate_layout),
        single=single,
        lowmem=False,
    )
    expected = nd.de(inputs.groupings, inputs.expression, inputs.normalised_covariates, single=single, lowmem=False)
    assert_same(found, expected, scheduler)


@EXPENSIVE
@given(dense_layouts, cell_layouts, schedulers, st.sampled_from([0, 1, 30, 200]))
def test_coex(inputs, layout, covariate_layout, scheduler, bs):
    bs = max(bs, 9)  # fewer genes a tile than these make graphs for the patient
    expression = of_kind(inputs.expression, layout)
    found = nd.coex(expression, of_kind(inputs.normalised_covariates, covariate_layout), bs=bs)
    assert_same(found, nd.coex(inputs.expression, inputs.normalised_covariates), scheduler)


@EXPENSIVE
@given(dense_layouts, cell_layouts, schedulers, st.sampled_from([0, 30]))
def test_networks(inputs, layout, covariate_layout, scheduler, bs):
    covariates = of_kind(inputs.normalised_covariates, covariate_layout)
    found = nd.network(of_kind(inputs.expression, layout), covariates, 0.3, bs)
    expected = nd.binnet(nd.coex(inputs.expression, inputs.normalised_covariates).pvalue, 0.3).sum(axis=1)
    np.testing.assert_array_equal(found.degree.compute(scheduler=scheduler), expected.compute(scheduler=scheduler))


def pipeline(counts: Any, inputs: Inputs) -> dict[str, np.ndarray]:
    """Compute all steps from counts to tests, with whatever scheduler is the default."""
    log_cpm = nd.lcpm(counts, varscale=0)
    drawn = nd.lcpm(counts, varscale=1, seed=5).lcpm
    scaling = nd.scaling_factor(counts)
    weights = nd.compute_var(log_cpm.lcpm, inputs.covariates)
    expression, covariates = nd.normvar(log_cpm.lcpm, inputs.covariates, weights, scaling)
    differential = nd.de(inputs.groupings, expression, covariates, lowmem=False)
    return dask.compute(
        {
            **{f"lcpm {name}": array for name, array in log_cpm._asdict().items()},
            "drawn": drawn,
            "scaling": scaling,
            "weights": weights,
            "expression": expression,
            "covariates": covariates,
            **{f"de {name}": array for name, array in vars(differential).items()},
            **{f"coex {name}": array for name, array in vars(nd.coex(expression, covariates, bs=40)).items()},
        }
    )[0]


@pytest.mark.parametrize("kind", ["dask", "csc_array", "csr_array"])
def test_the_same_bits_for_every_scheduler_and_number_of_workers(inputs: Inputs, kind: str, client: Client):
    counts = laid_out(inputs.counts, kind, ((50, 40), (13, 1, 41, 30, 25)))
    with dask.config.set(scheduler="synchronous"):
        expected = pipeline(counts, inputs)
    configurations: list[dict[str, Any]] = [{"scheduler": "threads", "num_workers": n} for n in (1, 2, 4)]
    configurations.append({"scheduler": client})
    for configuration in configurations:
        with dask.config.set(**configuration):
            found = pipeline(counts, inputs)
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values, err_msg=f"{name}, {configuration}")


def test_the_same_on_a_cluster_from_a_store(inputs: Inputs, count_store, client: Client):
    """The workers open the store themselves; counts of 32 cells a block."""
    found = pipeline(nd.open_counts(count_store, cells_per_block=32).matrix, inputs)
    with dask.config.set(scheduler="synchronous"):
        expected = pipeline(inputs.counts, inputs)
    for name, values in expected.items():
        assert_close(found[name], values, TOLERANCE)


def test_groupings_that_are_dense_in_some_blocks_and_empty_in_others(inputs):
    """Each block may be multiplied in its own way."""
    groupings = inputs.groupings.copy()
    groupings[:, 60:] = 0
    expected = nd.de(groupings, inputs.expression, inputs.normalised_covariates)
    chunks = ((N_GENES,), (60, 1, 49))
    assert_same(nd.de(groupings, laid_out(inputs.expression, "dask", chunks), inputs.normalised_covariates), expected)


@pytest.mark.parametrize("kind", ["dask", "csc_array"])
def test_blocks_without_a_cell_of_any_test(inputs, kind):
    """All cells of a block may be in several groupings, and so in no test of single=1."""
    groupings = inputs.groupings.copy()
    groupings[:, :20] = 1
    chunks = ((N_GENES,), (20, 1, 89))
    values = inputs.counts if kind == "csc_array" else inputs.expression

    def tested(matrix):
        if kind == "csc_array":
            matrix = nd.normvar(nd.lcpm(matrix).lcpm, inputs.covariates, inputs.weights, inputs.scaling).dtn
        return nd.de(groupings, matrix, inputs.normalised_covariates, single=1)

    assert_same(tested(laid_out(values, kind, chunks)), tested(values))
