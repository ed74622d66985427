"""Gene sets removed one after the other: what a run stores of each level, how it goes on, and what it refuses."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray as xr
from dask.utils import parse_bytes
from distributed import Client
from gene_ontologies import GROWTH, ROOT, SIGNAL, TERMS, gaf_line
from typer.testing import CliRunner

import normalisr_dask as nd
from normalisr_dask import schema
from normalisr_dask.cli.app import app
from normalisr_dask.pipeline import plan, run
from normalisr_dask.progress import Silent
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.stored_expression import stored_expression

N_CELLS, N_OF_SET, N_OTHERS = 500, 50, 150
N_GENES = 2 * N_OF_SET + N_OTHERS
GENES = [f"GENE{number}" for number in range(N_GENES)]
#: The term of each gene: two gene sets, of which the first varies more, and others.
TERM_OF = [*[GROWTH] * N_OF_SET, *[SIGNAL] * N_OF_SET, *[ROOT] * N_OTHERS]
LEVEL_0 = ["qc", "normalisation", "coex", "edges", "go_lv0"]
STAGES = [*LEVEL_0, *(f"{kind}_lv{level}" for level in (1, 2) for kind in ("coex", "edges", "go"))]
TABLES = {"coex_edges", "coex_edges_lv1", "coex_edges_lv2", "go_lv0", "go_lv1"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A count store whose cells differ in two programmes, and an ontology of these."""
    folder = tmp_path_factory.mktemp("levels")
    random = np.random.default_rng(1)
    mean = random.uniform(1, 4, N_GENES)[:, None] * random.lognormal(0.5, 0.4, N_CELLS)
    for first, loading in ((0, 0.7), (N_OF_SET, 0.5)):
        mean[first : first + N_OF_SET] *= np.exp(loading * random.normal(size=N_CELLS))
    counts = scipy.sparse.csr_array(random.poisson(mean).T.astype(np.uint32))
    cells, genes = ([f"cell{number}" for number in range(N_CELLS)], GENES)
    with CountStoreWriter(
        folder / "counts.zarr", obs=pd.DataFrame(index=cells), var=pd.DataFrame(index=genes)
    ) as writer:
        writer.append(np.diff(counts.indptr), counts.indices, counts.data)
        writer.finalise()
    (folder / "terms.obo").write_text(TERMS)
    write_annotations(folder / "genes.gaf", GENES)
    return folder


def write_annotations(path: Path, symbols: list[str]) -> None:
    lines = [
        gaf_line(str(number), symbol, term, "IDA")
        for number, (symbol, term) in enumerate(zip(symbols, TERM_OF, strict=True), start=1)
    ]
    path.write_text("\n".join(lines))


def settings_of(inputs: Path, output: Path, **changes) -> RunSettings:
    return RunSettings(
        store=str(inputs / "counts.zarr"),
        output=str(output),
        coex=True,
        qcut=1e-4,
        go=(str(inputs / "terms.obo"), str(inputs / "genes.gaf")),
        min_gene_cells=20,
        min_cell_reads=20,
        min_cell_genes=10,
        **changes,
    )


def contents(output: Path) -> dict[str, str]:
    """Return a digest of every array and every table."""
    files = [*(output / "results.zarr").rglob("c/**/*"), *output.glob("*.parquet")]
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file()
    }


def arrays(output: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(output).items() if name.startswith("results.zarr")}


def recorded(output: Path) -> list[str]:
    return list(json.loads((output / "manifest.json").read_text())["stages"])


class Told(Silent):
    """Remembers which stages were done now, and ends the run when a stage starts."""

    def __init__(self, *, end_at: str | None = None) -> None:
        self.end_at = end_at
        self.done: list[str] = []

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        if name == self.end_at:
            msg = "the machine is gone"
            raise RuntimeError(msg)

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        if not resumed:
            self.done.append(name)


