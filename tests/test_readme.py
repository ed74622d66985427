"""What the README shows does what the README says."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import xarray as xr

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def run(*command: str, folder: Path) -> str:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": programs}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_fits_on_a_screen_or_two() -> None:
    assert len(README.splitlines()) <= 100


def test_the_commands_of_a_fresh_machine_are_there() -> None:
    (try_it,) = (block for block in blocks("bash") if "pip install" in block)
    assert try_it.splitlines() == [
        "pip install '.[report]' && normalisr-dask demo",
        "pip install -e '.[test]' && pytest -n 2 --dist loadfile",
    ]


@pytest.mark.slow
def test_the_walk_through(tmp_path: Path, real_data: Path) -> None:
    with tarfile.open(real_data / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    shutil.copy(real_data / "pbmc3k_cell_types.tsv", tmp_path)

    (commands,) = (block for block in blocks("bash") if "pbmc3k" in block)
    run("bash", "-euo", "pipefail", "-c", commands, folder=tmp_path)
    (script,) = blocks("python")
    printed = run(sys.executable, "-c", script, folder=tmp_path)

    assert printed.strip() == re.search(r"# (\[.*\])", script)[1]
    tests = pd.read_parquet(tmp_path / "results" / "de.parquet").query("grouping == 'CD14+ Mono'")
    assert list(tests.sort_values("log10_pvalue")["gene"].astype(str)[:3]) == ["S100A9", "S100A8", "LYZ"]
    assert len(pd.read_parquet(tmp_path / "results" / "coex_edges.parquet")) > 0
    with xr.open_zarr(tmp_path / "results" / "results.zarr", group="de") as arrays:
        of_s100a9 = arrays.sel(grouping="CD14+ Mono", gene="S100A9").load()
        assert of_s100a9["pvalue"] == 0
        assert of_s100a9["log10_pvalue"] < -308
