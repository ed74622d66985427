"""What stands after a run or an ingest was killed or ran out of space, and how the same command then goes on.

The programs are real processes, killed at moments that their own files tell.
"""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.sparse
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.storage.count_store import METADATA_KEY
from normalisr_dask.testing import (
    result_digests,
    simulate_counts,
    simulate_screen,
    write_cell_ranger_folder,
    write_matrix_market,
)

pytestmark = pytest.mark.slow

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
STAGES = ["qc", "normalisation", "de", "calibration", "coex", "edges"]
N_WORKERS = 2
#: So many that the sums of their tests take several submissions.
N_GROUPINGS = 400
#: For a program to end or to come to a moment, on a busy machine and with kernels still to be compiled.
PROGRAM_SECONDS = 150
#: For what a killed program has started to end by itself.
WORKER_SECONDS = 60
SECONDS_BETWEEN_LOOKS = 0.001

Moment = Callable[[Path], bool]
Contents = dict[str, str]


# ---- programs


def start(arguments: list[str], *, largest_file: int | None = None) -> subprocess.Popen[str]:
    """Start the program in a process group of its own, perhaps with a limit on the bytes of a file that it writes."""
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (largest_file, largest_file)) if largest_file else None
    return subprocess.Popen(
        [PROGRAM, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=limit,
    )


def finish(process: subprocess.Popen[str]) -> list[str]:
    """Wait until the program has ended well, and return the lines of its stderr."""
    _, stderr = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 0, stderr
    return stderr.splitlines()


def fail(process: subprocess.Popen[str]) -> str:
    """Wait until the program has failed as it should, and return its error."""
    _, stderr = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 2, stderr
    assert "Traceback" not in stderr
    assert stderr.count("normalisr-dask: error: ") == 1
    return stderr.splitlines()[-1].removeprefix("normalisr-dask: error: ")


def wait_for(moment: Moment, folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the files of a program tell that it has come to the moment."""
    give_up = time.monotonic() + PROGRAM_SECONDS
    while not moment(folder):
        assert process.poll() is None, "the program ended before the moment came"
        assert time.monotonic() < give_up, "the moment did not come"
        time.sleep(SECONDS_BETWEEN_LOOKS)


def kill(process: subprocess.Popen[str], *, with_workers: bool) -> None:
    """Kill the program, perhaps with all that it has started, and see that in the end nothing of it is running."""
    started = psutil.Process(process.pid).children(recursive=True)
    if with_workers:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    process.communicate(timeout=WORKER_SECONDS)  # its stderr is closed when none of them is left
    assert process.returncode == -signal.SIGKILL
    assert psutil.wait_procs(started, timeout=WORKER_SECONDS)[1] == []


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Return the worker processes of a run."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if any("spawn_main" in word for word in child.cmdline())]


def told(path: Path) -> str:
    """Return what ``normalisr-dask info`` says of a path, on stdout or stderr."""
    result = CliRunner().invoke(app, ["info", str(path)])
    assert result.exit_code == (2 if result.stderr else 0)
    return result.output


# ---- what stands in an output folder


def recorded(output: Path) -> dict[str, dict[str, object]]:
    """Return what the manifest says of the stages that are done."""
    path = output / "manifest.json"
    return json.loads(path.read_text())["stages"] if path.exists() else {}


def readable(output: Path, *, use_consolidated: bool | None = None) -> Contents:
    """Return a digest of every array that a reader of the result store finds."""
    found = result_digests(output, use_consolidated=use_consolidated)
    return {name: digest for name, digest in found.items() if "/" in name}


def tables(output: Path) -> Contents:
    """Return a digest of every table."""
    return {name: digest for name, digest in result_digests(output).items() if "/" not in name}


class Results(NamedTuple):
    """What an uninterrupted run gives."""

    arrays: Contents
    tables: Contents


def assert_nothing_is_half_there(output: Path, whole: Results) -> None:
    """Compare whatever can be read with the same stages of an uninterrupted run."""
    for use_consolidated in (None, False):
        found = readable(output, use_consolidated=use_consolidated)
        stages = {name.partition("/")[0] for name in found}
        assert found == {name: value for name, value in whole.arrays.items() if name.partition("/")[0] in stages}
        assert set(recorded(output)).intersection(STAGES) <= stages
    assert tables(output).items() <= whole.tables.items()
    for stage, table in (("de", "de.parquet"), ("edges", "coex_edges.parquet")):
        assert stage not in recorded(output) or (output / table).exists()


def assert_same(output: Path, whole: Results) -> None:
    """Compare all results with those of an uninterrupted run, bit by bit."""
    for use_consolidated in (None, False):
        assert readable(output, use_consolidated=use_consolidated) == whole.arrays
    assert tables(output) == whole.tables
    assert list(recorded(output)) == STAGES


# ---- run


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A count store and a table of guides: large enough for stages of about a second."""
    folder = tmp_path_factory.mktemp("inputs")
    screen = simulate_screen(n_genes=2000, n_cells=6000, n_guides=24, seed=3)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    finish(start(["ingest", str(folder / "matrix"), str(folder / "counts.zarr")]))
    return folder


def run_arguments(inputs: Path, output: Path) -> list[str]:
    arguments = ["run", inputs / "counts.zarr", "-o", output, "--groupings", inputs / "guides.tsv.gz", "--coex"]
    others = [
        "--permutations",
        3,
        "--no-report",
        "--workers",
        N_WORKERS,
        "--memory-limit",
        "1.5GB",
        "--local-directory",
        inputs / "spilled",
    ]
    return [str(argument) for argument in (*arguments, *others)]


@pytest.fixture(scope="module")
def whole(inputs: Path) -> Results:
    output = inputs / "whole"
    finish(start(run_arguments(inputs, output)))
    results = Results(readable(output), tables(output))
    assert list(recorded(output)) == STAGES
    assert {name.partition("/")[0] for name in results.arrays} == set(STAGES)
    assert set(results.tables) == {"de.parquet", "coex_edges.parquet"}
    return results


def has_begun(output: Path) -> bool:
    return (output / "results.zarr" / "zarr.json").exists()


def is_recorded(stage: str, output: Path) -> bool:
    return stage in recorded(output)


def is_being_filled(stage: str, output: Path) -> bool:
    """Whether there are arrays of the stage, and it is not published yet."""
    return (output / "work" / stage / "zarr.json").exists()


def table_is_being_written(output: Path) -> bool:
    """Whether the table of tests is begun; the tests are all there, and not published yet."""
    return (output / "de.parquet.partial").exists()


def test_a_run_that_is_killed_again_and_again_goes_on(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done: dict[str, dict[str, object]] = {}
    moments: list[tuple[Moment, list[str], bool]] = [
        (has_begun, [], True),
        (partial(is_recorded, "qc"), ["qc"], False),
        (partial(is_being_filled, "de"), ["qc", "normalisation"], False),
        (table_is_being_written, ["qc", "normalisation"], True),
        (partial(is_being_filled, "coex"), STAGES[:4], False),
        (partial(is_recorded, "coex"), STAGES[:5], True),
    ]
    for moment, done_then, with_workers in moments:
        assert not moment(output)
        process = start(run_arguments(inputs, output))
        wait_for(moment, output, process)
        assert len(workers(process)) == N_WORKERS
        kill(process, with_workers=with_workers)
        assert_nothing_is_half_there(output, whole)
        assert list(recorded(output)) == done_then
        assert done.items() <= recorded(output).items()
        done = recorded(output)
        assert told(output).count("not done yet") == len(STAGES) - len(done_then)

    lines = finish(start(run_arguments(inputs, output)))
    assert ["done earlier" in line for line in lines] == [stage in done for stage in STAGES]
    assert done.items() <= recorded(output).items()
    assert_same(output, whole)


def chunks_of_tests(folder: Path) -> dict[str, int]:
    """Return when the chunks of P-values were written, those of an unfinished stage or of a published one."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in (folder / "pvalue" / "c").rglob("*")
        if path.is_file() and path.suffix != ".partial"
    }


def test_tiles_that_stand_are_not_made_again(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(run_arguments(inputs, output))
    wait_for(lambda output: bool(chunks_of_tests(output / "work" / "coex")), output, process)
    kill(process, with_workers=True)
    stand = chunks_of_tests(output / "work" / "coex")
    assert stand
    finish(start(run_arguments(inputs, output)))
    assert stand.items() <= chunks_of_tests(output / "results.zarr" / "coex").items()
    assert_same(output, whole)
    assert not (output / "work").exists()


def test_tests_stand_while_their_table_is_written(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(run_arguments(inputs, output))
    wait_for(table_is_being_written, output, process)
    kill(process, with_workers=True)
    stand = chunks_of_tests(output / "work" / "de")
    finish(start(run_arguments(inputs, output)))
    assert stand == chunks_of_tests(output / "results.zarr" / "de") != {}
    assert_same(output, whole)


def test_groupings_that_stand_are_not_tested_again_whatever_the_workers(inputs: Path, tmp_path: Path) -> None:
    random, n_cells = np.random.default_rng(5), 6000
    guide = np.where(random.random(n_cells) < 0.3, -1, random.integers(N_GROUPINGS, size=n_cells))
    (cells,) = np.nonzero(guide >= 0)
    groupings = scipy.sparse.coo_array((np.ones(cells.size, dtype=int), (guide[cells], cells)), (N_GROUPINGS, n_cells))
    write_matrix_market(tmp_path / "groupings.mtx", groupings.tocsc())
    (tmp_path / "names.txt").write_text("".join(f"guide{number}\n" for number in range(N_GROUPINGS)))

    def arguments(output: Path, n_workers: int = N_WORKERS) -> list[str]:
        named = ["--groupings", tmp_path / "groupings.mtx", "--grouping-names", tmp_path / "names.txt"]
        others = ["--other-groupings", "exclude", "--min-grouping-cells", 1, "--no-report"]
        others += ["--workers", n_workers, "--memory-limit", "900MB"]
        return [str(word) for word in ("run", inputs / "counts.zarr", "-o", output, *named, *others)]

    def planned(n_workers: int) -> re.Match[str]:
        command = [PROGRAM, *arguments(tmp_path / "out", n_workers), "--dry-run"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        blocks = re.search(r"de: blocks: (.*) groupings in (\d+) submissions\n", told)
        assert blocks is not None, told
        return blocks

    assert int(planned(N_WORKERS)[2]) >= 2
    assert planned(N_WORKERS)[1] != planned(2 * N_WORKERS)[1]
    finish(start(arguments(tmp_path / "whole")))

    output = tmp_path / "out"
    process = start(arguments(output))
    wait_for(lambda output: bool(chunks_of_tests(output / "work" / "de")), output, process)
    kill(process, with_workers=True)
    stand = chunks_of_tests(output / "work" / "de")
    finish(start(arguments(output, 2 * N_WORKERS)))
    made = chunks_of_tests(output / "results.zarr" / "de")
    assert stand.items() <= made.items()
    assert 0 < len(stand) < len(made)
    assert result_digests(output) == result_digests(tmp_path / "whole")


def permutations(output: Path) -> dict[str, int]:
    """Return when the histograms of permuted cells were written."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "work" / "calibration").glob("*.npy")}


def test_permutations_that_stand_are_not_made_again(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    stand: dict[str, int] = {}
    for number in (1, 2):
        process = start(run_arguments(inputs, output))
        wait_for(lambda output, number=number: len(permutations(output)) >= number, output, process)
        kill(process, with_workers=True)
        assert stand.items() <= permutations(output).items()
        stand = permutations(output)
    finish(start(run_arguments(inputs, output)))
    assert_same(output, whole)


def test_a_run_outlives_its_workers(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(run_arguments(inputs, output))
    for moment in (has_begun, partial(is_being_filled, "de"), partial(is_being_filled, "coex")):
        wait_for(moment, output, process)
        victim = workers(process)[0]
        victim.kill()
        victim.wait(timeout=WORKER_SECONDS)
    lines = finish(process)
    assert sum(": done in " in line for line in lines) == len(STAGES), lines
    assert_same(output, whole)


def test_a_second_run_at_the_same_time_is_refused(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = start(run_arguments(inputs, output))
    wait_for(has_begun, output, process)
    assert fail(start(run_arguments(inputs, output))).startswith(
        f"another run is writing to {output} (process {process.pid} on "
    )
    finish(process)
    assert_same(output, whole)


def test_a_run_without_space_says_so_and_goes_on_when_there_is(inputs: Path, whole: Results, tmp_path: Path) -> None:
    output = tmp_path / "out"
    message = (
        f"no space left on the disk of {output}; stages that are done stay; make room and run the same command again"
    )
    for largest_file, done in ((1_000, []), (200_000, ["qc", "normalisation"])):
        assert fail(start(run_arguments(inputs, output), largest_file=largest_file)).startswith(message)
        assert list(recorded(output)) == done
        assert_nothing_is_half_there(output, whole)
    finish(start(run_arguments(inputs, output)))
    assert_same(output, whole)


# ---- ingest


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Matrix Market file of some 12 million entries, three shards of a count store, with the names beside it."""
    folder = tmp_path_factory.mktemp("matrix")
    block = simulate_counts(10_000, 1_000, seed=1).counts
    counts = scipy.sparse.hstack([block] * (12_000_000 // block.nnz), format="csc")
    write_matrix_market(folder / "matrix.mtx", counts)
    for name, number in zip(("genes.tsv", "barcodes.tsv"), counts.shape, strict=True):
        (folder / name).write_text("".join(f"name{n}\n" for n in range(number)))
    return folder / "matrix.mtx"


def contents_of_store(store: Path) -> Contents:
    """Return a digest of every file of a count store, but for what says when it was made."""
    files = {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}
    root = json.loads(files["zarr.json"])
    del root["attributes"][METADATA_KEY]["provenance"]["created"]
    files["zarr.json"] = json.dumps(root).encode()
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def has_stored_entries(store: Path) -> bool:
    """Whether an unfinished store holds a first shard."""
    return (store.with_name(f"{store.name}.partial") / "X" / "data" / "c" / "0").exists()


def kill_ingest(matrix: Path, store: Path, *options: str) -> None:
    """Kill an ingest in the middle."""
    process = start(["ingest", str(matrix), str(store), *options])
    wait_for(has_stored_entries, store, process)
    kill(process, with_workers=True)
    assert has_stored_entries(store)


def test_an_ingest_that_is_killed_leaves_no_store_and_can_be_done_again(matrix: Path, tmp_path: Path) -> None:
    store, whole_store = tmp_path / "counts.zarr", tmp_path / "whole.zarr"
    finish(start(["ingest", str(matrix), str(whole_store)]))
    expected = contents_of_store(whole_store)

    kill_ingest(matrix, store)
    assert {path.name for path in tmp_path.iterdir()} == {"whole.zarr", "counts.zarr.partial"}
    assert "there is no count store" in told(store)
    assert "run the same ingest again" in told(store)
    unfinished = tmp_path / "counts.zarr.partial"
    assert "is neither a count store nor the output of a run" in told(unfinished)
    with pytest.raises(FileNotFoundError):
        anndata.read_zarr(unfinished)

    finish(start(["ingest", str(matrix), str(store)]))
    assert {path.name for path in tmp_path.iterdir()} == {"whole.zarr", "counts.zarr"}
    assert contents_of_store(store) == expected

    kill_ingest(matrix, store, "--overwrite")  # the store that was to be replaced stays
    assert contents_of_store(store) == expected


def test_an_ingest_without_space_says_so_and_leaves_nothing(matrix: Path, tmp_path: Path) -> None:
    process = start(["ingest", str(matrix), str(tmp_path / "counts.zarr")], largest_file=1_000_000)
    assert fail(process).startswith(f"no space left on the disk of {tmp_path}; the unfinished store was removed")
    assert list(tmp_path.iterdir()) == []
