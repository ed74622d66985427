"""Sums of counts, and what is no count."""

import numpy as np
import pytest
import scipy.sparse

from normalisr_dask.kernels.counts import cell_sums, check_counts, gene_sums

COUNTS = np.array([[0, 2, 0, 1], [5, 0, 0, 1], [1, 1, 1, 0]])


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csc_array, scipy.sparse.csr_array])
def test_sums_over_what_is_kept(container):
    block = container(COUNTS)
    kept = np.array([True, False, True, True])
    np.testing.assert_array_equal(gene_sums(block, cells_kept=kept)[:, :2], [[1, 1], [6, 2], [2, 2]])
    np.testing.assert_allclose(gene_sums(block, cell_totals=np.array([6.0, 3, 1, 2]))[:, 2], [7 / 6, 8 / 6, 9 / 6])
    np.testing.assert_array_equal(cell_sums(block, genes_kept=kept[:3]), [[1, 3, 1, 1], [1, 2, 1, 1]])


def test_stored_zeros_do_not_count():
    block = scipy.sparse.csc_array((np.array([3, 0, 0]), np.array([0, 1, 0]), np.array([0, 2, 3])), shape=(2, 2))
    np.testing.assert_array_equal(gene_sums(block)[:, 1], [1, 0])
    np.testing.assert_array_equal(cell_sums(block)[1], [1, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int64, np.float32, bool])
def test_sums_do_not_overflow_the_type_of_the_counts(dtype):
    block = np.ones((2, 300), dtype=dtype) * dtype(1)
    np.testing.assert_array_equal(gene_sums(block)[:, 0], [300, 300])
    np.testing.assert_array_equal(gene_sums(scipy.sparse.csc_array(block))[:, 0], [300, 300])


@pytest.mark.parametrize("value", [-1, 0.25, np.nan, np.inf])
@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csc_array, scipy.sparse.csr_array])
def test_the_first_value_that_is_no_count_is_named_with_its_place(container, value):
    values = COUNTS.astype(float)
    values[1, 3] = value
    shown = {-1: r"-1\.0", 0.25: r"0\.25"}.get(value, str(value))
    with pytest.raises(ValueError, match=rf"found {shown} for gene 1, cell 3 \(counted from 0\)"):
        check_counts(container(values))
    with pytest.raises(ValueError, match=rf"found {shown} for gene 11, cell 23 \(counted from 0\)"):
        check_counts(container(values), np.arange(20, 24), np.arange(10, 13))


def test_counts_pass_as_they_are():
    for block in (COUNTS, COUNTS.astype(np.uint16), COUNTS.astype(float), scipy.sparse.csc_array(COUNTS)):
        assert check_counts(block) is block
