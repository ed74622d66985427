"""The bytes of a grouping hold its top genes as they are and stand for all others, however the store is chunked."""

import base64

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray
from scipy.stats import chi2, false_discovery_control, norm

from normalisr_dask.report.grouping_charts import (
    EFFECT_BINS,
    HISTOGRAM_BINS,
    P_BINS,
    QQ_POINTS,
    SHADES,
    GroupingCharts,
    grouping_charts,
    top_genes_each,
)

Values = dict[str, NDArray[np.float64]]


def simulated_tests(n_groupings: int, n_genes: int) -> Values:
    random = np.random.default_rng(3)
    z = random.normal(size=(n_groupings, n_genes))
    z[:, :3] *= 9
    se = 0.1 + random.random((n_groupings, n_genes))
    p_values = 2 * norm.sf(np.abs(z))
    return {
        "gamma": z * se,
        "se": se,
        "log10_pvalue": (norm.logsf(np.abs(z)) + np.log(2)) / np.log(10),
        "qvalue": false_discovery_control(p_values, axis=1),
    }


def charts_of(tests: Values, n_top: int, chunks: tuple[int, int] | None = None) -> list[GroupingCharts]:
    chunks = chunks or tests["gamma"].shape  # type: ignore[assignment]
    arrays = {}
    for name, values in tests.items():
        arrays[name] = zarr.create_array(zarr.storage.MemoryStore(), shape=values.shape, dtype="float64", chunks=chunks)
        arrays[name][...] = values
    return list(grouping_charts(arrays, n_top))


def unpacked(packed: str) -> dict[str, NDArray]:
    """Read the bytes as templates/report.js does."""
    data, at = base64.b64decode(packed), 0

    def take(kind: str, number: int) -> NDArray:
        nonlocal at
        values = np.frombuffer(data, kind, number, at)
        at += values.nbytes
        return values

    n_tests, n_top = take("<u4", 2)
    found = {"n_tests": n_tests, "range": take("<f4", 3)}
    pairs = take("u1", EFFECT_BINS * P_BINS // 2)
    found["shades"] = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(EFFECT_BINS, P_BINS)
    found["bins"] = take("<u4", HISTOGRAM_BINS)
    found["qq"] = take("<f4", 2 * QQ_POINTS).reshape(2, QQ_POINTS)
    found["genes"] = take("<u4", n_top)
    found |= {name: take("<f4", n_top) for name in ("gamma", "se", "log10_pvalue", "log10_qvalue")}
    assert at == len(data)
    return found


def test_top_genes_are_exact_and_in_order() -> None:
    tests = simulated_tests(4, 300)
    for row, charts in enumerate(charts_of(tests, 25)):
        found = unpacked(charts.packed)
        order = np.argsort(tests["log10_pvalue"][row])[:25]
        assert found["genes"].tolist() == charts.genes.tolist() == order.tolist()
        for name in ("gamma", "se", "log10_pvalue"):
            np.testing.assert_allclose(found[name], tests[name][row, order], rtol=1e-6)
        np.testing.assert_allclose(found["log10_qvalue"], np.log10(tests["qvalue"][row, order]), rtol=1e-5)


def test_all_other_genes_are_in_the_background_and_all_in_the_histogram() -> None:
    tests = simulated_tests(1, 5000)
    (charts,) = charts_of(tests, 40)
    found = unpacked(charts.packed)
    others = np.argsort(tests["log10_pvalue"][0])[40:]
    effect, size = tests["gamma"][0, others], -tests["log10_pvalue"][0, others]
    np.testing.assert_allclose(found["range"], [effect.min(), effect.max(), size.max()], rtol=1e-6)
    edges = np.linspace(effect.min(), effect.max(), EFFECT_BINS + 1), np.linspace(0, size.max(), P_BINS + 1)
    numbers = np.histogram2d(effect, size, bins=edges)[0]
    np.testing.assert_array_equal(found["shades"] > 0, numbers > 0)
    assert found["shades"].max() == found["shades"][np.unravel_index(numbers.argmax(), numbers.shape)] == SHADES
    assert charts.n_tests == found["n_tests"] == found["bins"].sum() == 5000
    np.testing.assert_array_equal(
        found["bins"], np.histogram(10 ** tests["log10_pvalue"][0], HISTOGRAM_BINS, (0, 1))[0]
    )


def test_quantiles_and_inflation() -> None:
    tests = simulated_tests(1, 5000)
    (charts,) = charts_of(tests, 40)
    expected, observed = unpacked(charts.packed)["qq"]
    log10_p = np.sort(tests["log10_pvalue"][0])
    points = ~np.isnan(expected)
    ranks = np.round(10.0 ** -expected[points].astype(float) * 5001).astype(int)
    np.testing.assert_allclose(observed[points], -log10_p[ranks - 1], rtol=1e-4)
    statistic = chi2.isf(10 ** np.median(log10_p), 1)
    assert charts.inflation == pytest.approx(statistic / chi2.median(1), rel=1e-3)


def test_genes_that_were_not_tested_are_nowhere() -> None:
    tests = simulated_tests(2, 60)
    for values in tests.values():
        values[0, 10:] = np.nan
        values[1] = np.nan
    some, none = charts_of(tests, 25)
    found = unpacked(some.packed)
    assert sorted(found["genes"]) == list(range(10))
    assert found["n_tests"] == 10
    assert not found["shades"].any()
    assert unpacked(none.packed)["n_tests"] == none.n_tests == none.genes.size == 0
    assert np.isnan(none.inflation)


def test_extreme_tests() -> None:
    tests = simulated_tests(1, 50)
    tests["log10_pvalue"][0, 7], tests["qvalue"][0, 7] = -np.inf, 0.0
    tests["log10_pvalue"][0, 8], tests["qvalue"][0, 8] = -5000.0, 0.0
    tests["gamma"][0, 9] = np.nan
    (charts,) = charts_of(tests, 5)
    found = unpacked(charts.packed)
    assert found["genes"][:2].tolist() == [7, 8]
    assert found["log10_pvalue"][:2].tolist() == [-np.inf, -5000.0]
    assert found["log10_qvalue"][0] == -np.inf


@pytest.mark.parametrize("chunks", [(1, 60), (3, 7), (7, 60)])
def test_the_same_for_all_chunks(chunks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    tests = simulated_tests(7, 60)
    expected = [charts.packed for charts in charts_of(tests, 10)]
    monkeypatch.setattr("normalisr_dask.report.grouping_charts.BLOCK_VALUES", 120)
    assert [charts.packed for charts in charts_of(tests, 10, chunks)] == expected


def test_a_page_of_many_groupings_stays_small() -> None:
    for n_groupings in (1, 10, 1000, 2000):
        assert n_groupings * top_genes_each(n_groupings) <= 40_000
    assert top_genes_each(100_000) == 20
