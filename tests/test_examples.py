"""The examples run as their first lines say, on real and on small simulated data, and each draws its picture."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import anndata
import matplotlib.image
import pytest
from slurm import slurm

import normalisr_dask as nd

EXAMPLES = Path(__file__).parents[1] / "examples"
SECONDS = 300
#: What an example needs that is no dependency of the package.
NEEDED = {"scanpy_round_trip": ("scanpy", "igraph")}


def run(name: str, *arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Run an example in a process of its own, and return what it prints."""
    for module in NEEDED.get(name, ()):
        pytest.importorskip(module, reason=f"the example needs {module}")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    variables = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=variables, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_picture(path: Path) -> None:
    """Check that the picture is there and not blank."""
    pixels = matplotlib.image.imread(path)
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.02


@pytest.fixture(scope="module")
def pbmc3k(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pbmc3k")
    with tarfile.open(real_data / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "filtered_gene_bc_matrices" / "hg19"


def test_every_example_is_run_here() -> None:
    tests = Path(__file__).read_text()
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    assert len(names) >= 4
    assert [name for name in names if f'run("{name}"' not in tests] == []


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
@pytest.mark.slow
def test_help_does_nothing_else(name: str, tmp_path: Path) -> None:
    assert run(name, "--help", cwd=tmp_path).startswith(f"usage: {name}.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_case_control_finds_the_genes_of_the_textbook(pbmc3k: Path, real_data: Path, tmp_path: Path) -> None:
    printed = run("case_control_de", pbmc3k, real_data / "pbmc3k_cell_types.tsv", tmp_path / "out", cwd=tmp_path)
    top = [line.split()[0] for line in printed.splitlines()[3:15]]
    assert top[0] == "FCGR3A"
    assert {"LYZ", "S100A8", "S100A9", "CD14"} <= set(top)
    assert (
        (tmp_path / "out" / "monocytes.tsv").read_text().startswith("gene\teffect\tstandard_error\tlog10_p\nFCGR3A\t")
    )
    assert_picture(tmp_path / "out" / "monocytes.png")


@pytest.mark.slow
def test_high_moi_needs_the_other_guides_as_covariates(tmp_path: Path) -> None:
    printed = run("high_moi_screen", "out", "--cells", "3000", cwd=tmp_path).splitlines()
    wrong = {
        line.partition(":")[0]: int(line.split(", ")[1].split()[0]) for line in printed if "hits are wrong" in line
    }
    assert wrong["ignoring others"] > 4 * wrong["others as covariates"]
    assert_picture(tmp_path / "out" / "competition.png")


@pytest.mark.slow
def test_the_network_thins_out_from_level_to_level(pbmc3k: Path, real_data: Path, tmp_path: Path) -> None:
    go = [next((real_data / "go").glob(pattern)) for pattern in ("*.obo.gz", "*.gaf.gz")]
    options = ("--levels", "1", "--least-share", "0.2")
    printed = run("coexpression_levels", pbmc3k, *go, "out", *options, cwd=tmp_path).splitlines()
    edges = [int(line.split()[2].replace(",", "")) for line in printed if line.startswith("level ")]
    assert len(edges) == 2
    assert edges[0] > 1.3 * edges[1] > 0
    assert_picture(tmp_path / "out" / "levels.png")


@pytest.mark.slow
def test_low_moi_finds_the_regulators(real_data: Path, tmp_path: Path) -> None:
    for _ in range(2):  # a second time it goes on with what is there
        printed = run("low_moi_screen", real_data / "papalexi_lowmoi", "out", cwd=tmp_path)
    top = [line.split()[0] for line in printed.splitlines()[3:7]]
    assert {"JAK2", "STAT1", "IFNGR1", "IFNGR2"} == set(top)
    assert_picture(tmp_path / "out" / "screen.png")


@pytest.mark.slow
def test_a_cluster_gives_the_same_bytes(tmp_path: Path) -> None:
    assert "the same, byte by byte" in run("on_a_cluster", "out", cwd=tmp_path)
    assert_picture(tmp_path / "out" / "stages.png")


@pytest.mark.slow
def test_slurm_starts_the_workers(tmp_path: Path) -> None:
    (tmp_path / "slurm").mkdir()
    with slurm(tmp_path / "slurm") as environment:
        printed = run("on_slurm", "out", "--partition", "main", "--interface", "lo", cwd=tmp_path, **environment)
    assert "#SBATCH -p main" in printed
    assert "workers at the end: 2" in printed
    assert len(list((tmp_path / "out" / "logs").glob("dask-worker-*.out"))) >= 2
    assert_picture(tmp_path / "out" / "stages.png")


@pytest.mark.slow
def test_pseudobulk_takes_donors_for_what_they_are(tmp_path: Path) -> None:
    printed = run("pseudobulk_with_donors", "out", cwd=tmp_path)
    found = {
        line.partition(" as units")[0]: [int(word) for word in line.split() if word.isdigit()]
        for line in printed.splitlines()
        if "as units" in line
    }
    n_found, n_right, n_planted = found["donors"]
    assert n_right >= 0.7 * n_planted
    assert n_found - n_right <= 0.1 * n_found + 1
    n_found, n_right, _ = found["cells"]
    assert n_found > 5 * n_right  # differences between donors, called effects of treatment
    assert (tmp_path / "out" / "treated_b_cells.tsv").read_text().startswith("gene\tlog_fc\tci_l\tci_r\tave_expr\t")
    assert_picture(tmp_path / "out" / "trend.png")


@pytest.mark.slow
def test_scanpy_and_back(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    has_data = "NORMALISR_DASK_TEST_DATA" in os.environ
    options = ("--matrix", request.getfixturevalue("pbmc3k")) if has_data else ()
    printed = run("scanpy_round_trip", "out", *options, cwd=tmp_path, MPLBACKEND="agg")
    firsts = {line.rpartition("first ")[2].split(", ")[0] for line in printed.splitlines() if "genes up" in line}
    assert len(firsts) >= 4
    if has_data:
        assert {"LYZ", "S100A8", "S100A9"} & firsts
        assert {"CD79A", "MS4A1", "CD74"} & firsts
    assert_picture(tmp_path / "out" / "markers.png")
    assert_picture(tmp_path / "out" / "round_trip.png")
    assert nd.get.de_df(anndata.read_h5ad(tmp_path / "out" / "tested.h5ad"), "0")["gene"].is_unique
