"""e_bayes, treat, contrasts, top tables and decisions against stored results."""

from contextlib import nullcontext
from typing import Any

import numpy as np
import pandas as pd
import pytest
from limma_fixtures import FOLDER, assert_same, assert_slots, load, part_of

from normalisr_dask import contrasts_fit, decide_tests, e_bayes, lm_fit, make_contrasts, top_table, treat, vooma_lm_fit

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "trend": {"trend": True},
    "robust": {"robust": True},
    "trend_robust": {"trend": True, "robust": True},
    "legacyF": {"legacy": False},
    "legacyF_trend": {"legacy": False, "trend": True},
    "legacyF_robust": {"legacy": False, "robust": True},
    "legacyT": {"legacy": True},
    "span": {"trend": True, "span": 0.6},
}
SLOTS = ("s2_prior", "df_prior", "s2_post", "t", "df_total", "p_value", "lods", "var_prior", "F", "F_p_value")


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    return load("f23")


def fit_of(stored: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    names = ("coefficients", "stdev_unscaled", "sigma", "df_residual", "cov_coefficients", "Amean", "design")
    return {name: stored[f"{kind}_{name}"] for name in names}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["fit", "fitnan"])
def test_tests_are_those_stored(stored, kind: str, variant: str) -> None:
    if f"{kind}_eb_{variant}_t" not in stored:
        pytest.skip("not stored")
    tested = e_bayes(fit_of(stored, kind), **VARIANTS[variant])
    assert_slots(tested, {name: stored[f"{kind}_eb_{variant}_{name}"] for name in SLOTS})


@pytest.mark.parametrize("kind", ["fit", "fitnan"])
def test_contrasts_and_what_follows_are_those_stored(stored, kind: str) -> None:
    contrasted = contrasts_fit(fit_of(stored, kind), stored["contrasts"])
    assert_slots(contrasted, part_of(stored, f"{kind}_cf_"))
    tested = e_bayes(contrasted)
    assert_slots(tested, part_of(stored, f"{kind}_cfeb_"))
    assert_slots(treat(contrasted, lfc=0.3), part_of(stored, f"{kind}_treat_"))
    assert_slots(treat(contrasted, lfc=0.3, upshot=True), part_of(stored, f"{kind}_treatup_"))
    for method in ("separate", "global", "hierarchical", "nestedF"):
        if f"{kind}_dt_{method}" in stored:
            np.testing.assert_array_equal(decide_tests(tested, method), stored[f"{kind}_dt_{method}"])
        else:
            with pytest.raises(ValueError, match="1 genes have no F-statistic"):
                decide_tests(tested, method)
    for name, options in {"tt1": {"coef": 1, "confint": True}, "ttF": {}}.items():
        table = top_table(tested, number=20, **options)
        assert list(table.columns) == stored[f"{kind}_{name}_cols"].tolist()
        assert list(table.index) == stored[f"{kind}_{name}_index"].tolist()
        assert table.index.name == "gene"
        for position, column in enumerate(table.columns):
            assert_same(table[column], stored[f"{kind}_{name}"][:, position], column, rtol=1e-8)


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("f*.npz") if "eb_t" in np.load(path).files))
def test_tests_of_vooma_fits_are_those_stored(name: str) -> None:
    stored = load(name)
    fit = {key: value for key, value in part_of(stored, "out_").items() if np.ndim(value) or key == "rank"}
    fit["design"] = stored.get("design", np.ones((stored["y"].shape[1], 1)))
    is_aliased = np.isnan(stored["out_coefficients"]).all(axis=0).any()
    with pytest.warns(UserWarning, match="variance of effects cannot") if is_aliased else nullcontext():
        tested = e_bayes(fit)
    assert_slots(tested, part_of(stored, "eb_"))


@pytest.fixture
def fit() -> dict[str, Any]:
    random = np.random.default_rng(3)
    expression = random.normal(6, 2, (80, 1)) + random.normal(0, 1, (80, 12)) * random.gamma(4, 0.25, (80, 1))
    design = pd.DataFrame(np.eye(3)[np.arange(12) % 3], columns=["a", "b", "c"])
    expression[:5] += 4 * design["b"].to_numpy()
    table = pd.DataFrame(expression, index=[f"g{number}" for number in range(80)])
    return vooma_lm_fit(table, design, keep_elist=False)


def test_contrasts_are_read_from_expressions() -> None:
    table = make_contrasts("b - a", "(a + b)/2 - -c*2", levels=["a", "b", "c"], twice="2*b")
    np.testing.assert_array_equal(table.to_numpy().T, [[-1, 1, 0], [0.5, 0.5, 2], [0, 2, 0]])
    assert list(table.columns) == ["b - a", "(a + b)/2 - -c*2", "twice"]
    assert make_contrasts(contrasts=["b"], levels=["(Intercept)", "b"]).index.tolist() == ["Intercept", "b"]


