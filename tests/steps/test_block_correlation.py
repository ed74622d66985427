"""duplicate_correlation against stored results, and its edges."""

import numpy as np
import pytest
from limma_fixtures import load

from normalisr_dask import duplicate_correlation

CASES = {
    "plain": ("y", None, "design", "block"),
    "weights": ("y", "weights", "design", "block"),
    "nan": ("y_nan", None, "design", "block"),
    "nan_weights_zero": ("y_nan", "weights_zero", "design", "block"),
    "balanced": ("y_bal", None, "design_bal", "block_bal"),
    "rankdef": ("y", None, "design_rankdef", "block"),
    "array_weights": ("y", "array_weights", "design", "block"),
}


@pytest.mark.parametrize("case", CASES)
def test_correlations_are_those_stored(case: str) -> None:
    stored = load("f21")
    values, weights, design, block = CASES[case]
    found = duplicate_correlation(
        stored[values], stored[design], block=stored[block], weights=None if weights is None else stored[weights]
    )
    assert found["consensus_correlation"] == pytest.approx(stored[f"out_{case}_consensus"].item(), rel=1e-10)
    assert found["cor"] == found["consensus_correlation"]
    np.testing.assert_allclose(found["atanh_correlations"], stored[f"out_{case}_atanh"], rtol=1e-8, atol=1e-10)


def test_a_planted_correlation_is_found() -> None:
    random = np.random.default_rng(4)
    block = np.repeat(np.arange(40), 5)
    expression = random.normal(size=(300, 40))[:, block] * np.sqrt(0.4) + random.normal(0, np.sqrt(0.6), (300, 200))
    found = duplicate_correlation(expression, np.column_stack([np.ones(200), np.arange(200) % 2]), block=block)
    assert found["consensus_correlation"] == pytest.approx(0.4, abs=0.02)


def test_genes_without_variation_have_none() -> None:
    expression = np.random.default_rng(1).normal(size=(6, 12))
    expression[2] = 7.0
    found = duplicate_correlation(expression, block=np.arange(12) % 4)
    assert np.flatnonzero(np.isnan(found["atanh_correlations"])).tolist() == [2]


def test_blocks_that_tell_nothing_are_said_to() -> None:
    expression = np.random.default_rng(1).normal(size=(6, 12))
    with pytest.warns(UserWarning, match="one sample"):
        found = duplicate_correlation(expression, block=np.arange(12))
    assert found["consensus_correlation"] == 0
    np.testing.assert_array_equal(found["atanh_correlations"], np.zeros(6))
    with pytest.warns(UserWarning, match="tells the blocks apart"):
        duplicate_correlation(expression, np.eye(3)[np.arange(12) % 3], block=np.arange(12) % 3)


@pytest.mark.parametrize("options", [{}, {"block": np.arange(12) % 3, "trim": 0.5}])
def test_bad_options_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match=r"expected a block for each sample and trim below 0\.5"):
        duplicate_correlation(np.ones((3, 12)), **options)