@pytest.fixture(scope="module")
def whole(inputs: Path, two_workers) -> Path:
    """Output of a run without interruption."""
    output = inputs / "whole"
    with Client(two_workers.scheduler_address) as client:
        summary = run(settings_of(inputs, output), client)
    assert [level.term for level in summary.levels] == [GROWTH, SIGNAL, None]
    return output


def test_what_a_run_tells_of_its_levels(inputs, whole, client):
    summary = run(settings_of(inputs, whole), client)
    assert recorded(whole) == STAGES
    assert [level.level for level in summary.levels] == [0, 1, 2]
    assert [(level.name, level.genes) for level in summary.levels[:2]] == [("growth", N_OF_SET), ("signal", N_OF_SET)]
    first, second, last = (level.edges for level in summary.levels)
    assert first == summary.edges > second > last
    assert all(0 < level.p_value < 1e-6 for level in summary.levels[:2])
    assert {Path(table).stem for table in summary.tables} == TABLES
    assert all(Path(table).exists() for table in summary.tables)
    stages = json.loads((whole / "manifest.json").read_text())["stages"]
    assert stages["go_lv1"]["term"] == SIGNAL
    assert stages["edges_lv1"]["edges"] == second
    assert stages["go_lv2"]["note"].startswith("no term: expected more than 62 genes with edges")


def test_every_level_opens_with_the_names_of_the_schema(whole):
    for stage in STAGES:
        dataset = xr.open_zarr(whole / "results.zarr", group=stage)
        variables = schema.STAGES[schema.kind_of(stage)]
        assert set(dataset.data_vars) == set(variables)
        for name, variable in variables.items():
            assert dataset[name].dims == variable.dims
            assert dataset[name].dtype == variable.dtype


def test_levels_open_with_labels(whole):
    for level, term in enumerate([GROWTH, SIGNAL]):
        found = xr.open_zarr(whole / "results.zarr", group=f"go_lv{level}").load()
        assert found["term"].item() == term
        members = found["gene"][found["in_term"].sel(term=term)].values
        assert set(members) == {gene for gene, of in zip(GENES, TERM_OF, strict=True) if of == term}
        assert found["principal"].sum() > N_OF_SET
        assert found["component"].sizes == {"term": 1, "cell": N_CELLS}
        table = pd.read_parquet(whole / f"go_lv{level}.parquet")
        assert table["GO"][0] == term
        assert table["p_uncorrected"].is_monotonic_increasing
    assert xr.open_zarr(whole / "results.zarr", group="go_lv2").sizes["term"] == 0
    edges = xr.open_zarr(whole / "results.zarr", group="edges_lv1")
    pairs = xr.open_zarr(whole / "results.zarr", group="coex_lv1").load()
    table = pd.read_parquet(whole / "coex_edges_lv1.parquet")
    assert len(table) == edges["degree"].sum()
    row = table.iloc[0]
    assert pairs["pvalue"].sel(gene=row["gene"], gene_2=row["gene_2"]).item() == row["pvalue"]


def test_levels_are_what_the_steps_give(inputs, whole):
    results = ResultStore(whole)
    expression, covariates, _ = stored_expression(results, open_counts(inputs / "counts.zarr"))
    files = settings_of(inputs, whole).go
    levels = list(nd.go_levels(expression, covariates, GENES, *files, 1e-4, n=62))
    assert [level.top.gotop if level.top else None for level in levels] == [GROWTH, SIGNAL, None]
    for number, level in enumerate(levels):
        assert level.level == number
        assert level.covariates.shape == (covariates.shape[0] + number, N_CELLS)
        stage = "edges" if number == 0 else f"edges_lv{number}"
        np.testing.assert_array_equal(level.degree, results.read(stage, "degree"))
        np.testing.assert_array_equal(level.network.degree.compute(), level.degree)
    components = dask.compute(levels[2].covariates)[0][-2:]
    stored = np.vstack([results.read(f"go_lv{level}", "component") for level in (0, 1)])
    np.testing.assert_allclose(components, stored, rtol=0, atol=1e-10 * np.abs(stored).max())


