"""Opening and reading count stores, ours and others."""

import json
import pickle
import shutil
import warnings
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata.io import write_elem
from scipy import sparse

from normalisr_dask.storage.count_store import open_count_store, read_cells
from normalisr_dask.storage.count_store_writer import CountStoreWriter

N_CELLS, N_GENES = 40, 30


def simulate(largest=9, seed=1):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, largest + 1, (N_CELLS, N_GENES)) * (rng.random((N_CELLS, N_GENES)) < 0.2)
    counts[3] = 0
    return sparse.csr_array(counts.astype(np.uint32))


def tables():
    obs = pd.DataFrame({"batch": ["a", "b"] * (N_CELLS // 2)}, index=[f"cell{n}" for n in range(N_CELLS)])
    return obs, pd.DataFrame({"gene_ids": "x"}, index=[f"gene{n}" for n in range(N_GENES)])


def write(path, counts, *, step=7, **options):
    obs, var = tables()
    with CountStoreWriter(path, obs=obs, var=var, **options) as writer:
        for start in range(0, N_CELLS, step):
            block = counts[start : start + step]
            writer.append(np.diff(block.indptr), block.indices, block.data)
        return writer.finalise()


def write_other(path, matrix, zarr_format=3):
    """Write an AnnData-Zarr store as anndata does."""
    obs, var = tables()
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    with anndata.settings.override(auto_shard_zarr_v3=False):
        write_elem(root, "/", anndata.AnnData(matrix, obs=obs, var=var))
    return path


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert found.dtype.kind == "u"
    np.testing.assert_array_equal(found.toarray(), expected.toarray())


def test_a_store_gives_back_what_was_written(tmp_path):
    counts = simulate()
    store = write(tmp_path / "s.zarr", counts)
    assert store == open_count_store(tmp_path / "s.zarr")
    assert (store.n_cells, store.n_genes, store.n_entries) == (*counts.shape, counts.nnz)
    assert (store.total_count, store.largest_count, store.dtype) == (counts.sum(), 9, np.dtype("uint16"))
    np.testing.assert_array_equal(store.row_offsets(), counts.indptr)
    obs, var = tables()
    pd.testing.assert_frame_equal(store.obs(), obs)
    pd.testing.assert_frame_equal(store.var(), var)
    np.testing.assert_array_equal(store.cells(), obs.index)
    np.testing.assert_array_equal(store.genes(), var.index)
    for start, stop in ((0, N_CELLS), (0, 0), (3, 4), (5, 23), (N_CELLS, N_CELLS)):
        block = read_cells(store.path, start, stop)
        assert_same(block, counts[start:stop])
        assert block.has_sorted_indices


def test_a_store_is_a_small_description(tmp_path):
    store = write(tmp_path / "s.zarr", simulate())
    assert len(pickle.dumps(store)) < 1000
    assert pickle.loads(pickle.dumps(store)) == store


def test_anndata_opens_a_store_without_warnings(tmp_path):
    counts = simulate()
    write(tmp_path / "s.zarr", counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = anndata.read_zarr(tmp_path / "s.zarr")
    assert_same(found.X, counts)
    assert found.obs.columns.tolist() == ["batch"]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int8", "int64", "uint64", "float32", "float64"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_other_anndata_stores_with_counts_are_read(tmp_path, dtype, zarr_format):
    counts = simulate()
    path = write_other(tmp_path / "other.zarr", sparse.csr_matrix(counts).astype(dtype), zarr_format)
    store = open_count_store(path)
    assert (store.n_entries, store.total_count, store.largest_count) == (counts.nnz, counts.sum(), 9)
    block = read_cells(path, 2, 30)
    assert block.dtype == store.dtype
    assert_same(block, counts[2:30])


def test_unsorted_genes_of_other_stores_are_sorted(tmp_path):
    counts = sparse.csr_matrix(simulate())
    turned = counts.copy()
    for start, stop in zip(counts.indptr, counts.indptr[1:], strict=False):
        turned.indices[start:stop] = counts.indices[start:stop][::-1]
        turned.data[start:stop] = counts.data[start:stop][::-1]
    turned.has_sorted_indices = False
    path = write_other(tmp_path / "other.zarr", turned)
    block = read_cells(path, 0, N_CELLS)
    np.testing.assert_array_equal(block.indices, counts.indices)
    np.testing.assert_array_equal(block.data, counts.data)


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf, 5e9])
def test_other_values_than_counts_are_refused(tmp_path, value):
    matrix = sparse.csr_matrix(simulate()).astype(np.float64)
    matrix.data[5] = value
    path = write_other(tmp_path / "other.zarr", matrix)
    for call in (lambda: open_count_store(path), lambda: read_cells(path, 0, N_CELLS)):
        with pytest.raises(ValueError, match=r"other\.zarr holds .*, expected counts: whole numbers from 0"):
            call()


@pytest.mark.parametrize(("matrix", "found"), [(sparse.csc_matrix(simulate()), "CSC"), (simulate().toarray(), "dense")])
def test_other_layouts_are_refused_with_a_way_out(tmp_path, matrix, found):
    path = write_other(tmp_path / "other.zarr", matrix)
    with pytest.raises(ValueError, match=rf"X of .* is {found}, expected CSR; `normalisr-dask ingest` converts"):
        open_count_store(path)


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, N_CELLS + 1)])
def test_cells_that_are_not_there_are_refused(tmp_path, start, stop):
    path = write(tmp_path / "s.zarr", simulate()).path
    with pytest.raises(ValueError, match=f"cells {start} to {stop} were asked for, .* has cells 0 to {N_CELLS}"):
        read_cells(path, start, stop)


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no count store at .*missing"):
        open_count_store(tmp_path / "missing")
    (tmp_path / "text").write_text("text")
    with pytest.raises(ValueError, match=r"text is not a Zarr store; `normalisr-dask ingest` converts"):
        open_count_store(tmp_path / "text")
    zarr.open_group(tmp_path / "group", mode="w")
    with pytest.raises(ValueError, match="group is a Zarr store, but not an AnnData store"):
        open_count_store(tmp_path / "group")


