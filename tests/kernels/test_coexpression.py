"""Residuals on one scale, and sums of their products that do not depend on the order."""

import numpy as np
import pytest

from normalisr_dask.kernels import coexpression

RANDOM = np.random.default_rng(0)


def unit_rows(n_genes: int, n_cells: int) -> np.ndarray:
    rows = RANDOM.normal(size=(n_genes, n_cells))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_sums_do_not_depend_on_the_order(dtype):
    left, right = unit_rows(7, 400).astype(dtype), unit_rows(5, 400).astype(dtype)
    parts = [slice(start, start + 25) for start in range(0, 400, 25)]
    totals = []
    for order in (parts, parts[::-1], [parts[position] for position in RANDOM.permutation(16)]):
        halves = [np.zeros((7, 5)), np.zeros((7, 5))]
        for number, part in enumerate(order):
            coexpression.add_product(halves[number % 2], left[:, part], right[:, part])
        totals.append(halves[0] + halves[1])
    np.testing.assert_array_equal(totals[1], totals[0])
    np.testing.assert_array_equal(totals[2], totals[0])
    np.testing.assert_allclose(
        totals[0], left.astype(float) @ right.T.astype(float), atol=1e-14 if dtype is np.float64 else 1e-7
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_block_and_itself_are_symmetric_to_the_last_bit(order):
    rows = np.array(unit_rows(33, 57), order=order)
    total = coexpression.tile_sum(rows[3:20], rows[3:20])
    np.testing.assert_array_equal(total, total.T)
    np.testing.assert_allclose(np.diag(total), 1, rtol=1e-14)


def test_a_tile_on_the_diagonal_is_empty_there():
    arguments = {name: np.full(3, 4.0) for name in ("row_variance", "column_variance")}
    arguments |= {name: np.full(3, 20.0) for name in ("row_degrees", "column_degrees")}
    for kernel in (coexpression.tile_p_value, coexpression.tile_dot):
        np.testing.assert_array_equal(np.diag(kernel(np.full((3, 3), 0.5), is_diagonal=True, **arguments)), 0)
        assert (kernel(np.full((3, 3), 0.5), is_diagonal=False, **arguments) > 0).all()
    np.testing.assert_array_equal(coexpression.tile_dot(np.full((3, 3), 0.5), is_diagonal=False, **arguments), 2)


def test_a_correlation_just_above_one_is_perfect():
    arguments = {name: np.ones(1) for name in ("row_variance", "column_variance")}
    arguments |= {name: np.full(1, 9.0) for name in ("row_degrees", "column_degrees")}
    assert coexpression.tile_p_value(np.array([[1 + 1e-8]]), is_diagonal=False, **arguments) == 0


def test_genes_without_variance_have_no_residuals():
    np.testing.assert_array_equal(coexpression.inverse_norm(np.array([0.0, 4.0]), n_cells=25), [0, 0.1])
