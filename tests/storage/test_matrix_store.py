"""Dense matrices in Zarr: what goes in by rows comes out by columns, and the reverse."""

import dask
import dask.array as da
import numpy as np
import pytest
import zarr

from normalisr_dask.graph.passes import reader_of
from normalisr_dask.storage import matrix_store
from normalisr_dask.storage.locations import stored_chunks
from normalisr_dask.storage.matrix_store import by_columns, by_rows, create_like, regular, row_blocks, store_rows

VALUES = np.random.default_rng(0).normal(size=(53, 97))


@pytest.fixture(autouse=True, params=["small", "usual"])
def sizes(request, monkeypatch):
    if request.param == "small":
        monkeypatch.setattr(matrix_store, "ROWS_BYTES", 8 * 97 * 10)
        monkeypatch.setattr(matrix_store, "CHUNK_BYTES", 8 * 10 * 7)
        monkeypatch.setattr(matrix_store, "cells_per_block", lambda n_rows: 20)


@pytest.mark.parametrize("height", [1, 9, 53])
def test_rows_in_columns_and_rows_out(tmp_path, height):
    path = tmp_path / "a.zarr"
    stored = store_rows(path, (VALUES[start : start + height] for start in range(0, 53, height)))
    columns = by_columns(stored, path)
    assert columns.numblocks[0] == 1
    for matrix in (columns, by_rows(stored), columns[:, 5:60:2]):
        expected = VALUES[:, 5:60:2] if matrix.shape[1] < 97 else VALUES
        np.testing.assert_array_equal(matrix.compute(), expected)
    np.testing.assert_array_equal(np.concatenate(list(row_blocks(stored))), VALUES)


def test_every_pass_reads_anew(tmp_path):
    columns = by_columns(store_rows(tmp_path / "a.zarr", [VALUES]), tmp_path / "a.zarr")
    reader = reader_of(columns)
    np.testing.assert_array_equal(reader.read(np.array([3, 5, 9]), None), VALUES[:, [3, 5, 9]])
    assert reader.read(np.array([], dtype=np.int64), None).shape == (53, 0)


def test_one_column_is_one_row_as_normalisr_reads_it(tmp_path):
    stored = store_rows(tmp_path / "a.zarr", [VALUES[:20, :1], VALUES[20:, :1]])
    np.testing.assert_array_equal(stored[...], VALUES[:, :1].T)


@pytest.mark.parametrize(
    "chunks", [((53,), (30, 30, 30, 7)), ((20, 20, 13), (97,)), ((25, 28), (50, 10, 37)), (53, 97)]
)
def test_blocks_of_any_sizes_are_stored(tmp_path, chunks):
    matrix = regular(da.from_array(VALUES, chunks=chunks))
    stored = create_like(tmp_path / "a.zarr", matrix)
    dask.compute(da.store(matrix, stored, lock=False, compute=False))
    np.testing.assert_array_equal(stored[...], VALUES)
    np.testing.assert_array_equal(np.concatenate(list(row_blocks(stored))), VALUES)


def test_vectors_are_read_whole(tmp_path):
    vector = zarr.create_array(tmp_path / "a.zarr", data=VALUES[0], chunks=(10,))
    (values,) = row_blocks(vector)
    np.testing.assert_array_equal(values, VALUES[0])


def test_all_shards_are_written_also_those_of_zeros(tmp_path):
    zeros = np.zeros_like(VALUES)
    by_block = regular(da.from_array(zeros, chunks=(10, 30)))
    target = create_like(tmp_path / "blocks.zarr", by_block)
    da.store(by_block, target, lock=False)
    for array in (store_rows(tmp_path / "rows.zarr", [zeros]), target):
        assert array.shards is not None
        assert stored_chunks(array).all()
        assert stored_chunks(array).shape == tuple(-(-VALUES.shape[axis] // array.shards[axis]) for axis in (0, 1))
