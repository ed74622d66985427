"""Moments of groups of cells, from vectors of many cells a piece at a time."""

import tracemalloc

import numpy as np
import pytest

from normalisr_dask.kernels import implicit_groups
from normalisr_dask.kernels.chebyshev import check_range
from normalisr_dask.kernels.exclusive import exclusive_labels

N_GROUPS = 3


def arguments(n_cells: int, n_covariates: int, *, empty: bool = False) -> dict:
    random = np.random.default_rng(0)
    groups = np.full(n_cells, -1) if empty else random.integers(-1, N_GROUPS, n_cells)
    weights = np.exp(random.normal(size=n_cells) / 4)
    rows = (groups == np.arange(N_GROUPS)[:, None]).astype(float)
    covariates = random.normal(size=(n_covariates, n_cells))
    return {
        "labels": exclusive_labels(rows)[0],
        "test_covariates": random.normal(size=(n_covariates, n_cells)),
        "covariates": covariates,
        "cell_offset": random.normal(size=n_cells),
        "zero_fit": random.normal(size=(1, n_covariates)),
        "weights": weights,
        "scaling_range": check_range(np.array([0.2, 5.0]), np.array([0.0, 1.0])),
        "first": 0,
        "n_groups": N_GROUPS,
    }


@pytest.mark.parametrize("n_cells", [0, 1, 500])
@pytest.mark.parametrize("product_bytes", [1, 10_000])
def test_sums_of_pieces_are_those_of_all_cells(monkeypatch, n_cells, product_bytes):
    given = arguments(n_cells, 4)
    expected = implicit_groups.node_group_sums(**given)
    monkeypatch.setattr(implicit_groups, "PRODUCT_BYTES", product_bytes)
    np.testing.assert_allclose(implicit_groups.node_group_sums(**given), expected, rtol=1e-12, atol=1e-9)


def test_cells_of_no_group_add_nothing():
    assert not implicit_groups.node_group_sums(**arguments(50, 4, empty=True) | {"first": 1}).any()


def test_memory_grows_with_vectors_of_cells_and_not_with_products_of_covariates():
    n_cells, n_covariates = 60_000, 20
    given = arguments(n_cells, n_covariates)
    tracemalloc.start()
    implicit_groups.node_group_sums(**given)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    vectors = 8 * n_cells * (n_covariates + 1)
    assert peak < 3 * vectors + 8 * implicit_groups.PRODUCT_BYTES < 8 * n_cells * n_covariates**2
