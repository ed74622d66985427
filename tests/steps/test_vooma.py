"""vooma_lm_fit and vooma against stored results, and what they refuse."""

import warnings

import numpy as np
import pandas as pd
import pytest
from limma_fixtures import assert_slots, load, part_of

from normalisr_dask import EList, lm_fit, vooma, vooma_lm_fit
from normalisr_dask.steps import trend_plot

FITS = [f"f{number:02d}" for number in range(1, 17)] + ["f17a", "f17b", "f18", "f19"]
KINDS = {"not_estimable": "coefficients not estimable", "partial_na": "NaN for some of their coefficients"}


@pytest.mark.parametrize("name", FITS)
def test_fits_are_those_stored(name: str) -> None:
    stored = load(f"{name}_")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = vooma_lm_fit(stored["y"], None if name == "f03" else stored["design"], **part_of(stored, "arg_"))
    assert set(fit) == set(stored["keys"].tolist())
    assert_slots(fit, part_of(stored, "out_"))
    messages = [str(warning.message) for warning in caught]
    for kind in set(stored["warnings"].tolist()):
        assert sum(KINDS[kind] in message for message in messages) == 1
    assert len(messages) == len(set(stored["warnings"].tolist()))


@pytest.fixture
def expression() -> np.ndarray:
    random = np.random.default_rng(3)
    return random.normal(6, 2, (80, 1)) + random.normal(0, 1, (80, 12))


DESIGN = np.column_stack([np.ones(12), np.repeat([0.0, 1.0], 6)])
BLOCK = np.tile(np.arange(4), 3)


def test_a_pass_of_vooma_gives_the_weights_of_a_plain_fit(expression: np.ndarray) -> None:
    weighted = vooma(expression, DESIGN, save_plot=True)
    assert isinstance(weighted, EList)
    fit = vooma_lm_fit(expression, DESIGN, save_plot=True)
    np.testing.assert_array_equal(weighted.weights, fit["EList"]["weights"])
    np.testing.assert_array_equal(weighted["voom_line"]["y"], fit["voom_line"]["y"])
    refit = lm_fit(weighted)
    np.testing.assert_array_equal(refit["coefficients"], fit["coefficients"])


def test_vooma_keeps_what_came_with_an_elist(expression: np.ndarray) -> None:
    genes = [f"g{number}" for number in range(80)]
    weighted = vooma({"E": expression, "genes": genes, "design": DESIGN})
    assert weighted["genes"] == genes
    assert weighted.design.shape == (12, 2)


def test_weights_follow_the_trend_and_prior_weights(expression: np.ndarray) -> None:
    prior = np.random.default_rng(1).uniform(0.5, 2, expression.shape)
    prior[3, 4] = 0.0
    fit = vooma_lm_fit(expression, DESIGN, prior_weights=prior)
    assert fit["EList"]["weights"][3, 4] == 0
    assert fit["df_residual"][3] == 9
    assert (fit["EList"]["weights"][4] > 0).all()


@pytest.mark.parametrize("block", [list("abcd") * 3, pd.Series(BLOCK), pd.Categorical(list("wxyz") * 3), BLOCK * 1.5])
def test_labels_of_blocks_may_be_anything(expression: np.ndarray, block) -> None:
    fit = vooma_lm_fit(expression, DESIGN, block=block)
    assert fit["correlation"] == vooma_lm_fit(expression, DESIGN, block=BLOCK)["correlation"]
    assert list(fit["block"]) == list(block)


def test_sample_weights_find_the_bad_sample(expression: np.ndarray) -> None:
    worse = expression.copy()
    worse[:, 5] += np.random.default_rng(2).normal(0, 5, 80)
    weights = vooma_lm_fit(worse, DESIGN, sample_weights=True)["targets"]["sample_weights"]
    assert np.argmin(weights) == 5
    assert weights[5] < 0.3
    assert np.exp(np.log(weights).mean()) == pytest.approx(1.0)


def test_var_design_may_be_a_table_or_a_vector(expression: np.ndarray) -> None:
    age = np.arange(12.0)
    fits = [
        vooma_lm_fit(expression, DESIGN, var_design=given) for given in (age, age[:, None], pd.DataFrame({"a": age}))
    ]
    for fit in fits[1:]:
        np.testing.assert_array_equal(fit["targets"]["sample_weights"], fits[0]["targets"]["sample_weights"])