@pytest.mark.parametrize(
    "end_at",
    [
        "coex_lv1",
        "go_lv1",
        *(pytest.param(stage, marks=pytest.mark.slow) for stage in ("go_lv0", "edges_lv1", "go_lv2")),
    ],
)
@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_same_bits(inputs, whole, client, tmp_path, end_at):
    settings = settings_of(inputs, tmp_path / "out")
    before = Told(end_at=end_at)
    with pytest.raises(RuntimeError, match="the machine is gone"):
        run(settings, client, progress=before)
    after = Told()
    run(settings, client, progress=after)
    assert [*before.done, *after.done] == STAGES
    assert after.done[0] == end_at
    assert contents(tmp_path / "out") == contents(whole)


@pytest.mark.slow
def test_levels_are_added_one_by_one(inputs, whole, client, tmp_path):
    output = tmp_path / "out"
    plain = replace(settings_of(inputs, output), go=None)
    assert run(plain, client).levels == ()
    done = recorded(output)
    for last_level in (0, 1, 2, 5):
        told = Told()
        run(replace(plain, go=settings_of(inputs, output).go, go_levels=last_level), client, progress=told)
        assert recorded(output) == [*done, *told.done]
        done = recorded(output)
    assert told.done == []
    assert contents(output) == contents(whole)


def test_edges_alone_give_the_same_levels(inputs, whole, client, tmp_path):
    output = tmp_path / "out"
    run(settings_of(inputs, output, coex_store="edges"), client)
    assert recorded(output) == [stage for stage in STAGES if not stage.startswith("coex")]
    expected = {name: digest for name, digest in arrays(whole).items() if not name.startswith("results.zarr/coex")}
    assert arrays(output) == expected
    for table in ("coex_edges", "coex_edges_lv1", "coex_edges_lv2"):
        found, other = (pd.read_parquet(folder / f"{table}.parquet") for folder in (output, whole))
        pd.testing.assert_frame_equal(found, other, rtol=1e-12)


@pytest.mark.slow
def test_other_files_or_cuts_remake_what_depends_on_them(inputs, whole, client, tmp_path):
    output, told = tmp_path / "out", Told()
    write_annotations(tmp_path / "other.gaf", GENES[::-1])
    go = (str(inputs / "terms.obo"), str(tmp_path / "other.gaf"))
    settings = settings_of(inputs, output, go_levels=1)
    run(settings, client)
    run(replace(settings, go=go), client, progress=told)
    assert told.done == ["go_lv0"]  # the genes that vary together have other terms now, of which none stands out
    assert recorded(output) == LEVEL_0
    assert not list(output.glob("*_lv1.parquet"))
    told = Told()
    run(replace(settings, qcut=1e-5), client, progress=told)
    assert told.done == ["edges", *STAGES[4:8]]
    run(replace(settings, go_levels=5), client)
    assert contents(output) == contents(whole)


def test_names_may_be_converted(inputs, whole, client, tmp_path):
    names = tmp_path / "names.tsv"
    names.write_text("".join(f"{gene}\t{number}\n" for number, gene in enumerate(GENES, start=1)))
    write_annotations(tmp_path / "other.gaf", [f"other{number}" for number in range(N_GENES)])
    settings = settings_of(inputs, tmp_path / "out", go_levels=0, go_names=str(names))
    run(replace(settings, go=(str(inputs / "terms.obo"), str(tmp_path / "other.gaf"))), client)
    assert arrays(tmp_path / "out").items() <= arrays(whole).items()


