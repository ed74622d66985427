"""Q-values over all stored tests: the same as of all in memory, however few are held at a time."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from scipy.stats import false_discovery_control

from normalisr_dask.storage import q_values
from normalisr_dask.storage.q_values import write_q_values_of_all


def stored(folder: Path, values: np.ndarray, rows: int) -> tuple[zarr.Array, zarr.Array]:
    group = zarr.create_group(folder)
    made = [
        group.create_array(name, shape=values.shape, dtype="float64", chunks=(rows, values.shape[1]))
        for name in ("pvalue", "qvalue_all")
    ]
    made[0][...] = values
    return made[0], made[1]


def some_p_values(n_rows: int, n_columns: int) -> np.ndarray:
    """Nulls, strong signals, ties, underflow, ones and missing ones."""
    random = np.random.default_rng(4)
    values = random.random((n_rows, n_columns))
    values[random.random(values.shape) < 0.2] **= 12
    values[random.random(values.shape) < 0.1] = 0.25
    values[random.random(values.shape) < 0.05] = 1.0
    values[random.random(values.shape) < 0.05] = np.nan
    values[0, :3] = 0.0
    return values


@pytest.mark.parametrize("sorted_tests", [1, 7, 500, 10**6])
@pytest.mark.parametrize("block_tests", [1, 400, 10**6])
def test_any_number_at_a_time_gives_the_same(tmp_path, monkeypatch, sorted_tests, block_tests):
    monkeypatch.setattr(q_values, "BLOCK_TESTS", block_tests)
    monkeypatch.setattr(q_values, "N_STEPS", 16)
    values = some_p_values(11, 97)
    p_values, out = stored(tmp_path / "store", values, 3)
    write_q_values_of_all(p_values, out, sorted_tests=sorted_tests)
    expected = np.full(values.shape, np.nan)
    is_test = ~np.isnan(values)
    expected[is_test] = false_discovery_control(values[is_test])
    np.testing.assert_allclose(out[...], expected, rtol=1e-14)


@pytest.mark.parametrize("value", [np.nan, 1.0, 0.0, 0.3])
def test_one_value_in_all_tests(tmp_path, value):
    p_values, out = stored(tmp_path / "store", np.full((4, 5), value), 2)
    write_q_values_of_all(p_values, out)
    np.testing.assert_array_equal(out[...], np.full((4, 5), value))
