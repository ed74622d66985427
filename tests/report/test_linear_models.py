"""The report of linear models: the same page as a run's, made of what ``vooma`` has stored."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata
import html5lib
import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Page
from report_pages import accessibility_violations, column, watched_page
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.report import write_report
from normalisr_dask.report.linear_models import SAMPLES_DRAWN, _sample_weights
from normalisr_dask.storage.linear_fits import read_linear_fit

N_GENES, N_SAMPLES, N_PLANTED = 800, 24, 30
NASTY_GENE = '<img src=x onerror=alert(1)> & "$x_1$"'
NASTY_CONTRAST = "</script><b>treated</b>"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Log-expression of donors before and after a treatment that changes some genes; one sample is noisy."""
    random = np.random.default_rng(3)
    donor, treated = np.arange(N_SAMPLES) // 2, np.arange(N_SAMPLES) % 2
    mean = random.uniform(2, 12, N_GENES)
    deviation = 0.2 + np.exp(-mean / 4)
    expression = mean + random.normal(0, 0.3, (12, N_GENES))[donor]
    expression += deviation * random.normal(size=(N_SAMPLES, N_GENES))
    expression[5] += deviation * random.normal(0, 3, N_GENES)
    expression[:, :N_PLANTED] += 2 * treated[:, None]
    genes = [NASTY_GENE, *(f"gene{number}" for number in range(1, N_GENES))]
    obs = pd.DataFrame(
        {
            "donor": [f"d{number}" for number in donor],
            "arm": np.where(treated, "treated", "control"),
            "batch": random.choice(["a", "b"], N_SAMPLES),
        },
        index=[f"sample{number}" for number in range(N_SAMPLES)],
    )
    path = tmp_path_factory.mktemp("samples") / "samples.h5ad"
    anndata.AnnData(expression, obs=obs, var=pd.DataFrame(index=genes)).write_h5ad(path)
    return path


def vooma(samples: Path, output: Path, *words: str) -> Any:
    fixed = ["vooma", str(samples), "-o", str(output), "--workers", "1", "--memory-limit", "2GB"]
    return CliRunner().invoke(app, [*fixed, *words])


@pytest.fixture(scope="module")
def fitted(samples: Path) -> Path:
    """Output folder of ``vooma`` with blocks, sample weights and contrasts."""
    output = samples.parent / "out"
    done = vooma(
        *(samples, output, "--design", "~ 0 + arm + batch", "--block", "donor", "--sample-weights"),
        *("--contrast", f"{NASTY_CONTRAST}=arm_treated - arm_control", "--contrast", "batch_b"),
    )
    assert done.exit_code == 0, done.stderr
    assert f"report  {output / 'report.html'}" in done.stdout
    return output


@pytest.fixture
def page(browser: Browser, fitted: Path) -> Iterator[Page]:
    with watched_page(browser, fitted / "report.html") as page:
        yield page


def test_top_tables_are_those_written(page: Page, fitted: Path) -> None:
    table = pd.read_parquet(fitted / "top_table.parquet")
    for contrast in (NASTY_CONTRAST, "batch_b"):
        page.get_by_label("Contrast", exact=True).select_option(contrast)
        assert page.locator("#chosen-name").inner_text() == f"Contrast {contrast}"
        expected = table[table["contrast"] == contrast].head(500)
        assert column(page, "top", 1) == expected["gene"].tolist()
        for number, name in enumerate(("log_fc", "ave_expr", "t", "b"), start=2):
            shown = [float(text) for text in column(page, "top", number)]
            assert shown == pytest.approx(expected[name].tolist(), abs=6e-4), name
        for number, name in ((6, "p_value"), (7, "adj_p_value")):
            shown = np.array(column(page, "top", number), dtype=float)
            np.testing.assert_allclose(np.log10(shown), np.log10(expected[name]), atol=0.025)


def test_contrasts_with_their_hits(page: Page, fitted: Path) -> None:
    table = pd.read_parquet(fitted / "top_table.parquet")
    significant = table[(table["contrast"] == NASTY_CONTRAST) & (table["adj_p_value"] <= 0.05)]
    n_up = int((significant["log_fc"] > 0).sum())
    assert n_up >= N_PLANTED
    assert column(page, "contrast-table", 1) == [NASTY_CONTRAST, "batch_b"]
    assert column(page, "contrast-table", 2)[0] == str(n_up)
    assert column(page, "contrast-table", 3)[0] == str(len(significant) - n_up)
    page.get_by_role("button", name="batch_b").click()
    assert page.locator("#chosen-name").inner_text() == "Contrast batch_b"


def test_samples_and_their_weights(page: Page, fitted: Path) -> None:
    weights = read_linear_fit(fitted)["targets"]["sample_weights"]
    assert column(page, "samples", 1)[0] == f"sample{weights.argmin()}" == "sample5"
    assert [float(text) for text in column(page, "samples", 2)] == pytest.approx(sorted(weights), abs=6e-4)
    page.get_by_label("Search samples").fill("sample2")
    assert len(column(page, "samples", 1)) == 5


def test_trend_in_words(page: Page, fitted: Path) -> None:
    line = read_linear_fit(fitted)["voom_line"]
    words = page.locator("figure svg").first.get_attribute("aria-label") or ""
    assert words.startswith(f"Mean-variance trend of {N_GENES} genes")
    assert f"{line['y'][0]:.2f} at mean log-expression {line['x'][0]:.2f}" in words


def test_what_was_run(page: Page) -> None:
    assert column(page, "options", 1)[:2] == ["DATA", "--design"]
    assert "~ 0 + arm + batch" in column(page, "options", 2)
    assert column(page, "stage-table", 1) == ["Linear models"]


@pytest.mark.slow
def test_accessibility(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    assert accessibility_violations(page) == []


def test_it_is_valid_and_written_again_the_same(fitted: Path) -> None:
    text = (fitted / "report.html").read_text(encoding="utf-8")
    assert write_report(fitted).read_text(encoding="utf-8") == text
    html5lib.HTMLParser(strict=True).parse(text)
    assert NASTY_CONTRAST not in text
    assert "<img" not in text
    assert len(text) < 400_000


def test_warnings_stand_at_the_top_and_one_coefficient_is_enough(samples: Path, tmp_path: Path) -> None:
    done = vooma(samples, tmp_path / "out", "--design", "~ arm + C(arm, Treatment('treated'))")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert '<div class="cautions">' in text
    assert "not estimable" in text


def test_no_report_where_none_is_wanted(samples: Path, tmp_path: Path) -> None:
    assert vooma(samples, tmp_path / "out", "--design", "~ arm", "--no-report").exit_code == 0
    assert not (tmp_path / "out" / "report.html").exists()


def test_without_the_packages_all_else_is_there(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = vooma(samples, tmp_path / "out", "--design", "~ arm")
    assert done.exit_code == 0
    assert "note: the report needs jinja2" in done.stderr
    assert (tmp_path / "out" / "top_table.tsv").is_file()


@pytest.mark.parametrize("n_samples", [2, SAMPLES_DRAWN, SAMPLES_DRAWN + 1, 5000])
def test_weights_of_any_number_of_samples(n_samples: int) -> None:
    weights = np.random.default_rng(0).gamma(5, 0.2, n_samples)
    names = np.array([f"sample{number}" for number in range(n_samples)], dtype=object)
    picture = _sample_weights(weights, names)
    assert f"Weights of {n_samples:,} samples" in picture.svg
    assert (">sample0<" in picture.svg) == (n_samples <= SAMPLES_DRAWN)
    assert len(picture.svg) < 40_000
