"""Guides of cells: every kind of input and every chunking gives the same, and nothing is computed before asked for."""

import dask.array as da
import numpy as np
import pytest
from scipy import sparse

import normalisr_dask as nd

rng = np.random.default_rng(3)
UMIS = rng.poisson(0.3, (12, 60)) + np.where(rng.random((12, 60)) < 0.08, rng.poisson(20, (12, 60)), 0)


def by_hand(threshold: int, min_fraction: float, *, low: bool) -> np.ndarray:
    passed = (threshold <= UMIS) & (min_fraction * UMIS.sum(axis=0) <= UMIS)
    return passed & (passed.sum(axis=0) == 1) if low else passed


@pytest.mark.parametrize("moi", ["low", "high"])
@pytest.mark.parametrize(
    "counts",
    [
        UMIS,
        sparse.csr_array(UMIS),
        da.from_array(UMIS, chunks=(5, 7)),
        da.from_array(UMIS, chunks=(-1, (20, 0, 39, 1))).map_blocks(sparse.csc_array),
    ],
    ids=["numpy", "sparse", "dask", "dask sparse"],
)
def test_every_input_gives_the_same(counts, moi):
    assigned = nd.assign_guides(counts, moi=moi)
    wanted = by_hand(5, 0.2 if moi == "low" else 0.0, low=moi == "low")
    np.testing.assert_array_equal(assigned.groupings.compute().toarray(), wanted)
    np.testing.assert_array_equal(
        assigned.n_guides.compute(), by_hand(5, 0.2 if moi == "low" else 0.0, low=False).sum(axis=0)
    )
    assert assigned.groupings.dtype == np.uint8


def test_cells_with_several_guides_are_in_no_grouping_at_low_moi():
    assigned = nd.assign_guides(UMIS, threshold=4, min_fraction=0.1)
    n_guides, groupings = assigned.n_guides.compute(), assigned.groupings.compute()
    assert (n_guides > 1).any()
    assert not groupings[:, n_guides != 1].nnz
    np.testing.assert_array_equal(np.diff(groupings.indptr), n_guides == 1)


def test_groupings_can_be_tested():
    expression = rng.normal(size=(4, 60))
    groupings = nd.assign_guides(UMIS, moi="high").groupings
    found = nd.de(groupings, expression, np.ones((1, 60))).pvalue.compute()
    wanted = nd.de(by_hand(5, 0.0, low=False).astype(float), expression, np.ones((1, 60))).pvalue.compute()
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"threshold": 0}, ValueError, "threshold must be at least 1, not 0"),
        ({"threshold": 2.5}, TypeError, r"threshold must be a whole number, not 2\.5"),
        ({"min_fraction": 1.1}, ValueError, r"min_fraction must lie between 0 and 1, not 1\.1"),
        ({"moi": "medium"}, ValueError, "moi 'medium' is not one of 'low', 'high'"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=message):
        nd.assign_guides(UMIS, **options)


def test_what_is_no_count_is_refused_when_computed():
    assigned = nd.assign_guides(UMIS + 0.5)
    with pytest.raises(ValueError, match="expected counts"):
        assigned.n_guides.compute()