class TestBadInput:
    """All of it is found before anything is computed."""

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"coex": False}, r"gene sets \(--go\) are found in the network of co-expression, which needs --coex"),
            ({"go": None, "go_names": "x"}, r"\(--go-names\) need the annotations they belong to \(--go\)"),
            ({"go_levels": -1}, "go_levels must be at least 0, not -1"),
        ],
    )
    def test_settings_that_contradict_each_other(self, inputs, tmp_path, changes, message):
        with pytest.raises(ValueError, match=message):
            self.planned(replace(settings_of(inputs, tmp_path / "out"), **changes))

    def test_annotations_of_other_genes(self, inputs, tmp_path):
        write_annotations(tmp_path / "other.gaf", [f"other{number}" for number in range(N_GENES)])
        go = (str(inputs / "terms.obo"), str(tmp_path / "other.gaf"))
        with pytest.raises(ValueError, match="none of the 250 genes, the first 'GENE0', is annotated in"):
            self.planned(settings_of(inputs, tmp_path / "out"), go=go)

    def test_missing_files(self, inputs, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"no\.obo does not exist"):
            self.planned(settings_of(inputs, tmp_path / "out"), go=("no.obo", str(inputs / "genes.gaf")))

    @staticmethod
    def planned(settings: RunSettings, **changes):
        return plan(replace(settings, **changes), memory_limit=parse_bytes("1GB"), workers=2, threads_per_worker=1)


def test_every_level_is_planned(inputs, tmp_path):
    planned = TestBadInput.planned(settings_of(inputs, tmp_path / "out", go_levels=2))
    assert [stage.name for stage in planned.stages] == STAGES
    assert all(stage.tasks > 0 and stage.peak_task_bytes > 0 for stage in planned.stages)


class TestCommandLine:
    def test_info_tells_of_levels(self, inputs, whole, client, tmp_path):
        told = CliRunner().invoke(app, ["info", str(whole)])
        assert told.exit_code == 0
        assert f"{SIGNAL} signal, {N_OF_SET} genes" in told.output
        assert "not done yet" not in told.output
        settings = settings_of(inputs, tmp_path / "out", go_levels=1)
        with pytest.raises(RuntimeError, match="the machine is gone"):
            run(settings, client, progress=Told(end_at="edges_lv1"))
        told = CliRunner().invoke(app, ["info", str(tmp_path / "out")])
        assert [line.split()[0] for line in told.output.splitlines() if "not done yet" in line] == [
            "edges_lv1",
            "go_lv1",
        ]

    @pytest.mark.slow
    def test_run_takes_the_files(self, inputs, whole, client, tmp_path):
        settings = settings_of(inputs, tmp_path / "out")
        arguments = ["run", settings.store, "-o", settings.output, "--coex", "--qcut", "1e-4", "--go", *settings.go]
        bounds = ["--min-gene-cells", "20", "--min-cell-reads", "20", "--min-cell-genes", "10"]
        scheduler = ["--scheduler", client.scheduler.address, "--no-report"]
        told = CliRunner().invoke(app, [*arguments, "--go-levels", "1", *bounds, *scheduler])
        assert told.exit_code == 0, told.output
        assert "Gene set, level 1: done in" in told.stderr
        assert f"{GROWTH} growth" in told.stdout
        assert f"{SIGNAL} signal" in told.stdout
        assert contents(tmp_path / "out").items() <= contents(whole).items()

    def test_bad_files_are_one_line(self, inputs, tmp_path):
        files = [str(inputs / "genes.gaf"), str(inputs / "terms.obo")]
        arguments = ["run", str(inputs / "counts.zarr"), "-o", str(tmp_path / "out"), "--coex", "--go", *files]
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 2
        assert told.stderr.count("\n") == 1
        assert "genes.gaf, line 1: expected a tag and its value" in told.stderr

    def test_levels_without_files_are_refused(self, inputs, tmp_path):
        arguments = ["run", str(inputs / "counts.zarr"), "-o", str(tmp_path / "out"), "--coex", "--go-levels", "2"]
        told = CliRunner().invoke(app, arguments)
        assert told.exit_code == 2
        assert "--go-levels says how many gene sets to remove, which needs" in told.stderr
        assert not (tmp_path / "out").exists()
