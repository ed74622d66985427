"""lm_fit against stored results, a naive fit, and bad input."""

from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from limma_fixtures import assert_slots, load, part_of

from normalisr_dask import lm_fit

CASES = {
    "ols": ("y", None, None),
    "wls": ("y", "weights", None),
    "aw": ("y", "array_weights", None),
    "gls": ("y", None, 0.3),
    "gls_w": ("y", "weights", 0.3),
    "gls_aw": ("y", "array_weights", 0.3),
    "gls_nan_wz": ("y_nan", "weights_zero", 0.3),
    "gls_neg": ("y_nan", None, -0.2),
    "wls_nan": ("y_nan", "weights_zero", None),
}


@pytest.mark.parametrize("case", CASES)
def test_fits_are_those_stored(case: str) -> None:
    stored = load("f22")
    values, weights, correlation = CASES[case]
    loses_one = values == "y_nan" and weights is not None
    with pytest.warns(UserWarning, match="1 genes have NaN") if loses_one else nullcontext():
        fit = lm_fit(
            stored[values],
            stored["design"],
            weights=None if weights is None else stored[weights],
            block=None if correlation is None else stored["block"],
            correlation=correlation,
        )
    slots = ("coefficients", "stdev_unscaled", "sigma", "df_residual", "cov_coefficients", "Amean")
    expected = {name: value for name, value in part_of(stored, f"out_{case}_").items() if name in slots}
    assert len(expected) == len(slots)
    assert_slots(fit, expected)


def naive_fit(row: np.ndarray, weights: np.ndarray, design: np.ndarray, block: np.ndarray, correlation: float):
    """Generalised least squares of one row by the inverse of its covariance matrix."""
    usable = np.isfinite(row) & (weights > 0)
    x, y, block = design[usable], row[usable], block[usable]
    covariance = np.where(np.equal.outer(block, block), correlation, 0.0)
    np.fill_diagonal(covariance, 1.0)
    root = np.sqrt(weights[usable])
    inverse = np.linalg.inv(covariance / np.outer(root, root))
    unscaled = np.linalg.inv(x.T @ inverse @ x)
    coefficients = unscaled @ x.T @ inverse @ y
    residual = y - x @ coefficients
    df = len(y) - x.shape[1]
    return coefficients, np.sqrt(np.diag(unscaled)), np.sqrt(residual @ inverse @ residual / df), df


@pytest.mark.parametrize("correlation", [-0.25, 0.0, 0.6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_fits_are_generalised_least_squares(correlation: float, offset: float) -> None:
    random = np.random.default_rng(11)
    design = np.column_stack([np.ones(14), random.normal(size=14), np.arange(14) % 2])
    block = random.permutation(np.arange(14) % 4)
    expression = random.normal(size=(9, 14)) + offset
    expression[random.random((9, 14)) < 0.1] = np.nan
    weights = 10 ** random.uniform(-4, 4, (9, 14)) * (random.random((9, 14)) > 0.1)
    fit = lm_fit(expression, design, block=block, correlation=correlation, weights=weights)
    for gene in range(9):
        coefficients, deviations, sigma, df = naive_fit(expression[gene], weights[gene], design, block, correlation)
        np.testing.assert_allclose(fit["coefficients"][gene], coefficients, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(fit["stdev_unscaled"][gene], deviations, rtol=1e-6)
        np.testing.assert_allclose(fit["sigma"][gene], sigma, rtol=1e-6 if offset == 0 else 1e-3)
        assert fit["df_residual"][gene] == df


def test_columns_that_repeat_others_come_last_and_are_nan() -> None:
    random = np.random.default_rng(2)
    design = random.normal(size=(10, 2))
    design = np.column_stack([design[:, 0], np.zeros(10), design[:, 1], design @ [2, -1], np.ones(10)])
    with pytest.warns(UserWarning, match="not estimable|NaN for some") as caught:
        fit = lm_fit(random.normal(size=(5, 10)), design)
    messages = {str(warning.message).split(";")[0] for warning in caught}
    assert messages == {"coefficients not estimable: '2', '4'", "5 genes have NaN for some of their coefficients"}
    assert fit["pivot"].tolist() == [0, 2, 4, 1, 3]
    assert fit["rank"] == 3
    assert np.isnan(fit["coefficients"][:, [1, 3]]).all()
    assert np.isnan(fit["cov_coefficients"][1]).all()
    plain = lm_fit(random.normal(size=(5, 10)), design[:, [0, 2, 4]])
    np.testing.assert_allclose(fit["cov_coefficients"][np.ix_([0, 2, 4], [0, 2, 4])], plain["cov_coefficients"])


def test_genes_without_data_stay_empty() -> None:
    expression = np.random.default_rng(1).normal(size=(3, 6))
    expression[1] = np.nan
    fit = lm_fit(expression)
    assert np.isnan(fit["coefficients"][1]).all()
    assert fit["df_residual"].tolist() == [5, 0, 5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": [0, 0, 1, 1, 2, 2]}, "see duplicate_correlation"),
        ({"block": [0, 0, 1, 1, 2, 2], "correlation": 1.0}, "above -1 and below 1, not 1.0"),
        ({"block": [0, 0, 1, 1, 2, None], "correlation": 0.1}, "found none for sample 5"),
        ({"method": "robust"}, "method 'robust' is not one of 'ls'"),
        ({"ndups": 2}, "ndups 2 is not one of"),
        ({"design": [["a"]] * 6}, "a design of numbers"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        lm_fit(np.ones((3, 6)), **options)


def test_blocks_may_have_any_labels() -> None:
    random = np.random.default_rng(0)
    expression, column = random.normal(size=(5, 6)), np.repeat([0, 1, 2], 2)[:, None]
    expected = lm_fit(expression, block=column[:, 0], correlation=0.3)
    pairs = [("p1", "left"), ("p1", "left"), ("p1", "right"), ("p1", "right"), ("p2", "left"), ("p2", "left")]
    for labels in (pairs, column, pd.DataFrame({"donor": list("aabbcc")})):
        fit = lm_fit(expression, block=labels, correlation=0.3)
        assert fit["block"].shape == (6,)
        np.testing.assert_array_equal(fit["stdev_unscaled"], expected["stdev_unscaled"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"block": np.zeros((6, 2))}, ValueError, r"block with a label for each of 6 samples, found shape \(6, 2\)"),
        ({"block": [1, 1, 2, 2, 3, None]}, ValueError, "found none for sample 5"),
        ({"block": [1, 1, 2, 2, 3, 3], "correlation": "a"}, ValueError, "below 1, not 'a'"),
        ({"weights": "a"}, TypeError, "expected weights of numbers, found str"),
    ],
)
def test_blocks_and_weights_say_what_they_lack(options: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lm_fit(np.random.default_rng(0).normal(size=(5, 6)), **({"correlation": 0.3} | options))
