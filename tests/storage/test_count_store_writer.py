"""Writing count stores: whole or not at all, in bounded memory."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from normalisr_dask.storage import count_store_writer
from normalisr_dask.storage.count_store import open_count_store, partial_path, read_cells
from normalisr_dask.storage.count_store_writer import CountStoreWriter


def table(n_rows, prefix):
    return pd.DataFrame(index=[f"{prefix}{number}" for number in range(n_rows)])


def writer_of(path, n_cells=10, n_genes=5, **options):
    return CountStoreWriter(path, obs=table(n_cells, "c"), var=table(n_genes, "g"), **options)


def append(writer, n_cells, count=1):
    """Append cells that have every gene."""
    indices = np.tile(np.arange(writer.n_genes), n_cells)
    writer.append(np.full(n_cells, writer.n_genes), indices, np.full(len(indices), count, dtype=np.uint32))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(count_store_writer, "CHUNK_ENTRIES", 4)
    monkeypatch.setattr(count_store_writer, "SHARD_ENTRIES", 16)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("wide_at", [0, 3, 9])
def test_counts_are_widened_when_one_needs_it(tmp_path, wide_at):
    with writer_of(tmp_path / "s.zarr") as writer:
        for cell in range(10):
            append(writer, 1, 65535 + (cell == wide_at))
        store = writer.finalise()
    assert store.dtype == np.uint32
    expected = np.full((10, 5), 65535)
    expected[wide_at] += 1
    np.testing.assert_array_equal(read_cells(store.path, 0, 10).toarray(), expected)


@pytest.mark.usefixtures("small_shards")
def test_blocks_of_any_size_fill_the_same_shards(tmp_path):
    for name, sizes in (("a.zarr", [10]), ("b.zarr", [0, 1, 2, 0, 7])):
        with writer_of(tmp_path / name) as writer:
            for size in sizes:
                append(writer, size)
            writer.finalise()
    assert zarr.open_group(tmp_path / "a.zarr")["X/data"].shards == (16,)
    files = [sorted(path.name for path in (tmp_path / name / "X/data/c").iterdir()) for name in ("a.zarr", "b.zarr")]
    assert files[0] == files[1] == ["0", "1", "2", "3"]
    for file in files[0]:
        both = [(tmp_path / name / "X/indices/c" / file).read_bytes() for name in ("a.zarr", "b.zarr")]
        assert both[0] == both[1]


@pytest.mark.parametrize(("n_cells", "n_genes"), [(0, 5), (5, 0), (0, 0), (3, 4)])
def test_stores_without_entries_can_be_read(tmp_path, n_cells, n_genes):
    with writer_of(tmp_path / "s.zarr", n_cells, n_genes) as writer:
        writer.append(np.zeros(n_cells, dtype=np.int64), np.empty(0, dtype=np.int32), np.empty(0, dtype=np.uint32))
        store = writer.finalise()
    assert (store.n_entries, store.total_count, store.largest_count) == (0, 0, 0)
    assert read_cells(store.path, 0, n_cells).shape == (n_cells, n_genes)


def test_nothing_is_left_after_an_error(tmp_path):
    def interrupt():
        with writer_of(tmp_path / "s.zarr") as writer:
            append(writer, 4)
            message = r"the beginning of one .*partial\): run the same ingest again"
            with pytest.raises(FileNotFoundError, match=message):
                open_count_store(tmp_path / "s.zarr")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert list(tmp_path.iterdir()) == []


def test_a_store_lacking_cells_is_not_published(tmp_path):
    with writer_of(tmp_path / "s.zarr") as writer:
        append(writer, 9)
        with pytest.raises(ValueError, match="expected 10 cells, but 9 were appended"):
            writer.finalise()
    assert list(tmp_path.iterdir()) == []


def test_blocks_that_do_not_fit_are_refused(tmp_path):
    with (
        writer_of(tmp_path / "s.zarr") as writer,
        pytest.raises(ValueError, match="cells with 3 entries, but 2 genes, 2 counts"),
    ):
        writer.append(np.array([3]), np.array([0, 1]), np.ones(2, dtype=np.uint32))


def test_a_store_is_replaced_only_when_asked_and_finished(tmp_path):
    path = tmp_path / "s.zarr"
    with writer_of(path) as writer:
        append(writer, 10, 1)
        writer.finalise()
    with pytest.raises(FileExistsError, match=r"already a store at .*; choose another path or overwrite it"):
        writer_of(path)
    with writer_of(path, overwrite=True) as writer:
        append(writer, 10, 2)
    assert open_count_store(path).largest_count == 1
    with writer_of(path, overwrite=True) as writer:
        append(writer, 10, 2)
        assert writer.finalise().largest_count == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_what_is_no_store_is_never_replaced(tmp_path):
    (tmp_path / "notes").write_text("keep me")
    with pytest.raises(FileExistsError, match="notes exists and is not a store"):
        writer_of(tmp_path / "notes", overwrite=True)
    assert (tmp_path / "notes").read_text() == "keep me"
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere for the store s\.zarr does not exist"):
        writer_of(tmp_path / "nowhere" / "s.zarr")


def test_a_killed_writer_makes_way(tmp_path):
    path = tmp_path / "s.zarr"
    leftovers = partial_path(path)
    leftovers.mkdir()
    (leftovers / "writer").write_text(f"{os.uname().nodename}\t{os.getpid()}\t12345.0")  # the number is in use again
    (leftovers / "zarr.json").write_text("{")
    with writer_of(path) as writer:
        append(writer, 10)
        writer.finalise()
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_two_writers_do_not_meet(tmp_path):
    path = tmp_path / "s.zarr"
    with writer_of(path) as writer:
        with pytest.raises(FileExistsError, match=f"process {os.getpid()} is writing .*s.zarr; wait for it or stop it"):
            writer_of(path)
        append(writer, 10)
        writer.finalise()
    assert open_count_store(path).n_entries == 50


def test_a_replaced_store_comes_back_after_a_kill_between_renames(tmp_path):
    path = tmp_path / "s.zarr"
    with writer_of(path) as writer:
        append(writer, 10)
        writer.finalise()
    path.rename(Path(f"{path}.replaced"))
    with pytest.raises(FileExistsError, match="already a store at"):
        writer_of(path)
    assert open_count_store(path).n_entries == 50


def test_a_replaced_store_that_was_not_removed_is_removed(tmp_path):
    path = tmp_path / "s.zarr"
    for name in ("s.zarr", "s.zarr.replaced"):
        with writer_of(tmp_path / name) as writer:
            append(writer, 10)
            writer.finalise()
    with writer_of(path, overwrite=True) as writer:
        append(writer, 10, 7)
        writer.finalise()
    assert open_count_store(path).largest_count == 7
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.zarr"]


def test_a_folder_in_the_way_is_not_removed(tmp_path):
    partial_path(tmp_path / "s.zarr").mkdir()
    (partial_path(tmp_path / "s.zarr") / "notes").write_text("keep me")
    with pytest.raises(FileExistsError, match=r"s\.zarr\.partial is in the way and is no unfinished store; move it"):
        writer_of(tmp_path / "s.zarr")
    assert (partial_path(tmp_path / "s.zarr") / "notes").read_text() == "keep me"
