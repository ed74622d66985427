"""Inputs of every format give the same counts, names and tables."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.io
import zarr
from anndata.io import write_elem
from scipy import sparse

from normalisr_dask.storage import compressed_matrix
from normalisr_dask.storage.count_store import read_cells
from normalisr_dask.storage.ingest import ingest

N_CELLS, N_GENES = 23, 17


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(4)
    matrix = rng.integers(0, 500, (N_CELLS, N_GENES)) * (rng.random((N_CELLS, N_GENES)) < 0.4)
    matrix[[0, 7, -1]] = 0
    matrix[:, 5] = 0
    return matrix


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(compressed_matrix, "BLOCK_ENTRIES", 11)
    monkeypatch.setattr(compressed_matrix, "BLOCK_VALUES", 40)


def tables():
    obs = pd.DataFrame(
        {"batch": pd.Categorical(["a", "b", "a"] * 7 + ["b"] * 2), "depth": np.arange(N_CELLS) / 2},
        index=[f"cell{n}" for n in range(N_CELLS)],
    )
    var = pd.DataFrame({"gene_ids": [f"E{n}" for n in range(N_GENES)]}, index=[f"gene{n}" for n in range(N_GENES)])
    return obs, var


def check(store, counts):
    obs, var = tables()
    np.testing.assert_array_equal(read_cells(store.path, 0, store.n_cells).toarray(), counts)
    np.testing.assert_array_equal(store.cells(), obs.index)
    np.testing.assert_array_equal(store.genes(), var.index)
    assert (store.total_count, store.largest_count) == (counts.sum(), counts.max())


def write_ten_x_folder(folder, counts, *, version):
    folder.mkdir()
    obs, var = tables()
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_array(counts.T), field="integer")
    rows = [[identifier, symbol] for symbol, identifier in zip(var.index, var["gene_ids"], strict=True)]
    if version == 2:
        pd.DataFrame(rows).to_csv(folder / "genes.tsv", sep="\t", header=False, index=False)
        (folder / "barcodes.tsv").write_text("\n".join(obs.index) + "\n")
        return
    rows = [[*row, "Antibody Capture" if n > 14 else "Gene Expression"] for n, row in enumerate(rows)]
    pd.DataFrame(rows).to_csv(folder / "features.tsv.gz", sep="\t", header=False, index=False)
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(("\n".join(obs.index) + "\n").encode()))
    (folder / "matrix.mtx.gz").write_bytes(gzip.compress((folder / "matrix.mtx").read_bytes()))
    (folder / "matrix.mtx").unlink()


def write_ten_x_file(path, counts, *, version, genomes=("GRCh38",)):
    obs, var = tables()
    compressed = sparse.csr_array(counts)
    with h5py.File(path, "w") as file:
        for name in ("matrix",) if version == 3 else genomes:
            group = file.create_group(name)
            group["barcodes"] = np.array(obs.index, dtype="S")
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(compressed, part)
            group["shape"] = np.array([N_GENES, N_CELLS])
            if version == 2:
                group["genes"], group["gene_names"] = np.array(var["gene_ids"], "S"), np.array(var.index, "S")
            else:
                group["features/id"], group["features/name"] = np.array(var["gene_ids"], "S"), np.array(var.index, "S")
                group["features/feature_type"] = np.array(["Gene Expression"] * N_GENES, dtype="S")


def write_anndata(path, matrix, zarr_format=None):
    obs, var = tables()
    if zarr_format is None:
        anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(path)
        return
    root = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    with anndata.settings.override(auto_shard_zarr_v3=False):
        write_elem(root, "/", anndata.AnnData(matrix, obs=obs, var=var))


@pytest.mark.parametrize("version", [2, 3])
def test_ten_x_folders(tmp_path, counts, version):
    write_ten_x_folder(tmp_path / "folder", counts, version=version)
    store = ingest(tmp_path / "folder", tmp_path / "s.zarr")
    check(store, counts)
    assert list(store.var()["gene_ids"]) == list(tables()[1]["gene_ids"])
    if version == 3:
        assert store.var()["feature_types"].value_counts().to_dict() == {"Gene Expression": 15, "Antibody Capture": 2}


@pytest.mark.parametrize("version", [2, 3])
def test_ten_x_files(tmp_path, counts, version):
    write_ten_x_file(tmp_path / "matrix.h5", counts, version=version)
    store = ingest(tmp_path / "matrix.h5", tmp_path / "s.zarr")
    check(store, counts)
    assert list(store.var().columns) == ["gene_ids", "feature_types"][: version - 1]


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint16"])
@pytest.mark.parametrize("zarr_format", [None, 2, 3])
def test_anndata(tmp_path, counts, layout, dtype, zarr_format):
    path = tmp_path / ("in.h5ad" if zarr_format is None else "in.zarr")
    write_anndata(path, layout(counts.astype(dtype)), zarr_format)
    events = []
    store = ingest(path, tmp_path / "s.zarr", progress=events.append)
    check(store, counts)
    pd.testing.assert_frame_equal(store.obs(), tables()[0])
    pd.testing.assert_frame_equal(store.var(), tables()[1])
    read = [event for event in events if event.stage == "reading"]
    assert read[-1].bytes_done == read[-1].bytes_total > 0
    assert read[-1].n_entries == (counts > 0).sum()


@pytest.mark.parametrize("name", ["m.tsv", "m.csv", "m.txt.gz"])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("corner", [False, True])
def test_text(tmp_path, counts, name, transpose, corner):
    obs, var = tables()
    table = pd.DataFrame(counts, index=obs.index, columns=var.index)
    table = table if transpose else table.T
    text = table.to_csv(sep="," if ".csv" in name else "\t", index_label="name" if corner else False)
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    check(ingest(tmp_path / name, tmp_path / "s.zarr", transpose=transpose), counts)


def test_names_inside_can_be_replaced(tmp_path, counts):
    write_anndata(tmp_path / "in.h5ad", sparse.csr_matrix(counts))
    (tmp_path / "cells.txt").write_text("".join(f"new{n}\n" for n in range(N_CELLS)))
    store = ingest(tmp_path / "in.h5ad", tmp_path / "s.zarr", cells=tmp_path / "cells.txt")
    assert store.cells()[3] == "new3"
    assert list(store.obs().columns) == ["batch", "depth"]
    with pytest.raises(ValueError, match=r"cells\.txt names 23 genes, but .*in\.h5ad has 17"):
        ingest(tmp_path / "in.h5ad", tmp_path / "t.zarr", genes=tmp_path / "cells.txt")


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_anndata_without_counts_is_refused(tmp_path, counts, layout):
    matrix = np.log1p(counts)
    write_anndata(tmp_path / "in.h5ad", layout(matrix))
    with pytest.raises(ValueError, match=r"X of .*in\.h5ad holds \d\.\d+, expected counts: whole numbers from 0 to 4"):
        ingest(tmp_path / "in.h5ad", tmp_path / "s.zarr")
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


def test_what_is_not_known_is_refused(tmp_path, counts):
    store = tmp_path / "s.zarr"
    with pytest.raises(FileNotFoundError, match=r"missing\.mtx does not exist"):
        ingest(tmp_path / "missing.mtx", store)
    with pytest.raises(ValueError, match="expected at least one input, found none"):
        ingest([], store)
    (tmp_path / "notes.doc").write_text("text\n")
    with pytest.raises(ValueError, match=r"the format of .*notes\.doc is not known: expected Matrix Market"):
        ingest(tmp_path / "notes.doc", store)
    (tmp_path / "notes.tsv").write_text("text\n")
    with pytest.raises(ValueError, match=r"notes\.tsv, line 1: expected names separated by tabs or commas, found 'te"):
        ingest(tmp_path / "notes.tsv", store)
    write_ten_x_folder(tmp_path / "hg19", counts, version=2)
    with pytest.raises(FileNotFoundError, match=r"it has no matrix\.mtx or matrix\.mtx\.gz; did you mean .*hg19"):
        ingest(tmp_path, store)
    write_anndata(tmp_path / "in.h5ad", sparse.csr_matrix(counts))
    with pytest.raises(ValueError, match="transpose is for Matrix Market and text"):
        ingest(tmp_path / "in.h5ad", store, transpose=True)
    content = (tmp_path / "in.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"cut\.h5ad is truncated or damaged: HDF5 cannot open it"):
        ingest(tmp_path / "cut.h5ad", store)
    write_ten_x_file(tmp_path / "two.h5", counts, version=2, genomes=("hg19", "mm10"))
    with pytest.raises(ValueError, match=r"two\.h5 has 2 genomes, hg19, mm10; expected the matrix of one"):
        ingest(tmp_path / "two.h5", store)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match=r"other\.h5 is neither AnnData \(it lacks X, obs or var\) nor a 10x matrix"):
        ingest(tmp_path / "other.h5", store)
    assert not store.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("b\t3\t4", "b\t3\t-4", "line 3: expected a count, found the negative '-4'"),
        ("b\t3\t4", "b\t3\t4.5", "line 3: expected a count, found '4.5', which is no whole number"),
        ("b\t3\t4", "b\tNA\t4", "line 3: expected a count, found 'NA'"),
        ("b\t3\t4", "b\t3\t5000000000", "line 3: '5000000000' is larger than 4294967295"),
        ("b\t3\t4", "b\t3", "line 3: expected 2 values, as the first line names, found fewer"),
        ("b\t3\t4", "b\t3\t4\t5", "line 3: expected 2 values, as the first line names, found more"),
        ("a\t1\t2", "a\t1", "the first line has 3 fields, but the second 2"),
        ("a\t1\t2\nb\t3\t4\n", "", "has no rows below its first line"),
    ],
)
def test_bad_text_is_refused_with_its_line(tmp_path, old, new, message):
    path = tmp_path / "m.tsv"
    path.write_text("gene\tx\ty\na\t1\t2\nb\t3\t4\n".replace(old, new))
    with pytest.raises(ValueError, match=message):
        ingest(path, tmp_path / "s.zarr")
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.tsv"]


@pytest.mark.parametrize("part", ["indptr", "indices", "data"])
def test_damaged_compressed_matrices_are_refused(tmp_path, counts, part):
    path = tmp_path / "matrix.h5"
    write_ten_x_file(path, counts, version=3)
    with h5py.File(path, "r+") as file:
        values = file[f"matrix/{part}"][:]
        if part == "indptr":
            values[2] = values[-1] + 1
        values[5] = -1 if part != "indptr" else values[5]
        file[f"matrix/{part}"][:] = values
    with pytest.raises(ValueError, match=r"matrix\.h5 (is damaged: |holds -1, expected counts)"):
        ingest(path, tmp_path / "s.zarr")
