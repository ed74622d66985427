"""A whole run: what it stores, that it is what the steps give, and what it refuses."""

import json
import re
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray as xr
from dask.utils import parse_bytes
from distributed import Client
from scipy.stats import false_discovery_control

import normalisr_dask as nd
from normalisr_dask.kernels.association import UntestableGroupingWarning
from normalisr_dask.pipeline import plan, run
from normalisr_dask.planning import StagePlan
from normalisr_dask.progress import Silent
from normalisr_dask.schema import STAGES
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.count_store import open_count_store
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.testing import SimulatedScreen, count_reads, simulate_screen, write_cell_ranger_folder

LIMITS = {"memory_limit": parse_bytes("1.5GB"), "workers": 2, "threads_per_worker": 1}
QC = {"min_gene_cells": 20, "min_cell_reads": 300, "min_cell_genes": 50}


@pytest.fixture(scope="module")
def screen() -> SimulatedScreen:
    return simulate_screen(
        300, 700, 8, seed=2, n_controls=2, n_downstream=3, n_modules=2, module_size=12, median_depth=1500
    )


@pytest.fixture(scope="module")
def cell_table(screen: SimulatedScreen) -> pd.DataFrame:
    random = np.random.default_rng(5)
    guides = np.full(len(screen.cell_names), "none", dtype=object)
    entries = screen.groupings.tocoo()
    guides[entries.coords[1]] = np.array(screen.grouping_names, dtype=object)[entries.coords[0]]
    return pd.DataFrame(
        {
            "guide": guides,
            "batch": random.choice(["a", "b", "c"], guides.size),
            "age": random.normal(50, 9, guides.size).round(2),
        },
        index=pd.Index(screen.cell_names, name="cell"),
    )


