"""Screens within a run: targets, controls, pairs, and calibration."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from scipy import sparse
from scipy.stats import false_discovery_control

import normalisr_dask as nd
from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.counts import open_counts
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.stored_expression import stored_expression
from normalisr_dask.testing import SimulatedScreen, simulate_screen, write_cell_ranger_folder


@pytest.fixture(scope="module")
def simulated() -> SimulatedScreen:
    return simulate_screen(
        300, 700, 8, seed=2, n_controls=2, n_downstream=3, n_modules=2, module_size=12, median_depth=1500
    )


@pytest.fixture(scope="module")
def folder(simulated: SimulatedScreen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A count store, a table of guides, and one of their targets."""
    path = tmp_path_factory.mktemp("screen")
    write_cell_ranger_folder(path / "raw", simulated.counts, simulated.gene_names, simulated.cell_names)
    ingest([path / "raw"], path / "counts.zarr")
    cells = pd.Index(simulated.cell_names, name="cell")
    pd.DataFrame(simulated.groupings.toarray().T, index=cells, columns=simulated.grouping_names).to_parquet(
        path / "guides.parquet"
    )
    targets = [name.partition("_")[0] for name in simulated.grouping_names]
    pd.DataFrame({"guide": simulated.grouping_names, "target": targets}).to_csv(
        path / "targets.tsv", sep="\t", index=False
    )
    return path


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


@pytest.fixture
def run_settings(folder: Path, tmp_path: Path) -> RunSettings:
    return settings_of(folder, tmp_path / "out")


@pytest.fixture(scope="module")
def plain(folder: Path, two_workers: LocalCluster) -> RunSettings:
    """A run of every guide, as ``run_settings`` asks for it."""
    settings = settings_of(folder, folder / "plain")
    with connect(ClusterSettings(scheduler=two_workers.scheduler_address)) as client:
        run(settings, client)
    return settings


def settings_of(folder: Path, output: Path) -> RunSettings:
    return RunSettings(
        store=str(folder / "counts.zarr"),
        output=str(output),
        groupings=str(folder / "guides.parquet"),
        min_gene_cells=20,
        min_cell_reads=300,
        min_cell_genes=50,
    )


def results(settings: RunSettings, stage: str = "de") -> xr.Dataset:
    return xr.open_zarr(Path(settings.output) / "results.zarr", group=stage).load()


def table(settings: RunSettings) -> pd.DataFrame:
    return pd.read_parquet(Path(settings.output) / "de.parquet")


def test_testing_targets_is_testing_the_union_of_their_guides(
    run_settings: RunSettings, folder: Path, tmp_path: Path, client: Client
) -> None:
    guides = pd.read_parquet(folder / "guides.parquet")
    target_of = pd.read_csv(folder / "targets.tsv", sep="\t", index_col=0)["target"]
    guides.T.groupby(target_of, sort=False).max().T.to_parquet(tmp_path / "united.parquet")
    by_target = replace(run_settings, targets=str(folder / "targets.tsv"))
    united = replace(run_settings, groupings=str(tmp_path / "united.parquet"), output=str(tmp_path / "united"))
    run(by_target, client)
    run(united, client)
    xr.testing.assert_identical(results(by_target), results(united))
    found = table(by_target)
    assert (found["target"] == found["grouping"]).all()
    assert "target" not in table(united).columns


def test_control_guides_as_reference_are_left_out(
    run_settings: RunSettings, plain: RunSettings, folder: Path, client: Client
) -> None:
    without = replace(
        run_settings,
        targets=str(folder / "targets.tsv"),
        test="guides",
        control=("control",),
        control_use="reference",
    )
    summary = run(without, client)
    expected, found = results(plain), results(without)
    assert not [name for name in found["grouping"].values if name.startswith("control")]
    assert len(summary.groupings) == found.sizes["grouping"] == expected.sizes["grouping"] - 2
    names = ["pvalue", "gamma", "qvalue"]
    xr.testing.assert_allclose(found[names], expected[names].sel(grouping=found["grouping"]), rtol=1e-9)
    assert table(without).groupby("grouping", observed=True)["target"].first().to_dict() == {
        name: name.partition("_")[0] for name in found["grouping"].values
    }


