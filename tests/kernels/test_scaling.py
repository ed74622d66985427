"""Scaling between two values."""

import numpy as np
import pytest

from normalisr_dask.kernels.scaling import scale_between

SUMS = np.array([[4.0, 3, 0.5], [10.0, 5, 1.5], [6.0, 1, 2.0]])  # of three genes over ten cells


@pytest.mark.parametrize(
    ("varname", "values"),
    [
        ("nt0mean", [0.7, 0.5, 0.9]),
        ("lognt0mean", np.log([0.7, 0.5, 0.9])),
        ("log1-nt0mean", np.log([0.3, 0.5, 0.1])),
        ("logtpropmean", np.log([0.2, 0.5, 0.3])),
        ("logtmeanprop", np.log([0.05, 0.15, 0.2])),
    ],
)
def test_each_variable(varname, values):
    found = scale_between(SUMS, varname=varname, bounds=(0.0, 1.0), n_cells=10)
    np.testing.assert_allclose(found, values, rtol=1e-14)
    found = scale_between(SUMS, varname=varname, bounds=("min", "max"), n_cells=10)
    np.testing.assert_allclose(found, (values - np.min(values)) / np.ptp(values), rtol=1e-13)


def test_no_genes():
    assert scale_between(np.empty((0, 3)), varname="nt0mean", bounds=(0.0, "max"), n_cells=10).shape == (0,)
