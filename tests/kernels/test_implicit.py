"""The implicit matrix is the dense one: fit and products from the non-zeros, also for deep cells."""

import numpy as np
import pytest
import scipy.sparse

from normalisr_dask.kernels import chebyshev, implicit, implicit_fit
from normalisr_dask.kernels.chebyshev import check_range
from normalisr_dask.kernels.linear_algebra import coefficients
from normalisr_dask.kernels.log_cpm import mean_log_cpm

N_GENES, N_CELLS = 40, 60


@pytest.fixture(params=["shallow", "deep", "of all depths"])
def arrays(request: pytest.FixtureRequest) -> dict[str, np.ndarray]:
    """Counts and what goes with them; deep cells hold up to a million of a gene."""
    random = np.random.default_rng(3)
    depth = {"shallow": (-3, 1), "deep": (9, 13.8), "of all depths": (-3, 13.8)}[request.param]
    counts = random.poisson(np.exp(random.uniform(*depth, size=(N_GENES, N_CELLS))))
    counts[0] = 0
    counts[1, :1] = 1
    return {
        "counts": counts,
        "cell_offset": np.log(counts.sum(axis=0) + 5) - 13.8 + random.normal(0, 0.1, N_CELLS),
        "covariates": np.vstack([random.normal(size=(2, N_CELLS)), np.ones(N_CELLS)]),
        "gene_scaling": random.uniform(0, 1, N_GENES),
        "rows": (random.random((5, N_CELLS)) < 0.3).astype(np.float64),
    }


@pytest.mark.parametrize("spread", [1.0, 10.0, 300.0])
@pytest.mark.parametrize("keepvar", [True, False])
@pytest.mark.parametrize("piece_bytes", [1, 20_000, chebyshev.PIECE_BYTES], ids=["a gene", "some genes", "all genes"])
def test_fit_squares_and_products_are_those_of_the_dense_matrix(arrays, monkeypatch, piece_bytes, keepvar, spread):
    monkeypatch.setattr(chebyshev, "PIECE_BYTES", piece_bytes)
    arrays["weights"] = spread ** np.linspace(-0.5, 0.5, N_CELLS)[np.random.default_rng(0).permutation(N_CELLS)]
    block = scipy.sparse.csc_array(arrays["counts"])
    of_cells = {name: arrays[name] for name in ("covariates", "cell_offset", "weights")}
    scaling = arrays["gene_scaling"]
    bounds = check_range(arrays["weights"], scaling)
    of_zero = {name: arrays[name] for name in ("covariates", "cell_offset")}
    covariate_gram = arrays["covariates"] @ arrays["covariates"].T
    zero_fit = coefficients(implicit.zero_products(**of_zero), covariate_gram)
    fit = implicit_fit.gene_fit(
        implicit_fit.entry_sums(block, **of_cells, zero_fit=zero_fit, gene_scaling=scaling),
        scaling,
        implicit_fit.node_moments(**of_cells, zero_fit=zero_fit, scaling_range=bounds),
        bounds,
        zero_fit,
        n_cells=N_CELLS,
        keepvar=keepvar,
    )
    weights = arrays["weights"] ** scaling[:, None]
    scaled = weights * mean_log_cpm(arrays["counts"], total=np.zeros(()), cell_offset=arrays["cell_offset"])
    expected = np.empty_like(scaled)
    for gene in range(N_GENES):
        design = (arrays["covariates"] * weights[gene]).T
        residual = scaled[gene] - design @ np.linalg.lstsq(design, scaled[gene])[0]
        factor = (scaled[gene].std() / np.sqrt((residual**2).mean())) ** scaling[gene] if keepvar else 1
        expected[gene] = factor * residual
    found = implicit.dense_normalised(block, **of_cells, fit=fit, gene_scaling=scaling)
    np.testing.assert_allclose(found, expected, atol=1e-9 * np.abs(expected).max())
    np.testing.assert_allclose(fit[:, -1], (expected**2).sum(axis=1), rtol=1e-9)
    for rows in (arrays["rows"], scipy.sparse.csr_array(arrays["rows"])):
        products = implicit.complete_products(
            implicit.entry_products(block, rows, weights=arrays["weights"], gene_scaling=scaling),
            implicit.node_products(rows, **of_cells, zero_fit=zero_fit, scaling_range=bounds),
            fit,
            scaling,
            bounds,
            zero_fit,
        )
        exact = arrays["rows"] @ expected.T
        np.testing.assert_allclose(products, exact, atol=1e-9 * np.abs(exact).max())


def test_deviations_are_as_sparse_as_the_counts(arrays):
    found = implicit.deviations(scipy.sparse.csc_array(arrays["counts"]))
    np.testing.assert_array_equal(found.toarray() > 0, arrays["counts"] > 0)
