"""What ``info`` prints of outputs; of stores, and of real runs from the command line: tests/test_cli.py."""

import shlex
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.cli.info_work import command_line
from normalisr_dask.settings import LinearModelSettings, RunSettings
from normalisr_dask.storage.manifest import Manifest

USE = {"seconds": 75.0, "peak_worker_bytes": 2_000_000, "note": "as it should be"}
RUN = RunSettings(
    *("my counts.zarr", "out/run 1"), groupings="a.mtx", grouping_names="n.txt", grouping_cells="c.txt",
    other_groupings="exclude", targets="t.tsv", test="guides", control=("c1", "c2"), control_file="c.tsv",
    control_use="negative", min_grouping_cells=5, pairs="p.tsv", permutations=3, seed=4, covariates="v.tsv",
    covariate_columns=("batch", "sex"), coex=True, qcut=0.01, coex_store="edges", go=("terms.obo", "genes.gaf"),
    go_levels=2, go_names="g.tsv", min_gene_reads=1, min_gene_cells=2, min_gene_cell_fraction=0.1, min_cell_reads=3,
    min_cell_genes=4, min_cell_gene_fraction=0.2,
)  # fmt: skip
MODELS = LinearModelSettings(
    *("samples.h5ad", "~ 0 + arm"), block="donor", sample_weights=True, contrast=("A=b - a", "c - b"), layer="x",
    trend=True, robust=True,
)  # fmt: skip


@pytest.mark.parametrize("settings", [RUN, MODELS, RunSettings("s", "o"), RunSettings("s", "o", groupby="g x")])
def test_the_command_it_shows_asks_for_the_same(settings: RunSettings | LinearModelSettings) -> None:
    program, name, *words = shlex.split(command_line(settings, "out/run 1"))
    assert program == "normalisr-dask"
    found = get_command(app).commands[name].make_context(name, words).params
    expected = asdict(settings) | ({"output": "out/run 1"} if name == "vooma" else {})
    for field in fields(settings):
        value = expected[field.name]
        if field.name in {"control", "covariate_columns"}:
            value = ",".join(value) or None
        elif field.name == "contrast":
            value = list(value) or None
        elif field.name == "go_levels" and settings.go is None:
            value = None
        assert found[field.name] == value, field.name


def output_of(folder: Path, settings: RunSettings, *stages: str) -> Path:
    """Write an output as far as its manifest goes."""
    manifest = Manifest.begin(folder / "out", asdict(settings), {})
    for stage in stages:
        manifest.record(stage, USE | ({"warnings": ["few cells"]} if stage == "qc" else {}))
    return folder / "out"


def test_of_an_unfinished_run_it_tells_what_is_missing(tmp_path: Path) -> None:
    settings = RunSettings("counts.zarr", "out", groupby="guide", coex=True)
    output = output_of(tmp_path, settings, "qc", "normalisation")
    lines = CliRunner().invoke(app, ["info", str(output)]).stdout.splitlines()
    assert lines[:6] == [
        f"Output {output}, unfinished",
        "  qc             as it should be; 1 min 15 s, up to 2.0 MB a worker",
        "  normalisation  as it should be; 1 min 15 s, up to 2.0 MB a worker",
        "  de             not done yet",
        "  coex           not done yet",
        "  edges          not done yet",
    ]
    assert "  few cells" in lines
    assert "  normalisr-dask run counts.zarr -o out --groupby guide --coex" in lines


def test_of_a_finished_run_it_tells_where_things_are(tmp_path: Path) -> None:
    settings = RunSettings("counts.zarr", "out", groupby="guide")
    output = output_of(tmp_path, settings, "qc", "normalisation", "de")
    (output / "de.parquet").write_bytes(b"0" * 1500)
    told = CliRunner().invoke(app, ["info", str(output)]).stdout
    assert f"Output {output}, finished\n" in told
    assert f"report.html   not there; normalisr-dask report {output} writes it" in told
    assert "de.parquet    every grouping and gene (1.5 kB)" in told
    assert f"xarray.open_zarr('{output}/results.zarr', group='de')" in told
    (output / "report.html").write_bytes(b"0" * 800_000)
    assert "report.html   figures and tables of all this" in CliRunner().invoke(app, ["info", str(output)]).stdout
