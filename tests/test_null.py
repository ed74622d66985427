"""Where nothing is associated, P-values are uniform: exact tests, whatever the number of cells and covariates."""

import dask
import numpy as np
import pytest
from scipy import stats

import normalisr_dask as nd

N_ROWS = 1000
N_PAIRED = 1500  # genes; 1,124,250 pairs


def distance(pvalue: np.ndarray) -> float:
    """Return Kolmogorov and Smirnov's D, over the one that a thousandth of samples of uniform numbers exceed."""
    return stats.kstest(pvalue, "uniform").statistic * np.sqrt(pvalue.size) / stats.kstwobign.isf(1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("n_cells", [50, 500, 5000])
@pytest.mark.parametrize("n_covariates", [0, 5])
class TestUniform:
    def noise(
        self, n_cells: int, n_covariates: int, n_genes: int = N_ROWS
    ) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """Return expression that depends on nothing but its covariates, and these."""
        random = np.random.default_rng(n_cells + n_covariates)
        covariates = np.vstack([random.normal(size=(n_covariates, n_cells)), np.ones((min(n_covariates, 1), n_cells))])
        expression = random.normal(size=(n_genes, len(covariates))) @ covariates
        return expression + random.normal(size=(n_genes, n_cells)), covariates, random

    @pytest.mark.parametrize("single", [0, 4])
    def test_de_of_a_million_pairs(self, n_cells: int, n_covariates: int, single: int):
        expression, covariates, random = self.noise(n_cells, n_covariates)
        n_groupings = N_ROWS if single == 0 else n_cells // 5
        pvalue = []
        while sum(map(len, pvalue)) < N_ROWS:  # jointly tested groupings are fewer than cells
            groupings = random.normal(size=(n_groupings, n_cells))
            pvalue.append(nd.de(groupings, expression, covariates, single=single).pvalue.compute())
        assert distance(np.concatenate(pvalue)[:N_ROWS].ravel()) < 1

    def test_de_of_a_million_pairs_with_common_controls(self, n_cells: int, n_covariates: int):
        """A twentieth of the cells has each of eight guides, and the tests share twelve twentieths as controls.

        Two tests of a gene are thus correlated by 1/13, their P-values, of either sign, by the square of it.
        """
        expression, covariates, random = self.noise(n_cells, n_covariates)
        pvalue = []
        while sum(map(len, pvalue)) < N_ROWS:
            guide = random.permutation(n_cells) * 20 // n_cells
            groupings = (guide == np.arange(8)[:, None]).astype(np.float64)
            pvalue.append(nd.de(groupings, expression, covariates, single=1).pvalue.compute())
        assert distance(np.concatenate(pvalue)[:N_ROWS].ravel()) < np.sqrt(1 + 7 / 13**2)

    def test_coex_of_a_million_pairs(self, n_cells: int, n_covariates: int):
        expression, covariates, _ = self.noise(n_cells, n_covariates, N_PAIRED)
        (pvalue,) = dask.compute(nd.coex(expression, covariates).pvalue)
        assert distance(pvalue[np.triu_indices(N_PAIRED, 1)]) < 1
