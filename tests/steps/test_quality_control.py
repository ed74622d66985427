"""Quality control: as normalisr on anything random, and with bad input."""

import re

import dask.array as da
import numpy as np
import oracles
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from layouts import EXPENSIVE

import normalisr_dask as nd
from normalisr_dask.steps.quality_control import choose_by_counts, count_sums

small_counts = arrays(
    np.int64, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 0, 1, 2, 7])
)
number = st.integers(0, 6)
share = st.sampled_from([0, 0.1, 0.25, 0.3, 0.5, 2 / 3, 1])


@EXPENSIVE
@given(small_counts, st.tuples(number, number, share, number, number, share))
def test_qc_reads_keeps_what_normalisr_keeps(reads, bounds):
    try:
        expected = oracles.qc_reads(reads, *bounds)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"expected some (genes|cells) to pass quality control, found none"):
            nd.qc_reads(reads, *bounds)
        return
    for layout in (reads, scipy.sparse.csr_array(reads)):
        for found, kept in zip(nd.qc_reads(layout, *bounds), expected, strict=True):
            assert found.dtype == np.int64
            np.testing.assert_array_equal(found, kept)


def test_genes_and_cells_are_judged_together_until_nothing_changes():
    """Each cell that goes takes a gene along, which takes the next cell along."""
    reads = np.eye(6, dtype=int) + np.eye(6, k=1, dtype=int)
    genes, cells = nd.qc_reads(np.vstack([reads, [9] * 6]), 2, 2, 0, 2, 2, 0)
    np.testing.assert_array_equal(genes, [0, 1, 2, 3, 4, 6])
    np.testing.assert_array_equal(cells, [0, 1, 2, 3, 4, 5])


def test_bounds_of_zero_keep_everything():
    genes, cells = nd.qc_reads(np.zeros((3, 4), dtype=int), 0, 0, 0, 0, 0, 0)
    np.testing.assert_array_equal(genes, range(3))
    np.testing.assert_array_equal(cells, range(4))


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((-1, 0, 0, 0, 0, 0), ValueError, "n_gene must be 0 or more, not -1"),
        ((0, -1, 0, 0, 0, 0), ValueError, "nc_gene must be 0 or more, not -1"),
        ((0, 0, 1.5, 0, 0, 0), ValueError, "ncp_gene must lie between 0 and 1, not 1.5"),
        ((0, 0, 0, np.nan, 0, 0), ValueError, "n_cell must be 0 or more, not nan"),
        ((0, 0, 0, 0, "5", 0), TypeError, "nt_cell must be a number, not '5'"),
        ((0, 0, 0, 0, 0, -0.1), ValueError, "ntp_cell must lie between 0 and 1, not -0.1"),
        ((0, 9, 0, 0, 0, 0), ValueError, "expected some genes to pass quality control, found none of 3; lower"),
        ((0, 0, 0, 99, 0, 0), ValueError, "expected some cells to pass quality control, found none of 4; lower"),
    ],
)
def test_bounds_that_make_no_sense_or_leave_nothing(bounds, error, message):
    with pytest.raises(error, match=re.escape(message)):
        nd.qc_reads(np.ones((3, 4), dtype=int), *bounds)


@pytest.mark.parametrize("shape", [(0, 4), (3, 0)])
def test_nothing_to_choose_from(shape):
    with pytest.raises(ValueError, match="found none of 0"):
        nd.qc_reads(np.ones(shape, dtype=int), 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("value", [-1, 0.5, np.nan])
@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csc_array])
def test_values_that_are_no_counts(value, container):
    reads = np.ones((3, 4))
    reads[1, 2] = value
    with pytest.raises(ValueError, match=f"expected counts.*found {re.escape(str(value))}"):
        nd.qc_reads(container(reads), 0, 0, 0, 1, 0, 0)


SKEWED = np.exp(np.random.default_rng(0).normal(size=400))


class TestOutliers:
    @EXPENSIVE
    @given(
        st.integers(0, 2**32), st.integers(40, 300), st.sampled_from([1e-10, 1e-4, 0.05]), st.sampled_from([0.02, 0.1])
    )
    def test_it_keeps_what_normalisr_keeps(self, seed, n_cells, pcut, outrate):
        random = np.random.default_rng(seed)
        weights = random.gamma(random.uniform(2, 60), size=n_cells) + 1e-3
        weights[: n_cells // 40] *= random.uniform(1, 10)
        try:
            expected = oracles.qc_outlier(weights, pcut, outrate)
        except RuntimeError:
            with pytest.raises(ValueError, match="of the cells as variance outliers, found"):
                nd.qc_outlier(weights, pcut, outrate)
            return
        np.testing.assert_array_equal(nd.qc_outlier(weights, pcut, outrate), expected)

    def test_lazy_weights(self):
        weights = np.append(np.random.default_rng(0).normal(2, 0.1, size=200), 9.0)
        found = nd.qc_outlier(da.from_array(weights, chunks=50))
        assert found.dtype == bool
        np.testing.assert_array_equal(np.flatnonzero(~found), [200])

    def test_weights_that_are_all_alike_have_no_outliers(self):
        assert nd.qc_outlier(np.full(100, 1.5)).all()

    @pytest.mark.parametrize(
        ("weights", "options", "message"),
        [
            (np.ones(100), {"pcut": 0}, "pcut"),
            (np.ones(100), {"pcut": 1}, "pcut"),
            (np.ones(100), {"outrate": 0}, "outrate"),
            (np.ones(100), {"outrate": 0.5}, "outrate"),
            (np.array([1.0, 2, 0, 3]), {}, "expected positive weights, found 0.0 for cell 2 (counted from 0)"),
            (np.array([1.0, np.nan]), {}, "expected positive weights, found nan for cell 1 (counted from 0)"),
            (np.ones((2, 3)), {}, "expected weights as one number a cell, found shape (2, 3)"),
            (np.ones(0), {}, "expected weights as one number a cell, found shape (0,)"),
            (np.ones(1), {}, "expected cells enough to leave out a share of 0.02 on either side, found 1"),
            (
                SKEWED,
                {"pcut": 0.5},
                "expected at most 0.04 of the cells as variance outliers, found 0.06; raise outrate",
            ),
        ],
    )
    def test_bad_input(self, weights, options, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            nd.qc_outlier(weights, **options)


@EXPENSIVE
@given(small_counts, st.tuples(number, number, share, number, number, share), st.integers(1, 4))
def test_the_sums_of_the_last_round_are_those_of_what_is_kept(reads, bounds, cells_per_chunk):
    counts = da.from_array(reads, chunks=(-1, cells_per_chunk))
    try:
        chosen = choose_by_counts(counts, *bounds)
    except ValueError:
        return  # nothing passes
    by_gene, by_cell = count_sums(counts, chosen.gene_kept, chosen.cell_kept)
    np.testing.assert_array_equal(chosen.gene_sums, by_gene)
    np.testing.assert_array_equal(chosen.cell_sums, by_cell)