def change_metadata(path, **changes):
    file = path / "zarr.json"
    content = json.loads(file.read_text())
    content["attributes"]["normalisr_dask"].update(changes)
    file.write_text(json.dumps(content))


def test_stores_of_another_version_and_unfinished_ones_are_refused(tmp_path):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    change_metadata(path, format_version=0)
    with pytest.raises(ValueError, match="format version 0, expected 1; ingest it again"):
        open_count_store(path)
    change_metadata(path, format_version=1, finished=False)
    with pytest.raises(ValueError, match="half-written count store; ingest it again"):
        open_count_store(path)


@pytest.mark.parametrize("part", ["X/data", "X/indices", "X/indptr", "obs/_index", "var/_index"])
def test_parts_that_do_not_fit_are_found(tmp_path, part):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    array: Any = zarr.open_group(path)[part]
    array.resize((array.shape[0] - 1,))
    with pytest.raises(ValueError, match=r"s\.zarr is damaged or incompletely copied: expected \d+, found \d+ for"):
        open_count_store(path)


ENTRIES_PER_FILE = 100


@pytest.fixture(params=["ours", "other"])
def store_of_several_files(request, tmp_path):
    """A store whose entries and row offsets each lie in several files."""
    path = tmp_path / "s.zarr"
    if request.param == "ours":
        write(path, simulate())
    else:
        write_other(path, sparse.csr_matrix(simulate()))
    matrix: Any = zarr.open_group(path)["X"]
    for name, length in (("data", ENTRIES_PER_FILE), ("indices", ENTRIES_PER_FILE), ("indptr", 10)):
        values, attributes = matrix[name][:], dict(matrix[name].attrs)
        matrix.create_array(
            name, data=values, chunks=(length // 2,), shards=(length,), attributes=attributes, overwrite=True
        )
    return path


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
def test_missing_files_are_found(store_of_several_files, name):
    path = store_of_several_files
    assert_same(read_cells(open_count_store(path).path, 0, N_CELLS), simulate())
    files = sorted((path / "X" / name / "c").iterdir())
    assert len(files) > 2
    for file in files:
        aside = file.rename(path.parent / "aside")
        with pytest.raises(
            ValueError,
            match=rf"s\.zarr is damaged or incompletely copied: the file X/{name}/c/{file.name} is missing; copy",
        ):
            open_count_store(path)
        aside.rename(file)
    shutil.rmtree(path / "X" / name / "c")
    with pytest.raises(ValueError, match=rf"the file X/{name}/c/0 is missing; copy it again, or ingest it again"):
        open_count_store(path)


@pytest.mark.parametrize("table", ["obs", "var"])
def test_missing_names_are_found(tmp_path, table):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    (path / table / "_index" / "c" / "0").unlink()
    with pytest.raises(ValueError, match=rf"the file {table}/_index/c/0 is missing"):
        open_count_store(path)


@pytest.mark.parametrize("rows", [slice(0, 0), slice(5, 25)])
def test_zeros_that_zarr_did_not_write_are_no_damage(tmp_path, rows):
    """Nothing but gene 0, once in some of the cells, or no entry at all: Zarr leaves the file out."""
    dense = np.zeros((N_CELLS, N_GENES), dtype=np.uint32)
    dense[rows, 0] = 3
    counts = sparse.csr_array(dense)
    path = tmp_path / "s.zarr"
    write(path, counts)
    assert not (path / "X/indices/c/0").exists()
    assert open_count_store(path).total_count == dense.sum()
    assert_same(read_cells(path, 0, N_CELLS), counts)


def test_other_stores_with_explicit_zeros_are_read(tmp_path):
    matrix = sparse.csr_matrix(simulate())
    matrix.data[:50] = 0
    path = write_other(tmp_path / "other.zarr", matrix)
    assert open_count_store(path).total_count == matrix.sum()
    assert_same(read_cells(path, 0, N_CELLS), matrix)


@pytest.mark.parametrize("part", ["X", "X/data", "X/indices", "X/indptr", "obs", "var"])
def test_missing_parts_are_named(tmp_path, part):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    shutil.rmtree(path / part)
    with pytest.raises(
        ValueError, match=rf"s\.zarr is damaged or incompletely copied: {part} is missing; copy it again, or ingest"
    ):
        open_count_store(path)


@pytest.mark.parametrize(
    ("part", "named"),
    [("", "its metadata"), ("X", "X"), ("X/data", "X/data"), ("obs", "obs"), ("var/_index", "the index of var")],
)
def test_metadata_that_was_cut_off_is_named(tmp_path, part, named):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    file = path / part / "zarr.json"
    file.write_text(file.read_text()[:-40])
    with pytest.raises(
        ValueError, match=rf"s\.zarr is damaged or incompletely copied: {named} cannot be read \(.*or ingest it again"
    ):
        open_count_store(path)


@pytest.mark.parametrize("name", ["total_count", "largest_count"])
def test_metadata_without_totals_are_refused(tmp_path, name):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    change_metadata(path, **{name: None})
    with pytest.raises(
        ValueError, match=rf"s\.zarr is damaged .* holds None for {name}, expected a whole number; copy"
    ):
        open_count_store(path)


@pytest.mark.parametrize("value", ["text", [], None])
def test_metadata_that_are_no_table_are_refused(tmp_path, value):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    zarr.open_group(path).attrs["normalisr_dask"] = value
    with pytest.raises(ValueError, match=r"s\.zarr is damaged .* for normalisr_dask, expected a table of its metadata"):
        open_count_store(path)


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
@pytest.mark.parametrize("harm", [lambda content: content[: len(content) // 2], lambda content: b"\xff" * len(content)])
def test_files_that_cannot_be_decompressed_are_named(tmp_path, name, harm):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    file = path / "X" / name / "c" / "0"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(
        ValueError, match=rf"s\.zarr is damaged or incompletely copied: X/{name} cannot be read \(.*; copy it again"
    ):
        read_cells(path, 0, N_CELLS)


@pytest.mark.parametrize("offset", [-1, 2, 10**7])
def test_offsets_that_are_not_those_of_the_entries_are_named(tmp_path, offset):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    zarr.open_group(path)["X/indptr"][4] = offset
    with pytest.raises(ValueError, match=r"s\.zarr is damaged .*: the row offsets of cells 0 to 4 "):
        read_cells(path, 0, 4)


def test_counts_of_a_local_store_are_read_without_zarr(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    expected = read_cells(path, 0, N_CELLS)
    monkeypatch.setattr(zarr.Array, "__getitem__", None)
    found = read_cells(path, 0, N_CELLS)
    assert found.has_canonical_format
    assert (found != expected).nnz == 0


@pytest.mark.parametrize("gene", [N_GENES, 10**6])
def test_genes_that_are_not_there_are_named(tmp_path, gene):
    path = tmp_path / "s.zarr"
    write(path, simulate())
    zarr.open_group(path)["X/indices"][0] = gene
    with pytest.raises(
        ValueError, match=rf"s\.zarr is damaged .*: cells 0 to 4 have counts of genes beyond the {N_GENES} "
    ):
        read_cells(path, 0, 4)