@pytest.mark.parametrize("text", ["a; b", "__import__('os')", "a.b", "a/0", "a if b else c", "'a'", "f(a)", "d", ""])
def test_a_contrast_is_arithmetic_and_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        make_contrasts(text, levels=["a", "b"])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((), {"levels": ["a"]}, "found none"),
        (("a",), {"contrasts": ["a"], "levels": ["a"]}, "not both"),
        (("a",), {"levels": ["a", "g[T.b]"]}, r"found 'g\[T.b\]'; rename them"),
    ],
)
def test_contrasts_need_names(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_contrasts(*arguments, **options)


def test_a_contrast_is_the_coefficient_of_another_design(fit) -> None:
    contrasted = contrasts_fit(fit, make_contrasts("b - a", levels=["a", "b", "c"]))
    assert contrasted["contrast_names"] == ["b - a"]
    np.testing.assert_allclose(contrasted["coefficients"][:, 0], fit["coefficients"][:, 1] - fit["coefficients"][:, 0])
    kept = contrasts_fit(fit, coefficients=["c", 0])
    np.testing.assert_array_equal(kept["coefficients"], fit["coefficients"][:, [2, 0]])
    assert kept["contrast_names"] == ["c", "a"]
    assert kept["coef_names"] == ["a", "b", "c"]
    assert fit["coefficients"].shape == (80, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found neither"),
        ({"contrasts": np.ones((3, 1)), "coefficients": 1}, "found both"),
        ({"contrasts": np.ones((2, 1))}, "a row for each of 3 coefficients, found 2"),
        ({"contrasts": np.full((3, 1), np.nan)}, "finite numbers"),
        ({"contrasts": np.ones((3, 1), dtype=bool)}, "contrasts of numbers, found bool"),
        ({"coefficients": "d"}, "no coefficient 'd'; there is 'a', 'b', 'c'"),
        ({"coefficients": 3}, "no coefficient 3"),
        ({"coefficients": []}, "expected one coefficient or more of 'a', 'b', 'c', found none"),
        ({"coefficients": [True, False]}, "a truth value for each of 3 coefficients, found 2"),
        ({"contrasts": 3}, r"contrasts as a matrix, coefficients × contrasts, found shape \(\)"),
        ({"contrasts": np.zeros((3, 0))}, r"found shape \(3, 0\)"),
    ],
)
def test_bad_contrasts_are_refused(fit, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrasts_fit(fit, **options)


def test_a_contrast_cannot_have_what_is_not_estimable() -> None:
    design = np.column_stack([np.ones(6), np.ones(6), np.arange(6)])
    with pytest.warns(UserWarning, match="not estimable|NaN for some"):
        fit = lm_fit(np.random.default_rng(0).normal(size=(10, 6)), design)
    with pytest.raises(ValueError, match="not estimable: '1'"):
        contrasts_fit(fit, np.array([0.0, 1.0, -1.0]))
    with pytest.raises(ValueError, match="not estimable: '1'"):
        contrasts_fit(fit, coefficients=[0, 1])
    assert np.isfinite(contrasts_fit(fit, np.array([0.0, 0.0, 1.0]))["stdev_unscaled"]).all()


def test_contrasts_with_other_row_names_warn(fit) -> None:
    with pytest.warns(UserWarning, match="other names than the coefficients"):
        contrasts_fit(fit, make_contrasts("x", levels=["x", "y", "z"]))


def test_planted_genes_come_first(fit) -> None:
    tested = e_bayes(contrasts_fit(fit, make_contrasts("b - a", "c - a", levels=["a", "b", "c"])))
    assert set(top_table(tested, coef="b - a", number=5).index) == {f"g{number}" for number in range(5)}
    assert decide_tests(tested)[:5, 0].tolist() == [1] * 5
    assert decide_tests(tested, lfc=100).any() == False  # noqa: E712
    by_effect = top_table(tested, coef=0, sort_by="logFC", number=np.inf, resort_by="AveExpr")
    assert by_effect["ave_expr"].is_monotonic_decreasing
    assert len(by_effect) == 80
    assert len(top_table(tested, coef=0, p_value=1e-300)) == 0
    named = top_table(tested, coef=0, number=3, genelist=[f"n{number}" for number in range(80)])
    assert list(named.columns)[-1] == "ID"
    assert top_table(treat(fit, fc=2)).columns.tolist() == ["log_fc", "ave_expr", "t", "p_value", "adj_p_value"]


def test_repeated_names_of_genes_move_to_a_column(fit) -> None:
    table = top_table(e_bayes(fit | {"genes": ["same"] * 80}), coef=1, number=2)
    assert table["ID"].tolist() == ["same", "same"]
    annotated = pd.DataFrame({"symbol": [f"s{number}" for number in range(80)]})
    assert "symbol" in top_table(e_bayes(fit | {"genes": annotated}), coef=1)


@pytest.mark.parametrize("method", ["BH", "BY", "holm", "hochberg", "hommel", "bonferroni", "none", "fdr"])
def test_adjusted_p_values_are_those_of_statsmodels(fit, method: str) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    table = top_table(e_bayes(fit), coef="b", number=80, sort_by="none", adjust_method=method)
    published = {"BH": "fdr_bh", "fdr": "fdr_bh", "BY": "fdr_by", "hochberg": "simes-hochberg"}.get(method, method)
    expected = table["p_value"] if method == "none" else multitest.multipletests(table["p_value"], method=published)[1]
    np.testing.assert_allclose(table["adj_p_value"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: top_table(fit), "no tests; run e_bayes or treat"),
        (lambda fit: top_table(e_bayes(fit), coef="d"), "no coefficient 'd'"),
        (lambda fit: top_table(e_bayes(fit), coef=0, sort_by="x"), "sort_by 'x' is not one of"),
        (lambda fit: top_table(e_bayes(fit), coef=0, adjust_method="x"), "adjust_method 'x' is not one of"),
        (lambda fit: top_table(e_bayes(fit), coef=0, fc=0.5), "fold change fc of at least 1"),
        (lambda fit: top_table(treat(fit), coef=[0, 1]), "one coefficient at a time"),
        (lambda fit: treat(fit, fc=0.5), "fold change fc of at least 1"),
        (lambda fit: e_bayes(fit, robust=True, winsor_tail_p=(0.6, 0.6)), "two shares of genes, together below 1"),
        (lambda fit: top_table(e_bayes(fit), coef=[]), "expected one coefficient or more of 'a', 'b', 'c', found none"),
        (lambda fit: e_bayes({"coefficients": 1}), "needs a fit with stdev_unscaled"),
        (lambda fit: e_bayes(fit | {"df_residual": np.zeros(80)}), "no gene has residual degrees of freedom"),
        (lambda fit: e_bayes(fit, trend=np.ones(3)), "one number for each of 80 genes"),
        (lambda fit: e_bayes(fit | {"Amean": None}, trend=True), "needs a fit with Amean"),
        (lambda fit: decide_tests(e_bayes(fit), "nested", adjust_method="hommel"), "within genes"),
        (lambda fit: decide_tests(e_bayes(fit), "best"), "method 'best' is not one of"),
    ],
)
def test_bad_use_is_refused(fit, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(fit)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: e_bayes(fit, robust=True, winsor_tail_p=0.1), "winsor_tail_p as two numbers, found 0.1"),
        (lambda fit: e_bayes(fit, stdev_coef_lim=1), "stdev_coef_lim as two numbers, found 1"),
        (lambda fit: e_bayes(fit, trend="mean"), "trend as True, False or one number for each of 80 genes"),
        (lambda fit: treat(fit, lfc="a"), "lfc must be a number, not 'a'"),
        (lambda fit: treat(fit, fc="a"), "fc must be a number, not 'a'"),
        (lambda fit: top_table(e_bayes(fit), coef=1.0), "coefficients by position or name, found 1.0"),
        (lambda fit: top_table(e_bayes(fit), coef=0, number=None), "number must be a number, not None"),
        (lambda fit: top_table(e_bayes(fit), coef=0, number="a"), "number must be a number, not 'a'"),
        (lambda fit: make_contrasts(5, levels=["a"]), "a contrast as text such as 'b - a', found 5"),
        (lambda fit: make_contrasts("a", levels=3), "levels as names of coefficients"),
    ],
)
def test_other_kinds_of_options_are_refused(fit, call, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(fit)


def test_no_fit_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a fit, as vooma_lm_fit returns"):
        e_bayes([1, 2])


def test_many_equal_means_bend_the_trend_with_a_warning(fit) -> None:
    same = fit | {"Amean": np.where(np.arange(80) < 60, 1.0, np.arange(80))}
    with pytest.warns(UserWarning, match="many genes have the lowest or highest mean"):
        assert np.isfinite(e_bayes(same, trend=True, legacy=True)["s2_prior"]).all()


def test_zero_variances_are_offset_with_a_warning(fit) -> None:
    some = fit | {"sigma": np.where(np.arange(80) < 10, 0.0, fit["sigma"])}
    with pytest.warns(UserWarning, match="some variances are 0"):
        assert (e_bayes(some)["s2_post"] > 0).all()
