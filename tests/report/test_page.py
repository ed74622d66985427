"""The page: what it says is what the store holds, and it is valid HTML that asks for no other file."""

import json
import re
import sys
from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from shutil import copytree
from xml.etree.ElementTree import Element

import html5lib
import numpy as np
import pandas as pd
import pytest
from report_runs import NASTY_GENE, NASTY_GUIDE

from normalisr_dask.cli.event_log import EventLog
from normalisr_dask.cli.report_work import report_of_run
from normalisr_dask.report import write_report
from normalisr_dask.report.coexpression import GENES_IN_HEAT_MAP
from normalisr_dask.report.quality import quality_cautions
from normalisr_dask.storage.manifest import Manifest
from normalisr_dask.storage.result_store import ResultStore

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return report.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Element:
    """The page as a browser reads it; what is no valid HTML raises."""
    return html5lib.HTMLParser(strict=True).parse(text)


def words(element: Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def by_id(page: Element, name: str) -> Element:
    return next(element for element in page.iter() if element.get("id") == name)


def rows(page: Element, table: str) -> list[list[str]]:
    body = by_id(page, table).find(f"{HTML}tbody")
    assert body is not None
    return [[words(cell) for cell in row] for row in body]


class TestContents:
    def test_the_head_sums_up(self, page: Element, finished_run: Path) -> None:
        results = ResultStore(finished_run)
        facts = {
            words(fact[0]): words(fact[1]) for fact in page.iter(f"{HTML}div") if fact.find(f"{HTML}dt") is not None
        }
        n_hits = np.count_nonzero(results.read("de", "qvalue") <= 0.05)
        inflation = dict(
            zip(results.read("calibration", "family"), results.read("calibration", "inflation"), strict=True)
        )
        assert n_hits > 0
        assert facts["cells kept"] == f"{results.read('normalisation', 'cell').size:,} of 900"
        assert facts["genes kept"] == f"{results.read('normalisation', 'gene').size:,} of 300"
        assert facts["hits at Q ≤ 0.05"].startswith(f"{n_hits} in ")
        n_with_hits = np.count_nonzero((results.read("de", "qvalue") <= 0.05).any(axis=1))
        assert f" in {n_with_hits} of 10 groupings. " in words(page)
        assert facts["inflation, negative controls"] == f"{inflation['control']:.3f}"
        assert facts["inflation, permuted cells"] == f"{inflation['permuted']:.3f}"
        assert facts["edges"] == f"{results.read('edges', 'degree').sum():,} at Q ≤ 0.05"

    def test_it_says_when_the_run_took_place(self, page: Element, finished_run: Path) -> None:
        content = Manifest.read(finished_run).content
        started, finished = (datetime.fromisoformat(content[name]) for name in ("started", "finished"))
        assert timedelta(seconds=1) <= finished - started < timedelta(hours=1)
        assert f", started {started:%Y-%m-%d %H:%M}, finished {finished:%Y-%m-%d %H:%M} (UTC)" in words(page)

    def test_groupings_with_their_numbers(self, page: Element, finished_run: Path) -> None:
        table = pd.read_parquet(finished_run / "de.parquet").groupby("grouping", observed=True, sort=False)
        expected = [
            [
                str(name),
                str(tests["target"].iloc[0]),
                str(tests["n_cells"].iloc[0]),
                str((tests["qvalue"] <= 0.05).sum()),
            ]
            for name, tests in table
        ]
        assert [row[:4] for row in rows(page, "groupings")] == expected

    def test_strongest_edges(self, page: Element, finished_run: Path) -> None:
        table = pd.read_parquet(finished_run / "coex_edges.parquet")
        top = table.iloc[table["r"].abs().argmax()]
        first, second, r, _ = rows(page, "edges")[0]
        assert {first, second} == {top["gene"], top["gene_2"]}
        assert r == f"{top['r']:.3f}"

    def test_the_heat_map_says_which_colour_is_positive(self, text: str, page: Element, finished_run: Path) -> None:
        assert "Orange is positive, purple negative" in words(page)
        assert "--positive: #b54708; --negative: #5b3fa0;" in text  # orange, purple
        found = re.search(r"([\d,]+) of [\d,]+ pairs have an edge \((\d+) positive, (\d+) negative\)", text)
        assert found is not None
        table = pd.read_parquet(finished_run / "coex_edges.parquet")
        degrees = table.groupby("gene", observed=True).size()
        shown = degrees.sort_values(ascending=False, kind="stable").index[:GENES_IN_HEAT_MAP]
        among = table[table["gene"].isin(shown) & table["gene_2"].isin(shown)]
        pairs = {frozenset(pair): r for *pair, r in among[["gene", "gene_2", "r"]].itertuples(index=False)}
        assert [int(number.replace(",", "")) for number in found.groups()] == [
            len(pairs), sum(r > 0 for r in pairs.values()), sum(r < 0 for r in pairs.values())
        ]  # fmt: skip

    def test_gene_sets_of_every_level(self, page: Element, finished_run: Path) -> None:
        stages = Manifest.read(finished_run).content["stages"]
        levels = rows(page, "gene-sets")
        n_edges = [stages[stage]["edges"] for stage in ("edges", "edges_lv1")]
        assert [row[:2] for row in levels] == [["0", f"{n_edges[0]:,}"], ["1", f"{n_edges[1]:,}"]]
        found = stages["go_lv0"]
        assert levels[0][2:4] == [f"{found['name']} ({found['term']})", str(found["genes"])]
        table = pd.read_parquet(finished_run / "go_lv0.parquet").sort_values("p_uncorrected", kind="stable")
        assert [row[0] for row in rows(page, "terms-0")] == table["GO"].head(10).tolist()
        assert rows(page, "edges-1")

    def test_what_was_asked_for_stands_first(self, page: Element) -> None:
        settings = [(row[0], row[1]) for row in rows(page, "options")]
        assert ("--covariate-columns", "batch, age") in settings[:12]
        assert ("--qcut", "0.05") in settings[12:]

    def test_stages_with_time_and_memory(self, page: Element) -> None:
        stages = rows(page, "stage-table")
        assert [row[0] for row in stages][:2] == ["Quality control of reads", "Normalisation"]
        assert all(re.fullmatch(r"[\d.]+ s", row[1]) for row in stages)
        assert all(re.fullmatch(r"[\d.]+ [MG]B", row[3]) for row in stages)
        assert "Peaks are those of the stage (not on Linux: since the process started)." in words(page)

    def test_cautions(self, page: Element) -> None:
        cautions = [
            words(item)
            for item in next(element for element in page.iter(f"{HTML}div") if element.get("class") == "cautions").iter(
                f"{HTML}li"
            )
        ]
        assert any("fewer than 10 cells" in caution and "rare_g1" in caution for caution in cautions)
        assert any("are not among the groupings" in caution and "absent_g1" in caution for caution in cautions)

    def test_caution_where_most_cells_are_left_out(self) -> None:
        assert quality_cautions(500, 1000) == ()
        (caution,) = quality_cautions(70, 1000)
        assert caution.startswith("Quality control left out 93% of the cells")

    def test_warnings_of_the_run(self, finished_run: Path, tmp_path: Path) -> None:
        copytree(finished_run, tmp_path / "out")
        manifest = Manifest.read(tmp_path / "out")
        manifest.record("normalisation", manifest.stage("normalisation") | {"warnings": ["Beware of the <leopard>."]})
        assert "Beware of the &lt;leopard&gt;." in write_report(tmp_path / "out").read_text(encoding="utf-8")

    def test_a_run_without_tests_has_neither_their_section_nor_gaps(self, finished_run: Path, tmp_path: Path) -> None:
        copytree(finished_run, tmp_path / "out")
        manifest = Manifest.read(tmp_path / "out")
        for stage in ("de", "calibration", "coex", "edges"):
            manifest.forget(stage)
        page = html5lib.HTMLParser(strict=True).parse(write_report(tmp_path / "out").read_text(encoding="utf-8"))
        titles = [words(title) for title in page.iter(f"{HTML}h2")]
        assert titles == ["Summary", "Quality control", "Normalisation", "What was run", "Time and memory"]


class TestForm:
    def test_names_from_elsewhere_are_text(self, text: str, page: Element) -> None:
        assert NASTY_GUIDE in [row[0] for row in rows(page, "groupings")]
        assert NASTY_GENE in [row[1] for row in rows(page, "groupings")]
        assert NASTY_GUIDE not in text
        assert "<img" not in text
        data = json.loads(by_id(page, "data").text or "")
        assert NASTY_GENE in data["genes"].values()

    def test_it_asks_for_no_other_file(self, text: str, page: Element) -> None:
        policy = next(meta.get("content", "") for meta in page.iter(f"{HTML}meta") if meta.get("http-equiv"))
        assert policy.startswith("default-src 'none'")
        addresses = [
            element.get(name, "")
            for element in page.iter()
            for name in ("src", "href", "{http://www.w3.org/1999/xlink}href", "data", "action")
        ]
        assert [address for address in addresses if address and not address.startswith("#")] == []
        assert set(re.findall(r"\w+://[^\s\"'<)]+", text)) == {"http://www.w3.org/2000/svg"}  # a name, not an address
        assert not re.search(r"@import|url\((?!#)|fetch\(|XMLHttpRequest|import\(", text)

    def test_it_is_small(self, text: str) -> None:
        assert len(text) < 900_000

    def test_each_id_is_there_once_and_what_refers_to_one_finds_it(self, text: str, page: Element) -> None:
        ids = Counter(element.get("id") for element in page.iter() if element.get("id"))
        assert [name for name, number in ids.items() if number > 1] == []
        references = {
            element.get(name, "").lstrip("#")
            for element in page.iter()
            for name in ("href", "for", "aria-labelledby", "data-searches", "{http://www.w3.org/1999/xlink}href")
            if element.get(name)
        } | set(re.findall(r"url\(#([\w-]+)\)", text))
        assert references
        assert references <= ids.keys()

    def test_figures_tables_and_fields_say_what_they_are(self, page: Element) -> None:
        figures = list(page.iter(f"{SVG}svg"))
        assert len(figures) > 8
        assert all(figure.get("role") == "img" and len(figure.get("aria-label", "")) > 40 for figure in figures)
        assert all(words(table[0]) and table[0].tag == f"{HTML}caption" for table in page.iter(f"{HTML}table"))
        labelled = {label.get("for") for label in page.iter(f"{HTML}label")}
        fields = [field for kind in ("input", "select") for field in page.iter(f"{HTML}{kind}")]
        assert fields
        assert {field.get("id") for field in fields} <= labelled

    def test_headings_leave_out_no_level(self, page: Element) -> None:
        levels = [
            int(element.tag[-1]) for element in page.iter() if re.fullmatch(rf"{re.escape(HTML)}h\d", str(element.tag))
        ]
        assert levels[0] == 1
        assert all(level <= before + 1 for before, level in pairwise(levels))

    def test_the_same_run_gives_the_same_page(self, finished_run: Path, text: str) -> None:
        assert write_report(finished_run).read_text(encoding="utf-8") == text


class TestRefusals:
    def test_folder_without_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds no run: there is no manifest\.json in it"):
            write_report(tmp_path)

    def test_run_that_is_not_done(self, finished_run: Path, tmp_path: Path) -> None:
        copytree(finished_run, tmp_path / "out")
        Manifest.read(tmp_path / "out").forget("normalisation")
        with pytest.raises(ValueError, match=r"is not done: normalisation is missing; run the same command again"):
            write_report(tmp_path / "out")
        assert not list((tmp_path / "out").glob("*.partial"))

    def test_missing_packages(self, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match=r"needs matplotlib: .* pip install 'normalisr-dask\[report\]'"):
            write_report(finished_run)

    def test_a_run_without_the_packages_says_so_in_one_line(
        self, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        report_of_run(finished_run, EventLog(None))
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith("normalisr-dask: note: the report needs matplotlib")
        assert last.endswith(f"then run normalisr-dask report {finished_run}")