@pytest.fixture(scope="module")
def store(screen: SimulatedScreen, cell_table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    write_cell_ranger_folder(folder / "raw", screen.counts, screen.gene_names, screen.cell_names)
    cell_table.to_csv(folder / "cells.tsv", sep="\t")
    ingest([folder / "raw"], folder / "counts.zarr", obs=folder / "cells.tsv")
    return folder / "counts.zarr"


@pytest.fixture
def settings(store: Path, tmp_path: Path) -> RunSettings:
    return RunSettings(
        store=str(store),
        output=str(tmp_path / "out"),
        groupby="guide",
        reference="none",
        covariate_columns=("batch",),
        **QC,
    )


def group(settings: RunSettings, stage: str) -> xr.Dataset:
    return xr.open_zarr(Path(settings.output) / "results.zarr", group=stage).load()


@pytest.mark.parametrize(
    ("other_groupings", "single"),
    [
        ("ignore", 0),
        pytest.param("exclude", 1, marks=pytest.mark.slow),
        pytest.param("covariates", 4, marks=pytest.mark.slow),
    ],
)
def test_run_stores_what_the_steps_give(
    settings: RunSettings,
    screen: SimulatedScreen,
    cell_table: pd.DataFrame,
    client: Client,
    other_groupings: Literal["ignore", "exclude", "covariates"],
    single: Literal[0, 1, 4],
) -> None:
    summary = run(replace(settings, other_groupings=other_groupings, coex=True), client)

    counts = screen.counts.toarray().astype(np.int64)
    genes, cells = nd.qc_reads(counts, *settings.qc_bounds)
    counts = counts[np.ix_(genes, cells)]
    log_cpm = nd.lcpm(counts)
    batch = pd.get_dummies(cell_table["batch"]).to_numpy(float).T[1:, cells]
    covariates = nd.normcov(np.vstack([batch, log_cpm.cov.compute()])).compute()
    weights = nd.compute_var(log_cpm.lcpm, covariates).compute()
    kept = nd.qc_outlier(weights)
    normalised = nd.normvar(log_cpm.lcpm[:, kept], covariates[:, kept], weights[kept], nd.scaling_factor(counts))
    groupings = screen.groupings.toarray().astype(float)[:, cells][:, kept]
    order = np.argsort(screen.grouping_names)
    expected = nd.de(groupings[order], *normalised, single=single)
    pairs = nd.coex(*normalised)

    de, coex, stored = group(settings, "de"), group(settings, "coex"), group(settings, "normalisation")
    assert de["gene"].values.tolist() == [screen.gene_names[gene] for gene in genes]
    assert de["grouping"].values.tolist() == sorted(screen.grouping_names)
    assert stored["cell"].values.tolist() == [screen.cell_names[cell] for cell in cells[kept]]
    assert stored["qc_cell"].values.tolist() == [screen.cell_names[cell] for cell in cells]
    np.testing.assert_array_equal(stored["weight_kept"], kept)
    np.testing.assert_allclose(stored["fitted_weight"], weights, rtol=1e-9)
    for name in ("gamma", "se", "vart", "varg", "log10_pvalue"):
        np.testing.assert_allclose(de[name], getattr(expected, name).compute(), rtol=1e-7, atol=1e-9, err_msg=name)
    p_values = de["pvalue"].to_numpy()
    np.testing.assert_allclose(p_values, expected.pvalue.compute(), rtol=1e-7)
    np.testing.assert_allclose(de["qvalue"], false_discovery_control(p_values, axis=1), rtol=1e-12)
    q_values = false_discovery_control(p_values, axis=None).reshape(p_values.shape)
    np.testing.assert_allclose(de["qvalue_all"], q_values, rtol=1e-12)
    np.testing.assert_array_equal(de["n_cells"], groupings[order].sum(axis=1))
    np.testing.assert_allclose(coex["dot"], pairs.dot.compute(), rtol=1e-7, atol=1e-10)
    np.testing.assert_allclose(coex["pvalue"], pairs.pvalue.compute(), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(stored["cell_weight"], weights[kept], rtol=1e-9)
    assert summary.cells_kept == kept.sum()
    assert summary.genes_kept == genes.size
    assert summary.edges == len(pd.read_parquet(summary.tables[1]))


def test_tables_hold_what_the_arrays_hold(settings: RunSettings, client: Client) -> None:
    summary = run(replace(settings, coex=True, qcut=0.2), client)
    de, coex = group(settings, "de"), group(settings, "coex")
    table = pd.read_parquet(Path(settings.output) / "de.parquet")
    values = ["gamma", "se", "pvalue", "log10_pvalue", "qvalue", "qvalue_all"]
    assert list(table.columns) == ["grouping", "gene", "n_cells", *values]
    for name in values:
        wide = table.pivot_table(index="grouping", columns="gene", values=name, observed=True)
        np.testing.assert_array_equal(wide.loc[de["grouping"].values, de["gene"].values], de[name])
    hits = table[table["qvalue"] <= 0.05].groupby("grouping", observed=False).size()
    assert {grouping.name: grouping.n_hits for grouping in summary.groupings} == hits.to_dict()

    p_values = coex["pvalue"].to_numpy()
    scale = np.sqrt(coex["var"].to_numpy())
    names = coex["gene"].to_numpy()
    expected = set()
    for row, name in enumerate(names):
        others = np.delete(np.arange(names.size), row)
        q_values = false_discovery_control(p_values[row, others])
        expected |= {(name, names[other]) for other in others[q_values <= 0.2]}
    edges = pd.read_parquet(Path(settings.output) / "coex_edges.parquet")
    assert set(zip(edges["gene"], edges["gene_2"], strict=True)) == expected
    position = {name: number for number, name in enumerate(names)}
    rows, columns = edges["gene"].map(position).to_numpy(int), edges["gene_2"].map(position).to_numpy(int)
    np.testing.assert_allclose(edges["r"], coex["dot"].to_numpy()[rows, columns] / (scale[rows] * scale[columns]))


def test_every_group_opens_with_the_names_of_the_schema(settings: RunSettings, client: Client) -> None:
    run(replace(settings, coex=True, permutations=1), client)
    for stage, variables in STAGES.items():
        if stage == "go":  # has levels: tests/test_gene_set_levels.py
            continue
        dataset = group(settings, stage)
        assert set(dataset.data_vars) == set(variables)
        for name, variable in variables.items():
            assert dataset[name].dims == variable.dims
            assert dataset[name].dtype == variable.dtype
            for dim in variable.dims:
                assert dataset.indexes[dim].is_unique


@pytest.mark.slow
def test_groupings_of_every_form_give_the_same(
    settings: RunSettings, screen: SimulatedScreen, client: Client, tmp_path: Path
) -> None:
    frame = pd.DataFrame(screen.groupings.toarray().T, index=screen.cell_names, columns=screen.grouping_names)
    frame.index.name = "cell"
    frame.sample(frac=1, random_state=1).to_csv(tmp_path / "guides.tsv.gz", sep="\t")
    frame.to_parquet(tmp_path / "guides.parquet")
    scipy.io.mmwrite(tmp_path / "guides.mtx", screen.groupings.tocoo())
    (tmp_path / "guides.txt").write_text("\n".join(screen.grouping_names) + "\n")
    run(settings, client)
    expected = group(settings, "de")
    forms = {
        "tsv": {"groupings": str(tmp_path / "guides.tsv.gz")},
        "parquet": {"groupings": str(tmp_path / "guides.parquet")},
        "mtx": {"groupings": str(tmp_path / "guides.mtx"), "grouping_names": str(tmp_path / "guides.txt")},
    }
    for form, options in forms.items():
        other = replace(settings, output=str(tmp_path / form), groupby=None, reference=None, **options)
        run(other, client)
        found = group(other, "de").sel(grouping=expected["grouping"])
        xr.testing.assert_allclose(found, expected, rtol=1e-10)


def test_covariates_of_every_form(
    settings: RunSettings, cell_table: pd.DataFrame, client: Client, tmp_path: Path
) -> None:
    cell_table[["batch", "age"]].to_csv(tmp_path / "covariates.tsv", sep="\t")
    by_column = replace(settings, covariate_columns=("batch", "age"))
    by_file = replace(
        settings, output=str(tmp_path / "file"), covariate_columns=(), covariates=str(tmp_path / "covariates.tsv")
    )
    run(by_column, client)
    run(by_file, client)
    first, second = group(by_column, "normalisation"), group(by_file, "normalisation")
    assert first["covariate"].values.tolist()[:3] == ["batch=b", "batch=c", "age"]
    xr.testing.assert_identical(first, second)


def test_covariate_that_quality_control_leaves_constant_is_dropped(
    settings: RunSettings, screen: SimulatedScreen, client: Client, tmp_path: Path
) -> None:
    totals = np.asarray(screen.counts.sum(axis=0)).ravel()
    is_poor = pd.Series(totals < np.sort(totals)[5], index=pd.Index(screen.cell_names, name="cell"), name="poor")
    is_poor.astype(int).to_csv(tmp_path / "poor.tsv", sep="\t")
    bound = int(np.sort(totals)[6])
    run(replace(settings, covariates=str(tmp_path / "poor.tsv"), min_cell_reads=bound), client)
    assert "poor" not in group(settings, "normalisation")["covariate"].values


def test_without_groupings_there_is_no_differential_expression(settings: RunSettings, client: Client) -> None:
    summary = run(replace(settings, groupby=None, reference=None), client)
    assert summary.groupings == ()
    assert summary.edges is None
    assert summary.tables == ()
    assert not (Path(settings.output) / "de.parquet").exists()


def test_manifest_says_what_was_run(settings: RunSettings, client: Client) -> None:
    run(settings, client)
    manifest = json.loads((Path(settings.output) / "manifest.json").read_text())
    assert set(manifest["stages"]) == {"qc", "normalisation", "de"}
    for stage in manifest["stages"].values():
        assert stage["seconds"] > 0
        assert 50e6 < stage["peak_worker_bytes"] < 1e9
        assert len(stage["worker_peaks"]) == 2
        assert max(stage["worker_peaks"].values()) == stage["peak_worker_bytes"]
        assert 50e6 < stage["peak_client_bytes"] < 5e9
    assert manifest["settings"]["groupby"] == "guide"
    assert manifest["inputs"]["counts"]["n_cells"] == 700
    assert {"normalisr-dask", "dask", "numpy", "python"} <= set(manifest["versions"])


# ---- going on


class Told(Silent):
    """Remembers what was planned, which stages were done and which were taken from an earlier run."""

    def __init__(self) -> None:
        self.planned: list[list[str]] = []
        self.stood: list[list[str]] = []
        self.done: list[str] = []
        self.resumed: list[str] = []

    def run_planned(self, stages: Sequence[StagePlan], done: Collection[str]) -> None:
        assert all(stage.seconds > 0 for stage in stages)
        self.planned.append([stage.name for stage in stages])
        self.stood.append(list(done))

    def stage_started(self, name: str, title: str, total_tasks: int) -> None:
        assert title
        assert total_tasks > 0

    def stage_advanced(self, name: str, done_tasks: int) -> None:
        assert done_tasks >= 0

    def stage_finished(
        self, name: str, seconds: float, *, resumed: bool, note: str, use: Mapping[str, Any] | None = None
    ) -> None:
        assert (use is None) == resumed
        (self.resumed if resumed else self.done).append(name)


def test_second_run_goes_on(settings: RunSettings, client: Client) -> None:
    first, second, third = Told(), Told(), Told()
    run(settings, client, progress=first)
    before = group(settings, "de")
    run(replace(settings, coex=True), client, progress=second)
    assert (first.done, first.resumed) == (["qc", "normalisation", "de"], [])
    assert (second.done, second.resumed) == (["coex", "edges"], ["qc", "normalisation", "de"])
    run(replace(settings, coex=True, qcut=0.5), client, progress=third)
    assert third.done == ["edges"]
    assert first.planned == [["qc", "normalisation", "de"]] * 2
    assert first.stood == [[], ["qc"]]
    assert second.planned == [["qc", "normalisation", "de", "coex", "edges"]] * 2
    assert second.stood == [["qc", "normalisation", "de"]] * 2
    xr.testing.assert_identical(group(settings, "de"), before)


def test_edges_alone_are_those_of_all_gene_pairs(settings: RunSettings, client: Client, tmp_path: Path) -> None:
    """P-values of gene pairs are never stored, nor is any matrix of genes × genes."""
    whole = replace(settings, coex=True, qcut=0.2)
    alone = replace(whole, coex_store="edges", output=str(tmp_path / "alone"))
    first, second = run(whole, client), run(alone, client)
    assert first.edges == second.edges > 0
    expected, found = (pd.read_parquet(Path(each.output) / "coex_edges.parquet") for each in (whole, alone))
    for name in ("gene", "gene_2", "pvalue", "qvalue"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found["r"], expected["r"], rtol=1e-12)
    degree = group(alone, "edges")["degree"]
    xr.testing.assert_identical(degree, group(whole, "edges")["degree"])
    counted = expected["gene"].value_counts()
    assert {name: number for name, number in zip(degree["gene"].values, degree.values, strict=True) if number} == {
        name: number for name, number in counted.items() if number
    }
    assert not (Path(alone.output) / "results.zarr" / "coex").exists()


def test_what_is_stored_of_gene_pairs_may_change(settings: RunSettings, client: Client) -> None:
    """Edges that are there are kept; stored P-values are used again for another Q-value."""
    edges = replace(settings, coex=True, coex_store="edges")
    told = [Told() for _ in range(4)]
    run(edges, client, progress=told[0])
    run(replace(edges, qcut=0.2), client, progress=told[1])
    run(replace(edges, coex_store="all", qcut=0.2), client, progress=told[2])
    run(replace(edges, qcut=0.1), client, progress=told[3])
    assert [each.done for each in told] == [
        ["qc", "normalisation", "de", "edges"],
        ["edges"],
        ["coex"],
        ["edges"],
    ]


def test_stage_that_was_not_recorded_is_made_again(settings: RunSettings, client: Client) -> None:
    run(settings, client)
    before = group(settings, "de")
    path = Path(settings.output) / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["stages"]["de"]
    long_ago = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:00:09+00:00"}
    manifest |= long_ago
    path.write_text(json.dumps(manifest))
    told = Told()
    run(settings, client, progress=told)
    assert told.done == ["de"]
    times = {name: json.loads(path.read_text())[name] for name in long_ago}
    assert times["started"] == long_ago["started"]
    assert times["finished"] > long_ago["finished"]
    run(settings, client)
    assert times.items() <= json.loads(path.read_text()).items()  # a call that does nothing changes no time
    xr.testing.assert_identical(group(settings, "de"), before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_gene_cells": 21}, "holds another run: it has min_gene_cells = 20, asked for is 21"),
        ({"covariate_columns": ()}, "holds another run: it has covariate_columns"),
    ],
)
def test_other_settings_need_another_folder(
    settings: RunSettings, client: Client, change: dict[str, object], message: str
) -> None:
    run(settings, client)
    with pytest.raises(ValueError, match=message):
        run(replace(settings, **change), client)


def test_folder_of_something_else_is_left_alone(settings: RunSettings, client: Client) -> None:
    folder = Path(settings.output)
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match="holds other files and no run; give an empty or a new folder"):
        run(settings, client)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]


