"""vooma_lm_fit and what follows it beside pylimma 0.2.0, run on the same data: within 1e-8."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pylimma
import pytest
from threadpoolctl import threadpool_limits

from normalisr_dask import limma

TOLERANCE = 1e-8
N_GENES, N_SAMPLES = 200, 24
BLOCK = np.repeat(np.arange(8), 3)
GROUP = np.tile(np.arange(3), 8)
DESIGN = pd.DataFrame(np.eye(3)[GROUP], columns=["a", "b", "c"])
RANDOM = np.random.default_rng(5)
WEIGHTS = RANDOM.gamma(4, 0.3, (N_GENES, N_SAMPLES))
PREDICTOR = RANDOM.normal(size=N_GENES)
#: Near zero these are compared in the units of their standard error, or of odds.
IN_STANDARD_ERRORS = {"coefficients", "t", "lods"}


def assert_same(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        if isinstance(value, Mapping):
            assert_same(found[name], value)
        elif isinstance(value, str | list) or value is None:
            assert name in {"xlab", "ylab"} or found[name] == value, name
        elif np.asarray(value).dtype.kind in "fiu":
            atol = TOLERANCE if name in IN_STANDARD_ERRORS else 0.0
            np.testing.assert_allclose(found[name], value, rtol=TOLERANCE, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def both(function: str, *arguments: Any, **options: Any) -> tuple[Any, Any]:
    # BLAS threads of pylimma's many small products would wait for one another
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # both warn, in other words
        return tuple(getattr(module, function)(*arguments, **options) for module in (limma, pylimma))


@pytest.fixture(scope="module")
def expression() -> np.ndarray:
    values = RANDOM.normal(6, 2, (N_GENES, 1)) + RANDOM.normal(0, 0.5, (N_GENES, 8))[:, BLOCK]
    noise = RANDOM.normal(size=(N_GENES, N_SAMPLES)) * RANDOM.uniform(0.5, 2, N_SAMPLES)
    values = values + noise * np.sqrt(RANDOM.gamma(3, 0.5, (N_GENES, 1)))
    values[:10] += 3 * DESIGN["b"].to_numpy()
    return values


@pytest.fixture(scope="module")
def with_gaps(expression: np.ndarray) -> np.ndarray:
    return np.where(np.random.default_rng(1).random(expression.shape) < 0.05, np.nan, expression)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prior weights": {"prior_weights": WEIGHTS},
    "gene weights": {"prior_weights": WEIGHTS[:, 0]},
    "one weight": {"prior_weights": 2.0},
    "given sample weights, blocks": {"prior_weights": WEIGHTS[0], "block": BLOCK},
    "sample weights": {"sample_weights": True, "prior_n": 0.5},
    "variance groups": {"var_group": GROUP, "block": BLOCK},
    "variance design": {"var_design": np.column_stack([GROUP == 1, np.arange(N_SAMPLES)]).astype(float)},
    "predictor": {"predictor": PREDICTOR, "save_plot": True},
    "predictor matrix, all": {
        "predictor": PREDICTOR[:, None] + 0.1 * WEIGHTS,
        "sample_weights": True,
        "block": BLOCK,
        "save_plot": True,
    },
    "span": {"span": 0.4, "save_plot": True},
    "old span": {"legacy_span": True, "block": BLOCK},
    "no elist": {"keep_elist": False},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", ["expression", "with_gaps"])
def test_fits_with_every_option(request: pytest.FixtureRequest, kind: str, options: dict) -> None:
    assert_same(*both("vooma_lm_fit", request.getfixturevalue(kind), DESIGN, **options))


def test_a_design_with_repeated_columns(expression: np.ndarray) -> None:
    design = DESIGN.assign(all=1.0, none=0.0, age=np.arange(N_SAMPLES, dtype=float))
    assert_same(*both("vooma_lm_fit", expression, design, sample_weights=True, block=BLOCK))


@pytest.mark.parametrize(
    "container",
    [
        lambda y: pd.DataFrame(y, index=[f"g{number}" for number in range(N_GENES)]),
        lambda y: {"E": y, "weights": WEIGHTS, "design": DESIGN, "genes": [f"g{number}" for number in range(N_GENES)]},
        lambda y: {"exprs": y, "probes": [f"g{number}" for number in range(N_GENES)]},
    ],
)
def test_containers(expression: np.ndarray, container) -> None:
    assert_same(*both("vooma_lm_fit", container(expression)))


def test_the_pieces(expression: np.ndarray, with_gaps: np.ndarray) -> None:
    for options in ({}, {"weights": WEIGHTS}, {"block": BLOCK, "correlation": 0.3, "weights": WEIGHTS[0]}):
        assert_same(*both("lm_fit", with_gaps, DESIGN, **options))
    for options in ({}, {"weights": WEIGHTS}, {"var_group": GROUP}):
        np.testing.assert_allclose(*both("array_weights", with_gaps, DESIGN, **options), rtol=TOLERANCE)
    assert_same(*both("duplicate_correlation", with_gaps, DESIGN, block=BLOCK, weights=WEIGHTS, trim=0.1))
    assert_same(*both("vooma", expression, DESIGN, block=BLOCK, correlation=0.2, predictor=PREDICTOR, save_plot=True))


def assert_same_tests(fits: tuple[Any, Any], contrasts: pd.DataFrame) -> None:
    """Compare all that follows a fit."""
    for options in (
        {},
        {"trend": True},
        {"robust": True},
        {"trend": True, "robust": True},
        {"legacy": True, "robust": True},
        {"legacy": False, "trend": True},
        {"proportion": 0.1},
    ):
        assert_same(limma.e_bayes(fits[0], **options), pylimma.e_bayes(fits[1], **options))
    ours, theirs = (module.contrasts_fit(fit, contrasts) for module, fit in zip((limma, pylimma), fits, strict=True))
    assert_same(ours, theirs)
    for options in ({}, {"lfc": 0.5, "upshot": True}, {"robust": True}):
        assert_same(limma.treat(ours, **options), pylimma.treat(theirs, **options))
    ours, theirs = limma.e_bayes(ours), pylimma.e_bayes(theirs)
    for options in (
        {"coef": 0},
        {"coef": 1, "confint": True, "number": 50, "sort_by": "p"},
        {"coef": 0, "sort_by": "logFC", "resort_by": "t", "lfc": 0.5, "p_value": 0.1, "number": 100},
        {"coef": 0, "number": np.inf, "adjust_method": "holm", "sort_by": "none"},
        {},
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of pylimma, on tables of F
            expected = pylimma.top_table(theirs, **options)
        pd.testing.assert_frame_equal(limma.top_table(ours, **options), expected, rtol=1e-7, atol=1e-8)
    for method in ("separate", "global", "hierarchical", "nestedF"):
        np.testing.assert_array_equal(limma.decide_tests(ours, method), pylimma.decide_tests(theirs, method))


@pytest.mark.parametrize("kind", ["expression", "with_gaps"])
def test_what_follows_a_fit(request: pytest.FixtureRequest, kind: str) -> None:
    contrasts = limma.make_contrasts("b - a", "c - a", levels=["a", "b", "c"])
    pd.testing.assert_frame_equal(contrasts, pylimma.make_contrasts("b - a", "c - a", levels=["a", "b", "c"]))
    fits = both("vooma_lm_fit", request.getfixturevalue(kind), DESIGN, block=BLOCK)
    assert_same_tests(fits, contrasts)


def test_outliers_of_variance(with_gaps: np.ndarray) -> None:
    ours, theirs = both("lm_fit", with_gaps, DESIGN)
    factors = np.ones(N_GENES)
    factors[:10] = [5, 10, 20, 50, 3, 4, 100, 1000, 3, 2]
    for fit in (ours, theirs):
        fit["sigma"] = fit["sigma"] * factors
    for options in ({"robust": True}, {"robust": True, "legacy": True}, {"robust": True, "trend": True}):
        assert_same(limma.e_bayes(ours, **options), pylimma.e_bayes(theirs, **options))


@pytest.mark.parametrize(
    "trend",
    [
        np.where(np.arange(N_GENES) < 90, 0.0, PREDICTOR),
        np.round(PREDICTOR),
        np.repeat([0.0, 1.0, 2.0, 7.0], [90, 20, 60, 30]),
        np.zeros(N_GENES),
    ],
    ids=["tied in the middle", "rounded", "tied at an end", "all tied"],
)
def test_trends_over_tied_values(expression: np.ndarray, trend: np.ndarray) -> None:
    ours, theirs = both("lm_fit", expression, DESIGN)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both warn of ties at an end, in other words
        for options in ({}, {"robust": True}):
            found, expected = (
                module.e_bayes(fit, trend=trend, **options) for module, fit in ((limma, ours), (pylimma, theirs))
            )
            assert_same(found, expected)


@pytest.mark.parametrize("n_genes", [4, 5, 6, 7])
@pytest.mark.parametrize("span", [None, 0.3, 0.5])
def test_trends_of_few_genes(expression: np.ndarray, n_genes: int, span: float | None) -> None:
    ours, theirs = both("lm_fit", expression[:n_genes], DESIGN)
    options = {"trend": True, "legacy": False, "span": span}
    assert_same(limma.e_bayes(ours, **options), pylimma.e_bayes(theirs, **options))


def test_an_infinite_predictor_is_refused(expression: np.ndarray) -> None:
    predictor = np.where(np.arange(N_GENES) == 7, np.inf, PREDICTOR)
    with pytest.raises(ValueError, match="infs or NaNs"):
        pylimma.vooma_lm_fit(expression, DESIGN, predictor=predictor)
    with pytest.raises(ValueError, match=r"found NaN or infinity, first in gene 7 \(counted from 0\)"):
        limma.vooma_lm_fit(expression, DESIGN, predictor=predictor)


@pytest.mark.parametrize("is_weighted", [False, True])
@pytest.mark.parametrize("prior_n", [0.5, 10])
def test_reml_on_few_complete_genes(expression: np.ndarray, prior_n: float, is_weighted: bool) -> None:
    few = np.where(np.eye(3, N_SAMPLES, dtype=bool) & (np.arange(3) < 2)[:, None], np.nan, expression[:3])
    for genes in (few, expression[:3]):  # one complete gene, and three
        options = {"method": "reml", "prior_n": prior_n, "weights": WEIGHTS[:3] if is_weighted else None}
        np.testing.assert_allclose(*both("array_weights", genes, DESIGN, **options), rtol=TOLERANCE)


@pytest.mark.parametrize(
    ("design", "coefficients"),
    [
        (DESIGN, "b"),
        (DESIGN, ["c", "a"]),
        (DESIGN, [True, False, True]),
        (DESIGN.to_numpy(), [2, 0]),
        (DESIGN.assign(age=np.arange(24.0)), ["age", "b"]),
        (DESIGN.assign(age=np.arange(24.0)), np.array([True, False, False, True])),
    ],
)
def test_coefficients_that_are_kept(expression: np.ndarray, design: Any, coefficients: Any) -> None:
    ours, theirs = both("lm_fit", expression, design)
    for fits in ((ours, theirs), (limma.e_bayes(ours), pylimma.e_bayes(theirs))):
        kept = [
            module.contrasts_fit(fit, coefficients=coefficients)
            for module, fit in zip((limma, pylimma), fits, strict=True)
        ]
        assert_same(*kept)
        assert_same(limma.e_bayes(kept[0]), pylimma.e_bayes(kept[1]))


def test_contrasts_that_are_kept(expression: np.ndarray) -> None:
    contrasts = limma.make_contrasts("b - a", "c - a", levels=list(DESIGN))
    fits = both("lm_fit", expression, DESIGN)
    contrasted = [module.contrasts_fit(fit, contrasts) for module, fit in zip((limma, pylimma), fits, strict=True)]
    assert_same(
        limma.contrasts_fit(contrasted[0], coefficients=1), pylimma.contrasts_fit(contrasted[1], coefficients=1)
    )


@pytest.mark.parametrize("trend", [False, True])
def test_effects_without_a_variance(expression: np.ndarray, trend: bool) -> None:
    ours, theirs = both("lm_fit", expression, DESIGN.assign(all=1.0, again=1.0))
    with pytest.warns(UserWarning, match="variance of effects cannot be estimated"):
        found = limma.e_bayes(ours, trend=trend)
    with pytest.warns(UserWarning, match="var_prior failed"):
        expected = pylimma.e_bayes(theirs, trend=trend)
    assert_same(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("use", [(), ("block", "sample_weights")])
def test_the_bladder_cancers(real_data: Path, use: tuple[str, ...]) -> None:
    table = pd.read_csv(real_data / "bulk" / "bladderbatch_expr.csv.gz", index_col=0)
    samples = pd.read_csv(real_data / "bulk" / "bladderbatch_samples.csv", index_col=0)
    options = {"block": samples["batch"].to_numpy(), "sample_weights": True}
    design = pd.get_dummies(samples["cancer"], dtype=float)
    fits = both("vooma_lm_fit", table, design, **{name: options[name] for name in use})
    assert_same(*fits)
    if len(use) == 2:
        assert_same_tests(fits, limma.make_contrasts("Cancer - Normal", "Biopsy - Normal", levels=design))
