"""Inflation and QQ points of arrays of every kind and chunking."""

import dask.array as da
import numpy as np
import pytest
import zarr
from scipy.stats import chi2

import normalisr_dask as nd

P_VALUES = np.random.default_rng(9).random((31, 170))


def test_every_input_and_chunking_gives_the_same_bits(tmp_path):
    stored = zarr.create_array(tmp_path / "p.zarr", data=P_VALUES, chunks=(7, 170))
    inputs = [P_VALUES, P_VALUES.ravel(), da.from_array(P_VALUES, chunks=(3, 11)), stored]
    found = {float(nd.inflation(values).compute()) for values in inputs}
    assert len(found) == 1
    assert found.pop() == pytest.approx(np.median(chi2.isf(P_VALUES, 1)) / chi2.ppf(0.5, 1), rel=1e-4)
    points = [np.stack(da.compute(*nd.qq(values, n_points=50))) for values in inputs]
    for other in points[1:]:
        np.testing.assert_array_equal(other, points[0])
    assert np.nanmax(points[0][1]) == pytest.approx(-np.log10(P_VALUES.min()), rel=1e-4)
    assert points[0].shape == (2, 50)


def test_log10_p_values_give_the_same():
    log10_p = np.log10(P_VALUES)
    assert nd.inflation(log10_p, log10=True).compute() == nd.inflation(P_VALUES).compute()
    np.testing.assert_array_equal(nd.qq(log10_p, log10=True).observed, nd.qq(P_VALUES).observed)


def test_rows_can_be_chosen():
    p_values = da.from_array(P_VALUES, chunks=(4, 50))
    is_control = np.arange(31) % 3 == 0
    assert nd.inflation(p_values[is_control]).compute() == nd.inflation(P_VALUES[is_control]).compute()


def test_no_tests_at_all():
    assert np.isnan(nd.inflation(np.empty((0, 5))).compute())
    assert np.isnan(nd.qq(np.full((2, 2), np.nan), n_points=3).observed.compute()).all()


def test_bad_input():
    with pytest.raises(ValueError, match="n_points must be at least 2, not 1"):
        nd.qq(P_VALUES, n_points=1)
    lazy = nd.inflation(P_VALUES + 1)
    with pytest.raises(ValueError, match="expected P-values between 0 and 1"):
        lazy.compute()