def test_damaged_manifest(settings: RunSettings, client: Client) -> None:
    folder = Path(settings.output)
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is damaged .*; remove the folder"):
        run(settings, client)


def test_manifest_of_another_version(settings: RunSettings, client: Client) -> None:
    folder = Path(settings.output)
    folder.mkdir()
    (folder / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(ValueError, match="is of format version 99, expected 1"):
        run(settings, client)


# ---- the plan, and what does not fit


def test_plan_reads_no_counts_and_names_every_stage(settings: RunSettings) -> None:
    with count_reads(Path(settings.store) / "X") as reads:
        planned = plan(replace(settings, coex=True, permutations=2), **LIMITS)
    assert not [key for key in reads.data() if key.startswith(("data/", "indices/"))]
    assert [stage.name for stage in planned.stages] == ["qc", "normalisation", "de", "calibration", "coex", "edges"]
    for stage in planned.stages:
        assert stage.tasks > 0
        assert stage.bytes_read > 0
        assert stage.seconds > 0
        assert re.search(r"(blocks: \d+ × \d+ cells|(tiles|blocks) of \d+ × \d+ genes)", stage.note)
        assert 0 < stage.peak_task_bytes < LIMITS["memory_limit"]


def test_plan_of_edges_alone_stores_no_pairs(settings: RunSettings) -> None:
    planned = plan(replace(settings, coex=True, coex_store="edges"), **LIMITS)
    assert [stage.name for stage in planned.stages] == ["qc", "normalisation", "de", "edges"]
    assert planned.stages[-1].bytes_written < 300 * 300
    assert "1 pass over the counts" in planned.stages[-1].note


def test_plan_of_the_command_itself_follows_tests_and_no_permutations(settings: RunSettings) -> None:
    few, many = (plan(replace(settings, permutations=number), **LIMITS).command_bytes for number in (1, 1000))
    assert few == many > plan(replace(settings, groupby=None, reference=None), **LIMITS).command_bytes


@pytest.mark.parametrize("coex", [False, True], ids=["tests alone", "gene pairs"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("limit", ["350MB", "505MB"])
def test_plan_refuses_what_does_not_fit_and_names_a_limit_that_does(
    settings: RunSettings, limit: str, threads: int, *, coex: bool
) -> None:
    settings = replace(settings, coex=coex)
    size = {"memory_limit": parse_bytes(limit), "workers": 2, "threads_per_worker": threads}
    with pytest.raises(
        ValueError, match=r"the largest task .* needs .*, allowed are .*; give --memory-limit .* or more"
    ) as refusal:
        plan(settings, **size)
    assert f"({threads} thread{'s' if threads > 1 else ''}, " in str(refusal.value)
    named = re.search(r"--memory-limit (\S+) or more", str(refusal.value))
    assert named is not None
    plan(settings, **(size | {"memory_limit": parse_bytes(named[1])}))


def test_smaller_memory_makes_smaller_blocks(settings: RunSettings) -> None:
    large = plan(settings, **LIMITS)
    small = plan(settings, **(LIMITS | {"memory_limit": parse_bytes("535MB")}))
    assert small.cells_per_block < large.cells_per_block
    assert max(stage.peak_task_bytes for stage in small.stages) < max(stage.peak_task_bytes for stage in large.stages)
    assert all(before.note != after.note for before, after in zip(large.stages, small.stages, strict=True))


def test_blocks_of_stages_that_are_done_are_kept_or_a_warning_says_so(settings: RunSettings, client: Client) -> None:
    run(replace(settings, groupby=None, reference=None, covariate_columns=()), client)
    done = replace(settings, groupby=None, reference=None, covariate_columns=(), coex=True)
    begun = json.loads((Path(settings.output) / "manifest.json").read_text())["stages"]["qc"]["cells_per_block"]
    assert plan(done, **(LIMITS | {"memory_limit": parse_bytes("9GB")})).cells_per_block == begun
    with pytest.warns(UserWarning, match=f"begun in blocks of {begun} cells, .* too little memory now"):
        fewer = plan(done, **(LIMITS | {"memory_limit": parse_bytes("560MB")})).cells_per_block
    assert fewer < begun


def test_counts_that_are_replaced_during_a_run_end_it(settings: RunSettings, client: Client, tmp_path: Path) -> None:
    store, other = tmp_path / "a.zarr", tmp_path / "b.zarr"
    shutil.copytree(settings.store, store)
    shutil.copytree(settings.store, other)
    metadata = json.loads((other / "zarr.json").read_text())
    metadata["attributes"]["normalisr_dask"]["total_count"] += 1
    (other / "zarr.json").write_text(json.dumps(metadata))

    class Replacing(Silent):
        def stage_started(self, name: str, title: str, n_tasks: int) -> None:
            if name == "normalisation":
                store.rename(tmp_path / "before.zarr")
                other.rename(store)

    asked = replace(settings, store=str(store))
    with pytest.raises(ValueError, match=r"a\.zarr was replaced while the run read it"):
        run(asked, client, progress=Replacing())
    assert list(json.loads((Path(settings.output) / "manifest.json").read_text())["stages"]) == ["qc"]
    with pytest.raises(ValueError, match="holds a run on other counts"):
        run(asked, client)
    store.rename(other)
    (tmp_path / "before.zarr").rename(store)
    run(asked, client)
    assert group(settings, "de")["pvalue"].notnull().all()


@pytest.mark.filterwarnings("ignore:Writing zarr v2 data")
def test_a_store_of_zarr_format_2_gives_the_same_results(settings: RunSettings, client: Client, tmp_path: Path) -> None:
    with anndata.settings.override(zarr_write_format=2, auto_shard_zarr_v3=False):
        anndata.read_zarr(settings.store).write_zarr(tmp_path / "older.zarr")
    done = run(settings, client)
    older = replace(settings, store=str(tmp_path / "older.zarr"), output=str(tmp_path / "older"))
    assert run(older, client).groupings == done.groupings
    assert run(older, client).groupings == done.groupings  # goes on, as nothing has changed
    xr.testing.assert_identical(group(older, "de"), group(settings, "de"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"store": "/no/such/store.zarr"}, "there is no count store at"),
        ({"store": ""}, "expected the path of a folder or file, or a URL, found an empty one"),
        ({"output": ""}, "expected the path of a folder or file, or a URL, found an empty one"),
        ({"groupby": "gilde"}, r"groupby 'gilde' is not one of .*; did you mean 'guide'\?"),
        ({"reference": "nun"}, "none"),
        ({"covariate_columns": ("sex",)}, "covariate_columns 'sex' is not one of"),
        ({"groupings": "guides.tsv"}, "not both"),
        ({"groupby": None}, "a reference level needs the column it belongs to"),
        ({"qcut": 0.0}, "qcut must be above 0"),
        ({"min_gene_cell_fraction": 1.5}, "min_gene_cell_fraction must lie between 0 and 1"),
        ({"min_gene_cells": -1}, "min_gene_cells must be 0 or more"),
        ({"groupby": None, "reference": None, "groupings": "/no/such.tsv"}, "/no/such.tsv"),
        ({"groupby": None, "reference": None, "grouping_names": "names.txt"}, "names of groupings need their file"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    settings: RunSettings, client: Client, change: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        run(replace(settings, **change), client)
    assert not Path(settings.output).exists()


def test_nothing_passes_quality_control(settings: RunSettings, client: Client) -> None:
    with pytest.raises(ValueError, match="expected some cells to pass quality control, found none of 700"):
        run(replace(settings, min_cell_reads=10**6), client)


def test_groupings_that_cannot_be_tested_are_named(settings: RunSettings, client: Client, tmp_path: Path) -> None:
    store = open_count_store(settings.store)
    guides = pd.get_dummies(store.obs()["guide"]).drop(columns="none").astype(int)
    guides.insert(0, "twin", guides.iloc[:, 2])
    guides.to_csv(tmp_path / "guides.tsv", sep="\t")
    asked = replace(settings, groupby=None, reference=None, groupings=str(tmp_path / "guides.tsv"))
    with pytest.warns(UntestableGroupingWarning, match=r"2 of \d+ groupings cannot be tested .* the first 'twin'"):
        run(replace(asked, other_groupings="covariates"), client)
    assert (group(settings, "de").sel(grouping="twin")["pvalue"] == 1).all()
    stages = json.loads((Path(settings.output) / "manifest.json").read_text())["stages"]
    assert [len(stage["warnings"]) for stage in stages.values()] == [0, 0, 1]
    assert "the first 'twin'" in stages["de"]["warnings"][0]
