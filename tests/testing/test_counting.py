"""The counters see what they claim to see, and nothing else."""

from pathlib import Path

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from dask.distributed import Client
from zarr.storage import LocalStore, MemoryStore

from normalisr_dask.testing import ReadCountingStore, count_computes, count_reads, raise_if_computes


def test_building_is_no_compute_and_every_way_to_compute_is_counted() -> None:
    with count_computes() as counter:
        array = da.ones(4, chunks=2) + 1
        assert counter.computes == 0
        assert array.compute().tolist() == [2, 2, 2, 2]
        assert counter.computes == 1
        dask.compute(array, array.sum())
        array.persist()
        float(array.sum())
        assert counter.computes == 4
    array.compute()
    assert counter.computes == 4


def test_computes_are_counted_while_a_client_is_the_default(tmp_path: Path) -> None:
    with (
        Client(processes=False, n_workers=1, dashboard_address=None, local_directory=tmp_path),
        count_computes() as counter,
    ):
        assert int(da.ones(3).sum().compute()) == 3
    assert counter.computes == 1


def test_a_compute_raises_where_none_is_allowed() -> None:
    with raise_if_computes():
        array = da.ones(3)
        with pytest.raises(RuntimeError, match="compute 1 times where 0 are allowed"):
            array.compute()
    assert array.compute().shape == (3,)


def test_as_many_computes_as_allowed_pass() -> None:
    with raise_if_computes(1):
        da.ones(3).compute()
        with pytest.raises(RuntimeError, match="compute 2 times where 1 are allowed"):
            da.ones(3).compute()


def _write_array(store: MemoryStore | LocalStore) -> None:
    group = zarr.create_group(store)
    group.create_array("values", data=np.arange(12), chunks=(2,), shards=(6,))


def test_counting_store_counts_chunks_and_metadata_apart() -> None:
    memory = MemoryStore()
    _write_array(memory)
    store = ReadCountingStore(memory)
    values = zarr.open_group(store, mode="r")["values"]
    assert store.reads.total() > 0
    assert store.reads.data().total() == 0
    assert values[:2].tolist() == [0, 1]
    assert set(store.reads.data()) == {"values/c/0"}
    values[:]
    assert set(store.reads.data()) == {"values/c/0", "values/c/1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _write_array(LocalStore(tmp_path / "store"))
    return tmp_path / "store"


def test_reads_of_a_store_opened_by_path_are_counted(folder: Path) -> None:
    with count_reads(folder) as reads:
        values = zarr.open_group(folder, mode="r")["values"]
        lazy = da.from_array(values)
        assert reads["values/zarr.json"] > 0
        assert reads.data().total() == 0
        lazy[7:9].compute(scheduler="threads")
        assert set(reads.data()) == {"values/c/1"}
    before = reads.total()
    values[:]
    assert reads.total() == before


def test_writes_and_other_folders_are_not_reads(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "store_2").write_text("a neighbour whose name starts alike")
    with count_reads(folder) as reads:
        (folder / "note").write_text("written")
        (tmp_path / "store_2").read_text()
        list(folder.iterdir())
    assert reads.total() == 0


def test_relative_and_absolute_paths_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with count_reads(Path("../store")) as reads:
        Path("zarr.json").read_bytes()
        (folder / "values" / ".." / "zarr.json").read_bytes()
    assert reads == {"zarr.json": 2}


def test_a_single_file_can_be_watched_and_contexts_nest(folder: Path) -> None:
    with count_reads(folder) as outer:
        with count_reads(folder / "zarr.json") as inner:
            (folder / "zarr.json").read_bytes()
            (folder / "values" / "zarr.json").read_bytes()
        (folder / "zarr.json").read_bytes()
    assert inner == {".": 1}
    assert outer == {"zarr.json": 2, "values/zarr.json": 1}
