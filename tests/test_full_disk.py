"""A file system of some MB fills up, room is made, and the same command goes on; real programs and a real mount."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from normalisr_dask.testing import result_digests, simulate_counts, simulate_screen, write_cell_ranger_folder

pytestmark = pytest.mark.slow

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
ENOUGH = "200m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system in memory: a function that sets its size and returns its folder."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting a file system takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "normalisr-dask-test", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount a file system: {mounted.stderr.strip()}")

    def resize(size: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)
        return folder

    yield resize
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cell Ranger folder, its count store, and a table of guides."""
    folder = tmp_path_factory.mktemp("inputs")
    screen = simulate_screen(n_genes=1000, n_cells=2000, n_guides=16, seed=4, n_modules=4)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    succeed("ingest", folder / "matrix", folder / "counts.zarr")
    return folder


def program(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


def succeed(*arguments: object) -> None:
    done = program(*arguments)
    assert done.returncode == 0, done.stderr


def fail_for_want_of_space(*arguments: object) -> str:
    """Return the one line of what failed as it should."""
    failed = program(*arguments)
    assert failed.returncode == 2, failed.stderr
    assert "Traceback" not in failed.stderr
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("normalisr-dask: "))
    return line.removeprefix("normalisr-dask: error: ")


def test_a_run_fills_its_disk_and_goes_on_when_there_is_room(inputs: Path, disk: Callable[[str], Path]) -> None:
    def arguments(output: Path) -> list[object]:
        return [
            *("run", inputs / "counts.zarr", "-o", output, "--groupings", inputs / "guides.tsv.gz", "--coex"),
            *("--permutations", 1, "--no-report", "--workers", 2, "--memory-limit", "1GB"),
            *("--local-directory", inputs / "spilled"),
        ]

    succeed(*arguments(inputs / "whole"))
    stages: list[int] = []
    for size in ("100k", "6m"):
        output = disk(size) / "out"
        line = fail_for_want_of_space(*arguments(output))
        assert line.startswith(f"no space left on the disk of {output}; stages that are done stay; make room and run")
        found = result_digests(output, use_consolidated=False)
        assert found.items() <= result_digests(inputs / "whole").items()
        stages.append(len({name.partition("/")[0] for name in found if "/" in name}))
    assert stages == sorted(stages)
    assert 0 < stages[-1] < 6
    output = disk(ENOUGH) / "out"
    succeed(*arguments(output))
    assert result_digests(output) == result_digests(inputs / "whole")


def test_gene_pairs_fill_200_megabytes_and_go_on_when_there_is_room(
    tmp_path: Path, disk: Callable[[str], Path]
) -> None:
    simulated = simulate_counts(4_000, 600, seed=1, median_depth=8_000)
    write_cell_ranger_folder(tmp_path / "matrix", simulated.counts, simulated.gene_names, simulated.cell_names)
    succeed("ingest", tmp_path / "matrix", tmp_path / "counts.zarr")

    def arguments(output: Path) -> list[object]:
        return [
            *("run", tmp_path / "counts.zarr", "-o", output, "--coex", "--coex-store", "all", "--no-report"),
            *("--min-gene-cells", 2, "--min-gene-cell-fraction", 0, "--min-cell-genes", 1, "--min-cell-reads", 1),
            *("--workers", 2, "--memory-limit", "1GB", "--local-directory", tmp_path / "spilled"),
        ]

    succeed(*arguments(tmp_path / "whole"))
    output = disk("200m") / "out"
    line = fail_for_want_of_space(*arguments(output))
    assert line.startswith(f"no space left on the disk of {output}; stages that are done stay; make room and run")
    assert shutil.disk_usage(output).total == 200 << 20
    disk("1g")
    succeed(*arguments(output))
    assert result_digests(output) == result_digests(tmp_path / "whole")


def test_an_ingest_fills_its_disk_and_is_done_when_there_is_room(inputs: Path, disk: Callable[[str], Path]) -> None:
    for size in ("64k", "600k"):
        folder = disk(size)
        line = fail_for_want_of_space("ingest", inputs / "matrix", folder / "counts.zarr")
        assert line.startswith(f"no space left on the disk of {folder}; the unfinished store was removed")
        assert list(folder.iterdir()) == []
    folder = disk(ENOUGH)
    succeed("ingest", inputs / "matrix", folder / "counts.zarr")
    assert files_of_store(folder / "counts.zarr") == files_of_store(inputs / "counts.zarr")


def files_of_store(store: Path) -> dict[str, bytes]:
    """Return the files of a count store but for the root's metadata, which say when it was made."""
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    del files["zarr.json"]
    return files
