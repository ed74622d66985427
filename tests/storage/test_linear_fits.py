"""Fits of linear models as they lie in output folders."""

import numpy as np
import pandas as pd
import pytest

from normalisr_dask.storage.linear_fits import read_linear_fit, write_linear_fit

FIT = {"coefficients": np.zeros((5, 2)), "genes": ["a", "b", "c", "d", "e"], "df_residual": 3.0}


def test_what_is_written_is_read(tmp_path):
    write_linear_fit(tmp_path, FIT, pd.DataFrame({"gene": ["a"]}))
    read = read_linear_fit(tmp_path)
    np.testing.assert_array_equal(read["coefficients"], FIT["coefficients"])
    assert read["genes"].tolist() == FIT["genes"]
    assert read["df_residual"] == 3.0


def test_a_fit_that_lost_a_chunk_is_not_read_as_zeros(tmp_path):
    write_linear_fit(tmp_path, FIT, pd.DataFrame({"gene": ["a"]}))
    (tmp_path / "fit.zarr" / "coefficients" / "c" / "0" / "0").unlink()
    with pytest.raises(ValueError, match=r"fit\.zarr is damaged or incompletely copied: coefficients/c/0/0 is missing"):
        read_linear_fit(tmp_path)