def test_small_groupings_are_left_out_and_listed(run_settings: RunSettings, client: Client) -> None:
    n_cells = pd.read_parquet(run_settings.groupings).sum()
    bound = int(n_cells.sort_values().iloc[3])
    with pytest.warns(UserWarning, match=f"groupings have fewer than {bound} cells after quality control"):
        summary = run(replace(run_settings, min_grouping_cells=bound), client)
    found = results(run_settings)
    assert (found["n_cells"] >= bound).all()
    manifest = json.loads((Path(run_settings.output) / "manifest.json").read_text())
    left_out = manifest["stages"]["de"]["groupings_left_out"]
    assert len(left_out) >= 3
    assert sorted([*left_out, *found["grouping"].values]) == sorted(n_cells.index)
    assert len(summary.groupings) == found.sizes["grouping"]


def test_pairs_restrict_tests_and_correction(
    run_settings: RunSettings, plain: RunSettings, simulated: SimulatedScreen, tmp_path: Path, client: Client
) -> None:
    every = results(plain)
    names = every["gene"].values[:40]
    pairs = pd.DataFrame(
        [(grouping, gene) for row, grouping in enumerate(simulated.grouping_names[:5]) for gene in names[row::5]],
        columns=["guide", "gene"],
    )
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    asked = replace(run_settings, output=str(tmp_path / "pairs"), pairs=str(tmp_path / "pairs.csv"))
    run(asked, client)
    chosen, found = results(asked), table(asked)
    assert set(found[["grouping", "gene"]].itertuples(index=False, name=None)) == set(
        pairs.itertuples(index=False, name=None)
    )
    is_pair = ~np.isnan(chosen["pvalue"].to_numpy())
    assert is_pair.sum() == len(pairs)
    for name in ("pvalue", "log10_pvalue", "gamma", "se"):
        values = chosen[name].to_numpy()
        np.testing.assert_array_equal(np.isnan(values), ~is_pair)
        np.testing.assert_allclose(values[is_pair], every[name].to_numpy()[is_pair], rtol=1e-10)
    p_values = chosen["pvalue"].to_numpy()
    q_all, q_within = chosen["qvalue_all"].to_numpy(), chosen["qvalue"].to_numpy()
    np.testing.assert_allclose(q_all[is_pair], false_discovery_control(p_values[is_pair]), rtol=1e-12)
    assert np.isnan(q_all[~is_pair]).all()
    for row in range(5):
        tests = is_pair[row]
        np.testing.assert_allclose(q_within[row, tests], false_discovery_control(p_values[row, tests]), rtol=1e-12)
    assert np.isnan(q_within[5:]).all()


def test_groupings_of_other_cells_come_with_their_names(
    run_settings: RunSettings, plain: RunSettings, simulated: SimulatedScreen, tmp_path: Path, client: Client
) -> None:
    order = np.random.default_rng(1).permutation(len(simulated.cell_names))
    lines = sparse.coo_array(simulated.groupings[:, order])
    entries = "".join(f"{row + 1} {cell + 1} 1\n" for row, cell in zip(*lines.coords, strict=True))
    header = f"%%MatrixMarket matrix coordinate integer general\n{lines.shape[0]} {lines.shape[1]} {lines.nnz}\n"
    matrix = write(tmp_path / "guides.mtx", header + entries)
    names = write(tmp_path / "guides.txt", "\n".join(simulated.grouping_names))
    cells = write(tmp_path / "cells.txt", "\n".join(simulated.cell_names[cell] for cell in order))
    asked = replace(
        run_settings, output=str(tmp_path / "mtx"), groupings=matrix, grouping_names=names, grouping_cells=cells
    )
    run(asked, client)
    xr.testing.assert_identical(results(asked), results(plain))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groupings": None, "targets": "t.tsv"}, r"--targets needs groupings to test \(--groupings or --groupby\)"),
        ({"groupings": None, "control": ("a",)}, "--control needs groupings"),
        ({"groupings": None, "control_file": "c.txt"}, "--control-file needs groupings"),
        ({"groupings": None, "pairs": "p.tsv"}, "--pairs needs groupings"),
        ({"groupings": None, "permutations": 2}, "--permutations needs groupings"),
        ({"test": "targets"}, r"to test targets, give the table of guides and targets \(--targets\)"),
        ({"control_use": "reference"}, r"\(--control-use\) needs controls"),
        ({"control": ("x",), "control_use": "both"}, "control_use 'both' is not one of 'reference', 'negative'"),
        ({"test": "guide"}, "test 'guide' is not one of .* did you mean 'guides'?"),
        ({"min_grouping_cells": -1}, "min_grouping_cells must be at least 0"),
        ({"targets": "/no/such.tsv"}, "/no/such.tsv"),
        ({"control_file": "/no/such.txt"}, "/no/such.txt"),
        ({"pairs": "/no/such.csv"}, "/no/such.csv"),
        (
            {"grouping_cells": "cells.txt"},
            r"names of the cells of groupings \(--grouping-cells\) are for Matrix Market",
        ),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(
    run_settings: RunSettings, client: Client, change: dict[str, object], message: str
) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        run(replace(run_settings, **change), client)
    assert not Path(run_settings.output).exists()


