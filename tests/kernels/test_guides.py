"""Guides that pass in blocks of UMI counts, against one comparison at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csc_array

from normalisr_dask.kernels.guides import n_passing_guides, passing_guides, single_guides

COUNTS = st.integers(0, 6).flatmap(
    lambda n_cells: arrays(np.int64, (5, n_cells), elements=st.sampled_from([0, 0, 1, 2, 3, 10]))
)


def expected(counts: np.ndarray, threshold: int, min_fraction: float) -> np.ndarray:
    passed = np.zeros(counts.shape, dtype=np.uint8)
    for cell in range(counts.shape[1]):
        total = counts[:, cell].sum()
        for guide in range(counts.shape[0]):
            count = counts[guide, cell]
            passed[guide, cell] = count >= threshold and count >= min_fraction * total
    return passed


@given(COUNTS, st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.5, 1.0]))
def test_a_guide_passes_by_its_umis_and_its_share_of_them(counts, threshold, min_fraction):
    block = csc_array(counts)
    for part in (block.data, block.indices, block.indptr):
        part.flags.writeable = False
    passed = passing_guides(block, threshold=threshold, min_fraction=min_fraction)
    wanted = expected(counts, threshold, min_fraction)
    np.testing.assert_array_equal(passed.toarray(), wanted)
    np.testing.assert_array_equal(n_passing_guides(passed), wanted.sum(axis=0))
    single = single_guides(passed)
    np.testing.assert_array_equal(single.toarray(), np.where(wanted.sum(axis=0) == 1, wanted, 0))
    assert passed.dtype == single.dtype == np.uint8


def test_dense_blocks_do_as_well():
    counts = np.array([[9.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(passing_guides(counts, threshold=3, min_fraction=0.0).toarray(), [[1, 0], [0, 1]])


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan])
def test_what_is_no_count_is_refused(value):
    with pytest.raises(ValueError, match=r"expected counts .* for gene 1, cell 0"):
        passing_guides(csc_array([[1.0, 2.0], [value, 1.0]]), threshold=1, min_fraction=0.0)