def test_names_come_from_tables(expression: np.ndarray) -> None:
    table = pd.DataFrame(expression, index=[f"g{number}" for number in range(80)])
    fit = vooma_lm_fit(table, pd.DataFrame(DESIGN, columns=["all", "treated"]))
    assert fit["genes"][:2] == ["g0", "g1"]
    assert fit["coef_names"] == ["all", "treated"]
    annotated = table.reset_index(names="symbol")
    assert vooma_lm_fit(annotated, DESIGN)["genes"]["symbol"].tolist()[:2] == ["g0", "g1"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": None}, TypeError, "found None"),
        ({"y": {"x": 1}}, TypeError, "'E' or 'exprs'"),
        ({"y": np.array([["a", "b"]])}, TypeError, "matrix of numbers"),
        ({"y": np.ones((2, 3, 4))}, TypeError, "3 dimensions"),
        ({"y": pd.DataFrame({"a": [1.0, 2], "b": ["x", "y"]})}, TypeError, "found no numbers in"),
        ({"layer": "E"}, TypeError, "AnnData only"),
        ({"y": np.ones((1, 12))}, ValueError, "found 1 genes and 12 samples"),
        ({"y": np.ones((12, 1)), "design": None}, ValueError, "found 12 genes and 1 samples"),
        ({"design": DESIGN[:5]}, ValueError, "a row for each of 12 samples, found shape"),
        ({"design": "~ g"}, ValueError, "needs a table of samples"),
        ({"design": DESIGN * np.nan}, ValueError, "finite design, found NaN or infinity in row 0"),
        ({"prior_weights": np.ones((12, 80))}, ValueError, "transpose them"),
        ({"prior_weights": np.ones(7)}, ValueError, "found shape"),
        ({"prior_weights": 2.0, "sample_weights": True}, ValueError, "cannot go together"),
        ({"prior_weights": 2.0, "var_group": BLOCK}, ValueError, "cannot go together"),
        ({"predictor": np.ones((3, 3))}, ValueError, "expected a predictor of shape"),
        ({"predictor": np.full(80, np.nan)}, ValueError, "finite predictor where expression is known"),
        ({"var_group": np.ones(12)}, ValueError, "two or more groups, found one"),
        ({"var_group": np.ones(5)}, ValueError, "a label for each of 12 samples, found 5"),
        ({"block": BLOCK[:5]}, ValueError, "a label for each of 12 samples, found 5"),
        ({"span": 1.5}, ValueError, "span must lie between 0 and 1"),
        ({"design": np.eye(12)}, ValueError, "residual degrees of freedom"),
        ({"prior_n": -1.0, "sample_weights": True}, ValueError, "prior_n must be 0 or more"),
    ],
)
def test_bad_input_is_refused(expression: np.ndarray, change: dict, error: type[Exception], message: str) -> None:
    arguments = {"y": expression, "design": DESIGN} | change
    with pytest.raises(error, match=message):
        vooma_lm_fit(arguments.pop("y"), arguments.pop("design"), **arguments)


def test_genes_that_cannot_be_fitted_are_named(expression: np.ndarray) -> None:
    table = pd.DataFrame(expression, index=[f"g{number}" for number in range(80)])
    with pytest.raises(ValueError, match=r"one gene has no value at all, first g7 \(row 7\)"):
        vooma_lm_fit(table.mask(np.arange(80)[:, None] == np.full(12, 7)), DESIGN)
    infinite = table.copy()
    infinite.iloc[4, 2] = np.inf
    with pytest.raises(ValueError, match="infinity in gene g4"):
        vooma_lm_fit(infinite, DESIGN)
    with pytest.raises(ValueError, match=r"infinity in gene 4 \(counted from 0\)"):
        vooma_lm_fit(infinite.to_numpy(), DESIGN)
    missing = table.copy()
    missing.iloc[2, :6] = np.nan
    with pytest.raises(ValueError, match="design is zero on all samples with data of gene g2"):
        vooma_lm_fit(missing, 1 - DESIGN[:, 1:])
    with (
        pytest.warns(UserWarning, match="1 genes have NaN for some"),
        pytest.raises(ValueError, match=r"found missing \(NaN\) ones"),
    ):
        vooma_lm_fit(missing, DESIGN, sample_weights=True)


def test_blocks_without_a_correlation_are_said_to_have_none(expression: np.ndarray) -> None:
    with pytest.warns(UserWarning, match="all blocks have one sample"):
        assert vooma_lm_fit(expression, DESIGN, block=np.arange(12))["correlation"] == 0
    with pytest.warns(UserWarning, match="already tells the blocks apart"):
        assert vooma_lm_fit(expression, DESIGN, block=DESIGN[:, 1])["correlation"] == 0
    single = vooma_lm_fit(expression, DESIGN, block=np.zeros(12))
    assert single["correlation"] == 0


def test_a_plot_without_matplotlib_is_a_warning(expression: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trend_plot, "pyplot", None)
    with pytest.warns(UserWarning, match="needs matplotlib"):
        vooma_lm_fit(expression, DESIGN, plot=True)


def test_a_plot_shows_the_genes_and_the_trend(expression: np.ndarray) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    vooma_lm_fit(expression, DESIGN, plot=True)
    axes = pyplot.gca()
    assert len(axes.collections[0].get_offsets()) == 80
    assert len(axes.lines[0].get_xdata()) == 80
    pyplot.close("all")


def test_the_callers_arrays_stay_as_they_are(expression: np.ndarray) -> None:
    prior = np.random.default_rng(1).uniform(0.5, 2, expression.shape)
    for array in (expression, prior):
        array.flags.writeable = False
    vooma_lm_fit(expression, DESIGN, prior_weights=prior, block=BLOCK)
    vooma_lm_fit(expression, DESIGN, sample_weights=True)


def test_vooma_needs_a_correlation_with_blocks(expression: np.ndarray) -> None:
    with pytest.raises(ValueError, match="correlation must lie above -1 and below 1, not None"):
        vooma(expression, DESIGN, block=BLOCK)
