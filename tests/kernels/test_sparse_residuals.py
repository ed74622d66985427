"""Residuals as entries and factors, against the residuals themselves."""

import numpy as np
import pytest
import scipy.sparse

from normalisr_dask.kernels.chebyshev import N_NODES, nodes_needed
from normalisr_dask.kernels.coexpression import add_product, count_residuals
from normalisr_dask.kernels.sparse_residuals import ResidualFactors, SparseResiduals, residual_factors, sparse_product

N_GENES, N_CELLS = 40, 300


def arrays(n_genes: int = N_GENES, n_cells: int = N_CELLS, *, density: float = 0.1, ratio: float = 4.0):
    """Return deviations, and what else residuals are made of; weights differ by up to a ratio."""
    random = np.random.default_rng(0)
    deviations = random.normal(7, 1, size=(n_genes, n_cells)) * (random.random((n_genes, n_cells)) < density)
    return scipy.sparse.csc_array(deviations), {
        "covariates": np.vstack([random.normal(size=(2, n_cells)), np.ones(n_cells)]),
        "zero_log_cpm": random.normal(7, 0.5, n_cells),
        "log_weights": random.uniform(0, np.log(ratio), n_cells),
        "normalised_covariates": random.normal(size=(3, n_cells)),
        "coefficients": random.normal(size=(n_genes, 3)) + np.array([0, 0, 7]),
        "gene_scaling": random.uniform(0, 1, n_genes),
        "factor": random.uniform(0.5, 1, n_genes),
        "removed": random.normal(size=(n_genes, 3)),
    }


def residuals(deviations: scipy.sparse.csc_array, made_of: dict[str, np.ndarray]) -> np.ndarray:
    growth = np.exp(np.outer(made_of["gene_scaling"], made_of["log_weights"]))
    expression = deviations.toarray() + made_of["zero_log_cpm"] - made_of["coefficients"] @ made_of["covariates"]
    return made_of["factor"][:, None] * growth * expression - made_of["removed"] @ made_of["normalised_covariates"]


@pytest.mark.parametrize("ratio", [1.0, 4.0, 500.0])
@pytest.mark.parametrize("density", [0.0, 0.1, 1.0])
def test_products_are_those_of_the_residuals(density, ratio):
    deviations, made_of = arrays(density=density, ratio=ratio)
    exact = residuals(deviations, made_of)
    factors = residual_factors(deviations, **made_of)
    scale = np.linalg.norm(exact, axis=1)
    whole, some = factors.residuals(0, N_GENES), factors.residuals(7, 19)
    for found, left, right in (
        (sparse_product(whole, some), slice(None), slice(7, 19)),
        (sparse_product(some[2:9], whole[30:35]), slice(9, 16), slice(30, 35)),
        (sparse_product(some[2:9][1:3], whole), slice(10, 12), slice(None)),
        (sparse_product(whole, whole), slice(None), slice(None)),
        (sparse_product(whole[:12], whole[:12]), slice(0, 12), slice(0, 12)),
    ):
        expected = exact[left] @ exact[right].T
        np.testing.assert_array_less(np.abs(found - expected) / np.outer(scale[left], scale[right]), 1e-11)


def test_genes_and_themselves_are_symmetric_to_the_last_bit():
    deviations, made_of = arrays()
    made = residual_factors(deviations, **made_of).residuals(0, N_GENES)
    for run in (made, made[5:30]):
        product = sparse_product(run, run[0 : len(run)])
        np.testing.assert_array_equal(product, product.T)


def test_entries_may_come_in_any_order():
    deviations, made_of = arrays()
    shuffled = deviations.copy()
    for start, stop in zip(deviations.indptr, deviations.indptr[1:], strict=False):
        shuffled.indices[start:stop] = deviations.indices[start:stop][::-1]
        shuffled.data[start:stop] = deviations.data[start:stop][::-1]
    found, expected = (residual_factors(block, **made_of).residuals(3, 33) for block in (shuffled, deviations))
    np.testing.assert_array_equal(sparse_product(found, found), sparse_product(expected, expected))


def test_they_pay_where_counts_are_sparse_and_cells_many():
    def pay(**options) -> bool:
        deviations, made_of = arrays(10, **options)
        return residual_factors(deviations, **made_of).pay

    assert pay(n_cells=2000, density=0.1)
    assert not pay(n_cells=2000, density=0.4)
    assert not pay(n_cells=50, density=0.1)
    assert not pay(n_cells=0)


def test_no_genes_and_no_cells():
    for n_genes, n_cells in ((0, 5), (5, 0)):
        deviations, made_of = arrays(5, n_cells or 1)
        factors = ResidualFactors(
            deviations[:n_genes, :n_cells],
            made_of["log_weights"][:n_cells],
            made_of["gene_scaling"][:n_genes],
            made_of["factor"][:n_genes],
            np.ones((2, n_cells)),
            np.ones((n_genes, 2)),
        )
        made = factors.residuals(0, n_genes)
        np.testing.assert_array_equal(sparse_product(made, made), np.zeros((n_genes, n_genes)))


@pytest.mark.parametrize("density", [0.02, 0.5])
def test_both_forms_of_residuals_from_counts_give_the_same_correlations(density):
    random = np.random.default_rng(1)
    counts = random.poisson(3, size=(N_GENES, 2000)) * (random.random((N_GENES, 2000)) < density)
    by_cell = {
        "covariates": np.vstack([random.normal(size=2000), np.ones(2000)]),
        "cell_offset": random.normal(-7, 0.5, 2000),
        "weights": random.uniform(1, 3, 2000),
        "normalised_covariates": random.normal(size=(2, 2000)),
    }
    by_gene = {
        "fit": random.uniform(0.5, 1, size=(N_GENES, 4)),
        "gene_scaling": random.uniform(0, 1, N_GENES),
        "coefficients": random.normal(size=(N_GENES, 2)),
        "inverse_norm": np.full(N_GENES, 1e-3),
    }
    block = scipy.sparse.csc_array(counts)
    (found,) = count_residuals(block, runs=((0, N_GENES),), **by_cell, **by_gene, precision=np.float64)
    assert isinstance(found, SparseResiduals) == (density < 0.1)
    # Blocks of a few cells come as dense residuals.
    total, expected = np.zeros((2, N_GENES, N_GENES))
    add_product(total, found, found)
    for cells in np.split(np.arange(2000), 100):
        parts = {name: values[..., cells] for name, values in by_cell.items()}
        (dense,) = count_residuals(block[:, cells], runs=((0, N_GENES),), **parts, **by_gene, precision=np.float64)
        assert isinstance(dense, np.ndarray)
        add_product(expected, dense, dense)
    np.testing.assert_allclose(total, expected, atol=1e-12 * expected.max())


def test_nodes_needed():
    bounds = np.array([0.0, 1.0])
    needed = [nodes_needed(bounds, log_weight, 1e-14) for log_weight in (0.0, 0.5, 1.0, 3.0, 1000.0)]
    assert needed == sorted(needed)
    assert needed[0] == 1
    assert needed[-1] == N_NODES