class TestCalibration:
    def test_negative_controls_and_permuted_groupings(
        self, run_settings: RunSettings, folder: Path, client: Client
    ) -> None:
        asked = replace(
            run_settings, targets=str(folder / "targets.tsv"), test="guides", control=("control",), permutations=2
        )
        summary = run(asked, client)
        de, found = results(asked), results(asked, "calibration")
        assert found["family"].values.tolist() == ["tested", "control", "permuted"]
        is_control = np.array([name.startswith("control") for name in de["grouping"].values])
        assert is_control.sum() == 2
        n_genes = de.sizes["gene"]
        assert found["n_tests"].values.tolist() == [
            n_genes * (~is_control).sum(),
            n_genes * 2,
            2 * n_genes * de.sizes["grouping"],
        ]
        for family, rows in (("tested", ~is_control), ("control", is_control)):
            log10_p = de["log10_pvalue"].values[rows]
            of_family = found.sel(family=family)
            assert of_family["inflation"] == nd.inflation(log10_p, log10=True).compute()
            np.testing.assert_array_equal(of_family["observed"], nd.qq(log10_p, log10=True).observed)
            np.testing.assert_array_equal(of_family["expected"], nd.qq(log10_p, log10=True).expected)
        assert found["inflation"].sel(family="permuted") == pytest.approx(1.0, abs=0.15)
        shown = [(family.family, family.n_tests, family.inflation) for family in summary.calibration]
        assert shown == list(
            zip(*(found[name].values.tolist() for name in ("family", "n_tests", "inflation")), strict=True)
        )

    def test_families_without_tests_are_left_out(
        self, run_settings: RunSettings, simulated: SimulatedScreen, tmp_path: Path, client: Client
    ) -> None:
        controls = tuple(name for name in simulated.grouping_names if name.startswith("control"))
        first, genes = simulated.grouping_names[0], open_counts(run_settings.store).genes[:200]
        assert first not in controls
        pd.DataFrame({"guide": first, "gene": genes}).to_csv(tmp_path / "pairs.csv", index=False)
        summary = run(replace(run_settings, pairs=str(tmp_path / "pairs.csv"), control=controls), client)
        (family,) = summary.calibration
        assert family.family == "tested"
        assert 0 < family.n_tests <= 200

    @pytest.mark.slow
    def test_permutations_are_seeded_and_their_number_may_change(
        self, run_settings: RunSettings, tmp_path: Path, client: Client
    ) -> None:
        run(replace(run_settings, permutations=1), client)
        first = results(run_settings, "calibration")
        again = replace(run_settings, output=str(tmp_path / "again"))
        run(replace(again, permutations=1), client)
        xr.testing.assert_identical(results(again, "calibration"), first)
        run(replace(again, permutations=1, seed=5), client)
        other = results(again, "calibration")
        assert (other["observed"] != first["observed"]).sel(family="permuted").any()
        run(replace(again, permutations=3, seed=5), client)
        n_tests = results(again, "calibration")["n_tests"].sel(family="permuted")
        assert n_tests == 3 * first["n_tests"].sel(family="permuted")
        done = json.loads((tmp_path / "again" / "manifest.json").read_text())["stages"]["calibration"]
        assert (done["permutations"], done["seed"]) == (3, 5)

    def test_without_controls_and_permutations_there_is_none(self, run_settings: RunSettings, client: Client) -> None:
        summary = run(run_settings, client)
        assert summary.calibration == ()
        assert not (Path(run_settings.output) / "results.zarr" / "calibration").exists()

    @pytest.mark.parametrize("other_groupings", ["ignore", "exclude", "covariates"])
    def test_reference_controls_are_tested_against_cells_like_them(
        self, run_settings: RunSettings, simulated: SimulatedScreen, client: Client, other_groupings: str
    ) -> None:
        controls = ("control_g1", "control_g2")
        asked = replace(run_settings, control=controls, control_use="reference", other_groupings=other_groupings)
        run(asked, client)
        found = results(asked, "calibration")
        assert found["family"].values.tolist() == ["tested", "control"]
        stored = stored_expression(ResultStore(asked.output), open_counts(asked.store))
        values = simulated.groupings.toarray().astype(float)[:, stored.cells]
        is_like = np.ones(len(stored.cells), dtype=bool)
        if other_groupings != "ignore":
            is_like = values[-2:].any(axis=0)
        expression, covariates = stored.expression.compute(), stored.covariates.compute()
        wanted = nd.de(values[-2:, is_like], expression[:, is_like], covariates[:, is_like])
        of_controls = found.sel(family="control")
        np.testing.assert_allclose(
            of_controls["observed"], nd.qq(wanted.log10_pvalue, log10=True).observed, rtol=1e-4, atol=1e-6
        )
        assert of_controls["n_tests"] == wanted.pvalue.size


