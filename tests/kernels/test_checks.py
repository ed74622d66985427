"""Checks of small arrays inside tasks."""

import numpy as np
import pytest

from normalisr_dask.kernels import checks


def kinds(rows: np.ndarray, n_blocks: int = 1) -> np.ndarray:
    """Return what is known of the rows, added over blocks of cells."""
    parts = np.array_split(rows, n_blocks, axis=1)
    return sum(checks.row_kinds(part, first=rows[:, 0]) for part in parts)


def checked(rows: np.ndarray) -> np.ndarray:
    mean = rows.mean(axis=1)
    squares = ((rows - mean[:, None]) ** 2).sum(axis=1, keepdims=True)
    return checks.covariate_kinds(kinds(rows), rows[:, 0], mean, squares, n_cells=rows.shape[1])


def test_kinds_add_up_over_blocks():
    rows = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 1, 1], [0.5, 0, 1, 2, 0.5]])
    np.testing.assert_array_equal(kinds(rows), [[0, 2, 0, 3], [0, 0, 0, 0], [3, 4, 0, 3]])
    for n_blocks in (2, 3, 5):
        np.testing.assert_array_equal(kinds(rows, n_blocks), kinds(rows))


def test_continuous_rows_are_told_from_categories():
    rows = np.array([[0, 1, 1, 0.0], [1, 2, 3, 4.0]])
    found = checked(rows)
    np.testing.assert_array_equal(found[:, 0], [0, 1])
    np.testing.assert_allclose(found[1, 1:], [2.5, rows[1].std()])


def test_constant_rows():
    for value in (0.0, 1.0, -3.5):
        with pytest.raises(ValueError, match=rf"row 1 \(counted from 0\) constant at {value:g}"):
            checked(np.array([[0, 1, 2.0], [value] * 3]))


def test_nearly_constant_rows():
    with pytest.warns(RuntimeWarning, match=r"row 0 \(counted from 0\) is nearly constant"):
        checked(np.array([[1e8, 1e8 + 1, 1e8 + 2]]))


def test_vectors_pass_as_they_are_or_name_the_first_offender():
    assert checks.positive_weights(np.array([1.0, 2.0])).tolist() == [1, 2]
    assert checks.non_negative_scaling(np.array([0.0, 2.0])).tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"found 0\.0 for cell 1"):
        checks.positive_weights(np.array([1.0, 0.0, -1.0]))
    with pytest.raises(ValueError, match=r"found -2\.0 for gene 2"):
        checks.non_negative_scaling(np.array([1.0, 0.0, -2.0]))
