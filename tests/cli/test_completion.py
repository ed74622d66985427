"""Tab completion, asked for as bash asks for it, and once by bash itself."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from normalisr_dask.storage.ingest import ingest

PROGRAM = Path(sys.executable).with_name("normalisr-dask")


def completions(line: str, folder: Path) -> list[str]:
    """Return what is offered for the last word of a line."""
    words = line.split(" ")
    asked = {"_NORMALISR_DASK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run([PROGRAM], cwd=folder, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def bash(script: str, home: Path) -> str:
    environment = os.environ | {"HOME": str(home), "PATH": f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Stores of both Zarr formats, whole and damaged, as far as the shell looks into them."""
    for name, content in {
        "counts.zarr/obs/zarr.json": '{"attributes": {"column-order": ["batch", "guide", "guide_score"]}}',
        "old.zarr/obs/.zattrs": '{"column-order": ["donor"]}',
        "damaged.zarr/obs/zarr.json": '{"attributes": ["column-order"',
        "other.zarr/obs/zarr.json": "[]",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("normalisr-dask ing", ["ingest"]),
        ("normalisr-dask run counts.zarr --other", ["--other-groupings"]),
        ("normalisr-dask run counts.zarr --other-groupings ", ["ignore", "exclude", "covariates"]),
        ("normalisr-dask run counts.zarr --groupby ", ["batch", "guide", "guide_score"]),
        ("normalisr-dask run -o out counts.zarr --groupby gui", ["guide", "guide_score"]),
        ("normalisr-dask run old.zarr --groupby ", ["donor"]),
        ("normalisr-dask run counts.zarr --covariate-columns batch,b", []),
        ("normalisr-dask run counts.zarr --covariate-columns guide,b", ["guide,batch"]),
        ("normalisr-dask pseudobulk counts.zarr samples.h5ad --by b", ["batch"]),
        ("normalisr-dask run damaged.zarr --groupby ", []),
        ("normalisr-dask run other.zarr --groupby ", []),
        ("normalisr-dask run s3://nowhere/counts.zarr --groupby ", []),
        ("normalisr-dask run --groupby ", []),
    ],
)
def test_it_offers_what_fits(line: str, offered: list[str], folder: Path) -> None:
    assert completions(line, folder) == offered


def test_columns_are_those_of_a_real_store(tmp_path: Path) -> None:
    (tmp_path / "table.tsv").write_text("gene\ta\tb\nx\t1\t2\n")
    (tmp_path / "obs.tsv").write_text("cell\tcell_type\na\tB\nb\tT\n")
    ingest(tmp_path / "table.tsv", tmp_path / "counts.zarr", obs=tmp_path / "obs.tsv")
    assert completions("normalisr-dask run counts.zarr --groupby c", tmp_path) == ["cell_type"]


def test_bash_completes_once_it_is_installed(tmp_path: Path) -> None:
    told = bash("normalisr-dask --install-completion; true", tmp_path)
    assert "bash completion installed in" in told
    script = """
    shopt -s expand_aliases
    source ~/.bashrc
    COMP_WORDS=(normalisr-dask run counts.zarr --min-gene-cell-f) COMP_CWORD=3
    _normalisr_dask_completion normalisr-dask
    echo "${COMPREPLY[@]}"
    """
    assert bash(script, tmp_path).split() == ["--min-gene-cell-fraction"]
