"""array_weights against stored results, and its edges."""

import numpy as np
import pandas as pd
import pytest
from limma_fixtures import load

from normalisr_dask import array_weights

CASES = {
    "reml": ("E", "design", {}),
    "reml_rankdef": ("E", "design_rankdef", {}),
    "reml_zero_var_gene": ("E_zero", "design", {}),
    "reml_var_group": ("E", "design", {"var_group": "var_group"}),
    "reml_var_design": ("E", "design", {"var_design": "var_design"}),
    "reml_prior_n0p5": ("E", "design", {"prior_n": 0.5}),
    "gbg_noweights": ("E", "design", {"method": "genebygene"}),
    "gbg_weights": ("E", "design", {"weights": "weights"}),
    "gbg_weights_zero": ("E", "design", {"weights": "weights_zero"}),
    "gbg_nan": ("E_nan", "design", {}),
    "gbg_nan_weights": ("E_nan", "design", {"weights": "weights"}),
    "gbg_nan_fullrank_weights": ("E_nan_fullrank", "design", {"weights": "weights"}),
    "gbg_rankdef_weights": ("E", "design_rankdef", {"weights": "weights"}),
    "gbg_var_group": ("E", "design", {"weights": "weights", "var_group": "var_group"}),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_are_those_stored(case: str) -> None:
    stored = load("f20")
    values, design, named = CASES[case]
    options = {name: stored.get(value, value) for name, value in named.items()}
    found = array_weights(stored[values], stored[design], **options)
    # genes whose observed design lost a column: R counts its rank, pylimma its columns
    expected = stored.get(f"r_{case}", stored[f"out_{case}"])
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_reml_with_weights_is_that_stored() -> None:
    stored = load("f20")
    found = array_weights(stored["E"][:60], stored["design"], weights=stored["weights"][:60], method="reml")
    np.testing.assert_allclose(found, stored["out_prwts_reml"], rtol=1e-10)


def naive_fold(expression: np.ndarray, design: np.ndarray, prior_n: float) -> np.ndarray:
    """The update of one gene after another in the parameters of a sum-to-zero coding, with plain solves."""
    n_samples = design.shape[0]
    coding = np.vstack([np.eye(n_samples - 1), -np.ones(n_samples - 1)])
    gamma = np.zeros(n_samples - 1)
    information = prior_n * coding.T @ coding
    for row in expression:
        root = np.exp(-coding @ gamma / 2)
        basis = np.linalg.qr(design * root[:, None])[0]
        residual = root * row - basis @ (basis.T @ (root * row))
        leftover = 1 - (basis**2).sum(axis=1)
        variance = (residual**2).sum() / (n_samples - design.shape[1])
        middle = np.diag(leftover) - np.outer(leftover, leftover) / leftover.sum()
        information += coding.T @ middle @ coding
        gamma += np.linalg.solve(information, coding.T @ (residual**2 / variance - leftover))
    return np.exp(-coding @ gamma)


@pytest.mark.parametrize("n_samples", [5, 16, 60])
@pytest.mark.parametrize("prior_n", [0.01, 10])
def test_the_fold_solves_what_it_should(n_samples: int, prior_n: float) -> None:
    random = np.random.default_rng(n_samples)
    design = np.column_stack([np.ones(n_samples), np.arange(n_samples) % 2])
    expression = random.normal(5, 1, (40, n_samples)) * random.uniform(0.5, 2, n_samples)
    found = array_weights(expression, design, method="genebygene", prior_n=prior_n)
    np.testing.assert_allclose(found, naive_fold(expression, design, prior_n), rtol=1e-9)


def test_nothing_to_tell_gives_ones() -> None:
    expression = np.random.default_rng(0).normal(size=(20, 4))
    for options in (
        {"design": np.eye(4)[:, :3]},
        {"var_design": np.ones((4, 2))},
        {"design": np.eye(4)[:, :3], "weights": np.ones((20, 4))},
    ):
        np.testing.assert_array_equal(array_weights(expression, **options), np.ones(4))
    np.testing.assert_array_equal(array_weights(expression[:1]), np.ones(4))


def test_no_prior_genes_and_a_saturated_sample_do_no_harm() -> None:
    design = np.column_stack([np.ones(6), np.eye(6)[:, 0]])  # the first sample has a coefficient of its own
    weights = array_weights(np.random.default_rng(0).normal(size=(9, 6)), design, method="genebygene", prior_n=0)
    assert np.isfinite(weights).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": np.full((20, 4), np.nan)}, r"missing \(NaN\)"),
        ({"weights": np.full((20, 4), -1.0)}, "negative"),
        ({"weights": np.full((20, 4), np.inf)}, "infinite"),
        ({"weights": np.ones(4)}, r"expected weights of shape \(20, 4\)"),
        ({"var_group": [1, 1, 1, 1]}, "two or more groups"),
        ({"method": "best"}, "not one of 'auto', 'genebygene', 'reml'"),
    ],
)
def test_bad_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        array_weights(np.random.default_rng(0).normal(size=(20, 4)), **options)


def test_groups_may_have_any_labels() -> None:
    expression = np.random.default_rng(4).normal(size=(30, 6))
    expected = array_weights(expression, var_group=[0, 0, 0, 1, 1, 1])
    pairs = [("p1", "left")] * 3 + [("p2", "right")] * 3
    column = np.repeat([0, 1], 3)[:, None]
    for labels in (pairs, column, pd.DataFrame({"batch": list("aaabbb")}), [1, 1, 1, "a", "a", "a"]):
        np.testing.assert_allclose(array_weights(expression, var_group=labels), expected)


def test_a_variance_design_is_named_in_messages() -> None:
    with pytest.raises(ValueError, match="expected a var_design with a row for each of 6 samples, found shape"):
        array_weights(np.random.default_rng(0).normal(size=(9, 6)), var_design=np.ones((3, 1)))


@pytest.mark.parametrize("is_weighted", [False, True])
def test_weights_that_run_away_are_refused(is_weighted: bool) -> None:
    random = np.random.default_rng(5)
    expression = random.normal(size=(3, 12))
    weights = random.gamma(2, 1, expression.shape)
    design = random.normal(size=(12, 3))
    with pytest.raises(ValueError, match=r"too few genes .* set prior_n above 0"):
        array_weights(expression, design, weights=weights if is_weighted else None, method="reml", prior_n=0)