@pytest.mark.parametrize("n_tested", [1, 6])
@pytest.mark.filterwarnings("ignore:1 of 2 groupings cannot be tested")
def test_with_reference_controls_and_others_excluded_cells_are_compared_with_controls_alone(
    run_settings: RunSettings, simulated: SimulatedScreen, tmp_path: Path, client: Client, n_tested: int
) -> None:
    names = [*simulated.grouping_names[:n_tested], "control_g1", "control_g2"]
    pd.read_parquet(run_settings.groupings)[names].to_parquet(tmp_path / "guides.parquet")
    asked = replace(
        run_settings,
        groupings=str(tmp_path / "guides.parquet"),
        control=("control_g1", "control_g2"),
        other_groupings="exclude",
    )
    run(asked, client)
    found = results(asked)
    stored = stored_expression(ResultStore(asked.output), open_counts(asked.store))
    rows = [simulated.grouping_names.index(name) for name in names]
    values = simulated.groupings.toarray().astype(float)[rows][:, stored.cells]
    assert (values.sum(axis=0) == 0).any()
    expression, covariates = stored.expression.compute(), stored.covariates.compute()
    for row in range(n_tested):
        chosen = values[[row, -2, -1]].any(axis=0)
        wanted = nd.de(values[[row]][:, chosen], expression[:, chosen], covariates[:, chosen])
        np.testing.assert_allclose(found["log10_pvalue"][row], wanted.log10_pvalue.compute()[0], rtol=1e-6, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("other_groupings", ["exclude", "covariates"])
def test_cells_of_groupings_too_small_to_test_are_still_in_another_grouping(
    run_settings: RunSettings, tmp_path: Path, client: Client, other_groupings: str
) -> None:
    guides = pd.read_parquet(run_settings.groupings)
    guides["empty"] = 0
    guides.to_parquet(tmp_path / "guides.parquet")
    every = replace(run_settings, other_groupings=other_groupings, min_grouping_cells=1)
    run(every, client)
    bound = int(results(every)["n_cells"].min()) + 1
    large = replace(
        every,
        groupings=str(tmp_path / "guides.parquet"),
        output=str(tmp_path / "large"),
        min_grouping_cells=bound,
    )
    with pytest.warns(UserWarning, match="fewer than|same value") as warned:
        run(large, client)
    texts = sorted(str(warning.message) for warning in warned)
    assert [text.partition(",")[0] for text in texts] == [
        f"2 of 9 groupings have fewer than {bound} cells after quality control and are not tested",
        "groupings: 1 have the same value in all cells",
    ]
    found = results(large)
    xr.testing.assert_allclose(
        found.drop_vars("qvalue_all"),
        results(every).drop_vars("qvalue_all").sel(grouping=found["grouping"]),
        rtol=1e-9,
    )
