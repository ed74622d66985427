"""Where nothing is associated, P-values are uniform: exact tests, whatever the number of cells and covariates."""

import dask
import numpy as np
import pytest
from scipy import stats

import normalisr_dask as nd

N_ROWS = 1000
# Kolmogorov and Smirnov's D at which one in a thousand samples of a million independent uniform numbers is larger.
LARGEST_DISTANCE = stats.kstwobign.isf(1e-3) / N_ROWS


@pytest.mark.slow
@pytest.mark.parametrize("n_cells", [50, 500, 5000])
@pytest.mark.parametrize("n_covariates", [0, 5])
class TestUniform:
    def noise(self, n_cells: int, n_covariates: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Return expression that depends on nothing but its covariates, and these."""
        random = np.random.default_rng(n_cells + n_covariates)
        covariates = np.vstack([random.normal(size=(n_covariates, n_cells)), np.ones((min(n_covariates, 1), n_cells))])
        expression = random.normal(size=(N_ROWS, len(covariates))) @ covariates
        return expression + random.normal(size=(N_ROWS, n_cells)), covariates, random

    @pytest.mark.parametrize("single", [0, 4])
    def test_de_of_a_million_pairs(self, n_cells: int, n_covariates: int, single: int):
        expression, covariates, random = self.noise(n_cells, n_covariates)
        n_groupings = N_ROWS if single == 0 else n_cells // 5
        pvalue = []
        while sum(map(len, pvalue)) < N_ROWS:  # jointly tested groupings are fewer than cells
            groupings = random.normal(size=(n_groupings, n_cells))
            pvalue.append(nd.de(groupings, expression, covariates, single=single).pvalue.compute())
        assert stats.kstest(np.concatenate(pvalue)[:N_ROWS].ravel(), "uniform").statistic < LARGEST_DISTANCE

    def test_coex_of_half_a_million_pairs(self, n_cells: int, n_covariates: int):
        expression, covariates, _ = self.noise(n_cells, n_covariates)
        (pvalue,) = dask.compute(nd.coex(expression, covariates).pvalue)
        pairs = pvalue[np.triu_indices(N_ROWS, 1)]
        assert stats.kstest(pairs, "uniform").statistic < np.sqrt(2) * LARGEST_DISTANCE
