"""Stores and outputs at s3:// URLs, at a server that the tests start."""

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr
from s3_server import BUCKET, KEY, SECRET, bucket_contents, credentials_for, s3_server
from typer.testing import CliRunner

from normalisr_dask.cli.app import app
from normalisr_dask.storage import count_store_writer
from normalisr_dask.storage.count_store import open_count_store, read_cells
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.folder_lock import locked
from normalisr_dask.storage.leases import LEASE, leased
from normalisr_dask.storage.locations import as_path, files_below, for_tasks, stored_chunks
from normalisr_dask.storage.processes import identity
from normalisr_dask.storage.result_store import ResultStore
from normalisr_dask.testing import simulate_screen, write_cell_ranger_folder

PROGRAM = str(Path(sys.executable).with_name("normalisr-dask"))
PROGRAM_SECONDS = 150
STAGES = ["qc", "normalisation", "de", "coex", "edges"]


@pytest.fixture(scope="module")
def files() -> Iterator[Any]:
    """The file system of a server with an empty bucket, with credentials in the environment."""
    with s3_server() as address, credentials_for(address):
        file_system = fsspec.filesystem("s3", use_listings_cache=False)
        file_system.mkdir(BUCKET)
        yield file_system


def start(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the program in a process group of its own."""
    return subprocess.Popen(
        [PROGRAM, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | (environment or {}),
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait until the program has ended well, and return what it told."""
    told, errors = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 0, errors
    assert not any(secret in told + errors for secret in (KEY, SECRET))
    return told


def fail(process: subprocess.Popen[str]) -> str:
    """Wait until the program has failed as it should, and return its error."""
    told, errors = process.communicate(timeout=PROGRAM_SECONDS)
    assert process.returncode == 2, errors
    assert "Traceback" not in errors
    assert not any(secret in told + errors for secret in (KEY, SECRET))
    (line,) = (line for line in errors.splitlines() if line.startswith("normalisr-dask: error: "))
    return line.removeprefix("normalisr-dask: error: ")


def wait_for(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + PROGRAM_SECONDS
    while not moment():
        assert process.poll() is None, "the program ended before the moment came"
        assert time.monotonic() < give_up, "the moment did not come"
        time.sleep(0.01)


# ---- runs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Cell Ranger folder and a table of guides."""
    folder = tmp_path_factory.mktemp("inputs")
    screen = simulate_screen(n_genes=1200, n_cells=1500, n_guides=12, seed=3)
    write_cell_ranger_folder(folder / "matrix", screen.counts, screen.gene_names, screen.cell_names)
    cells = pd.Index(screen.cell_names, name="cell")
    guides = pd.DataFrame(screen.groupings.toarray().T, index=cells, columns=screen.grouping_names)
    guides.to_csv(folder / "guides.tsv.gz", sep="\t")
    return folder


def run_arguments(inputs: Path, store: object, output: object) -> list[object]:
    tests = ["--groupings", inputs / "guides.tsv.gz", "--coex", "--qcut", "0.2"]
    cluster = ["--workers", 2, "--memory-limit", "1GB", "--local-directory", inputs / "spilled"]
    return ["run", store, "-o", output, *tests, *cluster]


@pytest.fixture(scope="module")
def store(files: Any, inputs: Path) -> str:
    url = f"s3://{BUCKET}/counts.zarr"
    assert f"Count store {url}" in finish(start("ingest", inputs / "matrix", url))
    return url


@pytest.fixture(scope="module")
def local(inputs: Path) -> Path:
    """Output of the same run on the same counts on this machine."""
    finish(start("ingest", inputs / "matrix", inputs / "counts.zarr"))
    finish(start(*run_arguments(inputs, inputs / "counts.zarr", inputs / "local"), "--no-report"))
    return inputs / "local"


def arrays(store: Any) -> dict[str, tuple[Any, ...]]:
    """Return type, shape and bytes of every array that a reader of a result store finds."""
    found = {}
    for name, array in zarr.open_group(store, mode="r").members(max_depth=None):
        if isinstance(array, zarr.Array):
            values = np.asarray(array[...])
            content = repr(values.tolist()) if values.dtype.kind == "T" else values.tobytes()
            found[name] = (values.dtype, array.shape, content)
    return found


def assert_same(output: str, local: Path) -> None:
    """Compare all results with those of the run on this machine, bit by bit."""
    assert arrays(f"{output}/results.zarr") == arrays(local / "results.zarr")
    key = output.removeprefix("s3://")
    contents = bucket_contents(key)
    for table in ("de.parquet", "coex_edges.parquet"):
        assert contents[f"{key}/{table}"] == (local / table).read_bytes()
    assert list(json.loads(contents[f"{key}/manifest.json"])["stages"]) == STAGES
    tops = {name.removeprefix(f"{key}/").partition("/")[0] for name in contents}
    assert tops - {"report.html"} == {"results.zarr", "de.parquet", "coex_edges.parquet", "manifest.json"}
    assert not any(secret.encode() in content for content in contents.values() for secret in (KEY, SECRET))


@pytest.mark.slow
def test_a_store_and_a_run_at_urls_are_those_on_disk(files: Any, inputs: Path, store: str, local: Path) -> None:
    output = f"s3://{BUCKET}/whole"
    assert f"{output}/results.zarr" in finish(start(*run_arguments(inputs, store, output)))
    assert_same(output, local)
    assert files.cat(f"{BUCKET}/whole/report.html").rstrip().endswith(b"</html>")
    told = finish(start("info", output))
    assert f"Output {output}, finished" in told
    assert f"{output}/results.zarr" in told
    assert "not done yet" not in told
    assert not any(".partial" in name or LEASE in name for name in files.find(BUCKET))
    counts = [anndata.read_zarr(path) for path in (store, inputs / "counts.zarr")]
    assert (counts[0].X != counts[1].X).nnz == 0
    assert counts[0].obs.equals(counts[1].obs)
    with xarray.open_zarr(f"{output}/results.zarr", group="de") as tests:
        np.testing.assert_array_equal(tests["pvalue"], ResultStore(local).read("de", "pvalue"))
        assert tests["pvalue"].dims == ("grouping", "gene")
    assert pd.read_parquet(f"{output}/de.parquet").equals(pd.read_parquet(local / "de.parquet"))


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(files: Any, inputs: Path, store: str, local: Path) -> None:
    output = f"s3://{BUCKET}/killed"
    process = start(*run_arguments(inputs, store, output), "--no-report")
    wait_for(partial(files.exists, f"{BUCKET}/killed/work/coex/pvalue/c"), process)
    refused = f"another run is writing to {output} \\(process {process.pid} on "
    with pytest.raises(ValueError, match=refused), locked(output):
        pass
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    stages = {name for name, _ in zarr.open_group(f"{output}/results.zarr", mode="r").members()}
    assert stages == {"qc", "normalisation", "de"}
    whole = arrays(local / "results.zarr")
    assert arrays(f"{output}/results.zarr") == {
        name: value for name, value in whole.items() if name.partition("/")[0] in stages
    }
    assert finish(start("info", output)).count("not done yet") == 2
    finish(start(*run_arguments(inputs, store, output), "--no-report"))
    assert_same(output, local)


# ---- stages


def test_a_stage_is_there_when_it_is_published(files: Any) -> None:
    results = ResultStore(f"s3://{BUCKET}/stages")
    results.create()
    names = {"gene": np.array([f"gene{number}" for number in range(40)], dtype=object)}
    asked = {"chunks": {"gene": 4}, "made_with": {"version": 1}}
    results.begin("edges", names, **asked)["degree"][8:16] = 7
    assert not results.has("edges")
    assert list(zarr.open_group(f"{results.path}", mode="r").members()) == []

    resumed = results.begin("edges", names, **asked)["degree"]
    np.testing.assert_array_equal(np.flatnonzero(stored_chunks(resumed)), [2, 3])
    taken = pickle.dumps(for_tasks(resumed))
    assert not any(secret.encode() in taken for secret in (KEY, SECRET))
    pickle.loads(taken)[0:8] = np.repeat([3, 0], 4)
    assert stored_chunks(resumed)[:4].all()  # zeros, too
    resumed[16:] = 0
    results.publish("edges")
    assert results.has("edges")
    expected = np.repeat([3, 0, 7, 7, 0, 0, 0, 0, 0, 0], 4)
    np.testing.assert_array_equal(results.read("edges", "degree"), expected)
    np.testing.assert_array_equal(results.open("edges", "degree").compute(scheduler="sync"), expected)
    with xarray.open_zarr(f"{results.path}", group="edges") as opened:
        np.testing.assert_array_equal(opened["degree"], expected)
    assert not files.exists(f"{BUCKET}/stages/work")

    results.remove("edges")
    assert not results.has("edges")
    assert not files.find(f"{BUCKET}/stages/results.zarr/edges")
    assert list(zarr.open_group(f"{results.path}", mode="r").members()) == []


def test_a_publication_that_was_cut_off_is_done_again(files: Any) -> None:
    results = ResultStore(f"s3://{BUCKET}/cut")
    results.create()
    names = {"gene": np.array(["gene0", "gene1"], dtype=object)}
    results.begin("edges", names, made_with={"version": 1})["degree"][:] = 5
    files.copy(f"{BUCKET}/cut/work/edges/degree/c/0", f"{BUCKET}/cut/results.zarr/edges/degree/c/0")
    assert not results.has("edges")
    results.remove("edges")
    assert stored_chunks(results.begin("edges", names, made_with={"version": 1})["degree"]).all()
    results.publish("edges")
    np.testing.assert_array_equal(results.read("edges", "degree"), [5, 5])


# ---- count stores


def writer_of(url: str, *, overwrite: bool = False) -> CountStoreWriter:
    obs, var = (pd.DataFrame(index=[f"{kind}{number}" for number in range(4)]) for kind in ("cell", "gene"))
    return CountStoreWriter(url, obs=obs, var=var, overwrite=overwrite)


def write(writer: CountStoreWriter, value: int) -> None:
    """Append all cells, with one entry each."""
    writer.append(np.ones(4, dtype=np.int64), np.arange(4), np.full(4, value, dtype=np.uint32))


def test_a_count_store_appears_whole(files: Any) -> None:
    url = f"s3://{BUCKET}/counts/a.zarr"
    with writer_of(url) as writer:
        write(writer, 1)
        with pytest.raises(ValueError, match=f"another run is writing to {url}.lock \\(process {os.getpid()} on "):
            writer_of(url)
    assert not files.find(f"{BUCKET}/counts")
    with writer_of(url) as writer:
        write(writer, 1)
        assert writer.scratch.is_dir()
        with pytest.raises(FileNotFoundError, match=r"only the beginning of one \(.*a\.zarr\.partial\): run the same"):
            open_count_store(url)
        writer.finalise()
    with pytest.raises(FileExistsError, match="there is already a store at"):
        writer_of(url)
    with writer_of(url, overwrite=True) as writer:
        write(writer, 3)
        assert open_count_store(url).largest_count == 1
        writer.finalise()
    np.testing.assert_array_equal(read_cells(url, 0, 4).toarray(), 3 * np.eye(4))
    assert {name.partition("/")[0] for name in files_below(as_path(url).parent)} == {"a.zarr"}


def test_counts_that_need_more_bits_are_widened(files: Any) -> None:
    url, n_cells = f"s3://{BUCKET}/wide.zarr", 2 * count_store_writer.SHARD_ENTRIES // 1000
    names = (pd.DataFrame(index=[f"name{number}" for number in range(size)]) for size in (n_cells, 1000))
    counts = np.ones(n_cells * 1000, dtype=np.uint32)
    counts[-1] = 70_000
    half = n_cells // 2
    with CountStoreWriter(url, **dict(zip(("obs", "var"), names, strict=True))) as writer:
        for rows in (slice(0, half + 1), slice(half + 1, n_cells)):
            entries = counts.reshape(n_cells, 1000)[rows]
            indices = np.tile(np.arange(1000, dtype=np.int32), len(entries))
            writer.append(np.full(len(entries), 1000), indices, entries.ravel())
        writer.finalise()
    assert (read_cells(url, 0, 3).data == 1).all()
    assert read_cells(url, n_cells - 1, n_cells).data.tolist() == [1] * 999 + [70_000]
    assert not any("data_wide" in name for name in files.find(f"{BUCKET}/wide.zarr"))


def test_a_folder_in_the_way_of_the_work_is_not_removed(files: Any) -> None:
    files.pipe(f"{BUCKET}/notes.zarr.partial/notes", b"keep me")
    with pytest.raises(FileExistsError, match=r"notes\.zarr\.partial is in the way and is no unfinished store"):
        writer_of(f"s3://{BUCKET}/notes.zarr")
    assert files.find(f"{BUCKET}/notes") == []
    assert files.cat(f"{BUCKET}/notes.zarr.partial/notes") == b"keep me"


# ---- leases


def test_a_lease_is_held_by_one(files: Any) -> None:
    folder = as_path(f"s3://{BUCKET}/held")
    refused = f"process {os.getpid()} on .*; wait until it has ended, or choose"
    with leased(folder) as still_held:
        with pytest.raises(ValueError, match=refused), leased(folder):
            pass
        still_held()
        assert len(files.find(f"{BUCKET}/held")) == 1
    assert not files.find(f"{BUCKET}/held")
    refused = "s3://nowhere/out cannot be written: there is no such bucket"
    with pytest.raises(FileNotFoundError, match=refused), leased(as_path("s3://nowhere/out")):
        pass


def test_the_lease_of_a_process_that_has_ended_is_free(files: Any) -> None:
    number_in_use_again = "\t".join([*identity().split("\t")[:2], "12345.0"])
    files.pipe(f"{BUCKET}/ended/{LEASE}1", number_in_use_again.encode())
    with leased(as_path(f"s3://{BUCKET}/ended")):
        (own,) = files.find(f"{BUCKET}/ended")
        assert files.cat(own).decode() != number_in_use_again


@pytest.mark.parametrize("host", ["elsewhere another-start", f"{socket.gethostname()} the-start-of-another-machine"])
def test_the_lease_of_another_host_lapses_though_it_has_the_same_name(files: Any, host: str) -> None:
    folder = as_path(f"s3://{BUCKET}/elsewhere")
    files.pipe(f"{BUCKET}/elsewhere/{LEASE}1", f"{host}\t7\t12345.0".encode())
    refused = f"process 7 on {host.split()[0]}\\).*ended, or 120 seconds if that was killed"
    with pytest.raises(ValueError, match=refused), leased(folder):
        pass
    assert len(files.find(f"{BUCKET}/elsewhere")) == 1
    time.sleep(2.1)  # ages are in whole seconds
    with leased(folder, lapse_seconds=1.0):
        (own,) = files.find(f"{BUCKET}/elsewhere")
        assert not own.endswith(f"{LEASE}1")


def take_over(files: Any, own: str, still_held: Callable[[], None]) -> None:
    """Remove the object of a lease, again where it has just been renewed."""
    files.rm(own)
    still_held()


def test_a_lease_is_renewed_until_it_is_taken_over(files: Any) -> None:
    with leased(as_path(f"s3://{BUCKET}/renewed"), renew_seconds=0.05) as still_held:
        (own,) = files.find(f"{BUCKET}/renewed")
        first = files.modified(own)
        wait_until(lambda: files.modified(own) > first)
        still_held()
        with pytest.raises(RuntimeError, match=r"the lock of s3://bucket/renewed was lost: .*; if no other run has"):
            wait_until(partial(take_over, files, own, still_held))


def test_a_lease_that_could_not_be_renewed_in_time_is_given_up(files: Any) -> None:
    with leased(as_path(f"s3://{BUCKET}/late"), renew_seconds=0.5, lapse_seconds=0.6) as still_held:
        with pytest.raises(RuntimeError, match="was lost: it could not be renewed for 1 seconds"):
            wait_until(still_held)
        assert len(files.find(f"{BUCKET}/late")) == 1


def wait_until(happens: Callable[[], Any]) -> None:
    give_up = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < give_up
        time.sleep(0.05)


# ---- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "s3://nowhere/a.zarr"], "there is no count store at s3://nowhere/a.zarr, and no such bucket"),
        (["info", f"s3://{KEY}:{SECRET}@bucket/a.zarr"], "the s3 URL holds what looks like credentials (before its @)"),
        (["info", "walrus://bucket/a.zarr"], "Unsupported filesystem: 'walrus'"),
        (["report", "s3://bucket/a"], "s3://bucket/a holds no run: there is no manifest.json in it"),
        (["ingest", "s3://bucket/a.mtx", "a.zarr"], "an input is read from a file or folder of this machine, not from"),
        (["ingest", "MATRIX", "s3://nowhere/a.zarr"], "s3://nowhere/a.zarr.lock cannot be written: there is no such"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(files: Any, inputs: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, [argument.replace("MATRIX", str(inputs / "matrix")) for argument in arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"normalisr-dask: error: {message}")
    assert result.stderr.count("\n") == 1
    assert SECRET not in result.output


def without_credentials(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


def test_missing_credentials_are_told_in_one_line(files: Any, tmp_path: Path) -> None:
    message = fail(start("info", f"s3://{BUCKET}/a.zarr", environment=without_credentials(tmp_path)))
    assert message.startswith(f"s3://{BUCKET}/a.zarr: there are no credentials for it; give them in the environment")


def test_credentials_are_read_from_the_usual_file(files: Any, tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    content = f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    (tmp_path / ".aws" / "credentials").write_text(content)
    message = fail(start("info", f"s3://{BUCKET}/a.zarr", environment=without_credentials(tmp_path)))
    assert message == f"there is no count store at s3://{BUCKET}/a.zarr"


def test_denied_access_is_told_in_one_line(files: Any) -> None:
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as address:
        message = fail(start("info", f"s3://{BUCKET}/a.zarr", environment={"AWS_ENDPOINT_URL": address}))
    assert message.startswith(f"s3://{BUCKET}/a.zarr: access is denied (")


def test_an_endpoint_that_does_not_answer_is_told_in_one_line(files: Any) -> None:
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_MAX_ATTEMPTS": "1"}
    process = start("info", f"s3://{BUCKET}/a.zarr", environment=environment)
    assert fail(process).startswith(f"s3://{BUCKET}/a.zarr: the storage cannot be reached; see the network, and AWS_")


@pytest.mark.slow
def test_storage_that_goes_away_ends_a_run_in_one_line(
    inputs: Path, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, output = local.parent / "counts.zarr", f"s3://{BUCKET}/out"
    with s3_server() as address, credentials_for(address):
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        elsewhere = fsspec.filesystem("s3", use_listings_cache=False, endpoint_url=address)
        elsewhere.mkdir(BUCKET)
        process = start(*run_arguments(inputs, counts, output))
        wait_for(partial(elsewhere.exists, f"{BUCKET}/out/results.zarr/qc"), process)
    assert fail(process).startswith(f"{output}: the storage cannot be reached; see the network, and AWS_ENDPOINT_URL")


def test_a_missing_package_is_told_in_one_line() -> None:
    """In a Python that does not find the packages of the extra."""
    code = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *others: None if name in ("s3fs", "upath") else found(name, *others)
sys.argv = ["normalisr-dask", "info", "s3://bucket/a.zarr"]
from normalisr_dask.cli import main
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == (
        "normalisr-dask: error: s3://bucket/a.zarr needs universal-pathlib and s3fs: install what is missing with "
        "pip install 'normalisr-dask[s3]'\n"
    )
