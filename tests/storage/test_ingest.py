"""Ingest as a whole: several inputs, warnings, interruption, a full disk."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.io
from scipy import sparse

from normalisr_dask.storage.count_store import open_count_store, partial_path, read_cells
from normalisr_dask.storage.ingest import ingest

N_GENES, N_CELLS = 20, 12


def write(folder, *, genes=None, cells=None, seed=0, matrix=None):
    """Write a 10x folder in Cell Ranger's order; returns the counts, cells × genes."""
    genes = [f"g{n}" for n in range(N_GENES)] if genes is None else genes
    cells = [f"{folder.name}-{n}" for n in range(N_CELLS)] if cells is None else cells
    rng = np.random.default_rng(seed)
    if matrix is None:
        matrix = rng.integers(1, 300, (len(cells), len(genes))) * (rng.random((len(cells), len(genes))) < 0.3)
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.mmwrite(folder / "matrix.mtx", sparse.coo_array(sparse.csc_array(matrix.T)), field="integer")
    (folder / "genes.tsv").write_text("".join(f"{name}\n" for name in genes))
    (folder / "barcodes.tsv").write_text("".join(f"{name}\n" for name in cells))
    return matrix


def to_dense(store):
    return read_cells(store.path, 0, store.n_cells).toarray()


def test_several_inputs_are_put_below_one_another(tmp_path):
    matrices = [write(tmp_path / name, seed=seed) for seed, name in enumerate("abc")]
    events = []
    store = ingest([tmp_path / name for name in "abc"], tmp_path / "s.zarr", progress=events.append)
    np.testing.assert_array_equal(to_dense(store), np.concatenate(matrices))
    assert store.cells()[N_CELLS] == "b-0"
    done = [event.bytes_done for event in events]
    assert done == sorted(done)
    assert done[-1] == events[-1].bytes_total == sum((tmp_path / n / "matrix.mtx").stat().st_size for n in "abc")
    assert events[-1].n_entries == store.n_entries


@pytest.mark.parametrize("join", [None, "inner", "outer"])
def test_genes_of_several_inputs_are_aligned_by_name(tmp_path, join):
    first = write(tmp_path / "a", genes=["w", "x", "y", "z"], cells=["1", "2", "3"])
    genes = ["z", "w", "y", "x"] if join is None else ["v", "z", "y", "u"]
    second = write(tmp_path / "b", genes=genes, cells=["4", "5"], seed=1)
    store = ingest([tmp_path / "a", tmp_path / "b"], tmp_path / "s.zarr", join=join)
    frames = [pd.DataFrame(first, columns=["w", "x", "y", "z"]), pd.DataFrame(second, columns=genes)]
    expected = pd.concat(frames, join=join or "outer").fillna(0).astype(int)[list(store.genes())]
    np.testing.assert_array_equal(to_dense(store), expected)
    expected_genes = {None: "wxyz", "inner": "yz", "outer": "wxyzvu"}[join]
    assert "".join(store.genes()) == expected_genes


def test_inputs_with_other_genes_or_the_same_cells_are_refused(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b", genes=[f"g{n}" for n in range(1, N_GENES + 1)])
    with pytest.raises(ValueError, match=r"1 genes only in .*a, the first 'g0'; 1 genes only in .*b, the first 'g20'"):
        ingest([tmp_path / "a", tmp_path / "b"], tmp_path / "s.zarr")
    with pytest.raises(ValueError, match="12 cell names are in more than one input, the first 'a-0'"):
        ingest([tmp_path / "a", tmp_path / "a"], tmp_path / "s.zarr")
    names = [tmp_path / "a/barcodes.tsv", tmp_path / "other.tsv"]
    names[1].write_text("".join(f"other-{n}\n" for n in range(N_CELLS)))
    assert ingest([tmp_path / "a", tmp_path / "a"], tmp_path / "s.zarr", cells=names).n_cells == 2 * N_CELLS
    with pytest.raises(ValueError, match=r"expected a file of cells \(--cells\) for each of 2 inputs, found 1"):
        ingest([tmp_path / "a", tmp_path / "a"], tmp_path / "t.zarr", cells=names[:1])


def test_any_order_gives_the_same_store(tmp_path):
    matrix = write(tmp_path / "a")
    lines = (tmp_path / "a/matrix.mtx").read_text().splitlines()
    body = lines[-int((matrix > 0).sum()) :]
    by_gene = sorted(body, key=lambda line: [int(field) for field in line.split()])
    late = [*body[1:], body[0]]  # only the last entry is out of order
    for order in (body[::-1], by_gene, late):
        (tmp_path / "a/matrix.mtx").write_text("\n".join([*lines[: -len(body)], *order]) + "\n")
        store = ingest(tmp_path / "a", tmp_path / "s.zarr", overwrite=True)
        np.testing.assert_array_equal(to_dense(store), matrix)
        assert {entry.name for entry in Path(store.path).iterdir()} == {
            *("X", "obs", "var", "layers", "obsm", "obsp", "uns", "varm", "varp", "zarr.json"),
        }


def test_duplicates_are_told(tmp_path):
    write(tmp_path / "a", genes=["g", "h", "g"], cells=["1", "2"], matrix=np.array([[1, 2, 3], [4, 5, 6]]))
    text = (tmp_path / "a/matrix.mtx").read_text().replace("3 2 6\n", "3 2 8\n", 1) + "1 1 10\n1 1 10\n"
    (tmp_path / "a/matrix.mtx").write_text(text)
    with (
        pytest.warns(UserWarning, match="2 duplicate entries were added to others of the same cell and gene"),
        pytest.warns(UserWarning, match="1 duplicate gene names, the first 'g', were made unique"),
    ):
        store = ingest(tmp_path / "a", tmp_path / "s.zarr")
    assert to_dense(store).tolist() == [[21, 2, 3], [4, 5, 6]]
    assert list(store.genes()) == ["g", "h", "g-1"]
    write(tmp_path / "b", cells=["x"] * 12)
    with pytest.raises(ValueError, match=r"11 duplicate cell names, the first 'x' \(cells 1 and 2\)"):
        ingest(tmp_path / "b", tmp_path / "t.zarr")


def test_a_table_of_cells_is_added(tmp_path):
    write(tmp_path / "a", cells=["x", "y"])
    (tmp_path / "cells.tsv").write_text("cell\tbatch\ny\t2\nx\t1\n")
    store = ingest(tmp_path / "a", tmp_path / "s.zarr", obs=tmp_path / "cells.tsv")
    assert store.obs()["batch"].to_dict() == {"x": 1, "y": 2}
    (tmp_path / "cells.tsv").write_text("cell\tbatch\ny\t2\n")
    with pytest.raises(ValueError, match=r"cells\.tsv lacks 1 of 2 cells, the first 'x'"):
        ingest(tmp_path / "a", tmp_path / "t.zarr", obs=tmp_path / "cells.tsv")


def test_tables_with_gaps_are_stored(tmp_path):
    """Cells of one input have a column that those of the other lack, and labels may be missing."""
    write(tmp_path / "a", cells=["1"], genes=["x", "y"])
    matrix = anndata.AnnData(np.ones((2, 2), dtype=np.float32), obs=pd.DataFrame({"lab": ["u", "v"]}, index=["2", "3"]))
    matrix.var = pd.DataFrame({"gene_ids": ["E1", "E2"]}, index=["x", "z"])
    matrix.write_h5ad(tmp_path / "b.h5ad")
    (tmp_path / "cells.csv").write_text("cell,batch,depth\n1,,3\n2,b,NA\n3,c,1\n")
    inputs = [tmp_path / "a", tmp_path / "b.h5ad"]
    store = ingest(inputs, tmp_path / "s.zarr", join="outer", obs=tmp_path / "cells.csv")
    obs = store.obs()
    assert obs["lab"].isna().tolist() == [True, False, False]
    assert obs["batch"].isna().tolist() == [True, False, False]
    assert obs["depth"].isna().tolist() == [False, True, False]
    assert store.var()["gene_ids"].isna().tolist() == [True, True, False]


def test_provenance_is_kept(tmp_path):
    write(tmp_path / "a")
    ingest(tmp_path / "a", tmp_path / "s.zarr")
    metadata = json.loads((tmp_path / "s.zarr/zarr.json").read_text())["attributes"]["normalisr_dask"]
    path = tmp_path / "a/matrix.mtx"
    assert metadata["provenance"]["inputs"] == [{"path": str(path), "bytes": path.stat().st_size}]
    assert metadata["provenance"]["normalisr_dask"] == version("normalisr-dask")


def test_an_existing_store_is_kept_unless_asked(tmp_path):
    write(tmp_path / "a")
    ingest(tmp_path / "a", tmp_path / "s.zarr")
    with pytest.raises(FileExistsError, match="there is already a store at"):
        ingest(tmp_path / "a", tmp_path / "s.zarr")
    ingest(tmp_path / "a", tmp_path / "s.zarr", overwrite=True)
    with pytest.raises(FileExistsError, match="a exists and is not a store"):
        ingest(tmp_path / "a", tmp_path / "a", overwrite=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_ingest_leaves_nothing(tmp_path, error):
    matrix = write(tmp_path / "a")

    def interrupt(event):
        raise error

    with pytest.raises(error):
        ingest(tmp_path / "a", tmp_path / "s.zarr", progress=interrupt)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]
    np.testing.assert_array_equal(to_dense(ingest(tmp_path / "a", tmp_path / "s.zarr")), matrix)


KILL = """
import os, signal, sys
from normalisr_dask.storage.ingest import ingest
ingest(sys.argv[1], sys.argv[2], progress=lambda event: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.slow
def test_a_killed_ingest_leaves_no_store_and_can_be_repeated(tmp_path):
    matrix = write(tmp_path / "a")
    store = tmp_path / "s.zarr"
    killed = subprocess.run([sys.executable, "-c", KILL, str(tmp_path / "a"), str(store)], check=False)
    assert killed.returncode == -int(signal.SIGKILL)
    assert not store.exists()
    assert partial_path(store).exists()
    with pytest.raises(FileNotFoundError, match="run the same ingest again"):
        open_count_store(store)
    np.testing.assert_array_equal(to_dense(ingest(tmp_path / "a", store)), matrix)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a", "s.zarr"}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a small file system can be mounted by root only")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("by_gene", [False, True])
def test_a_full_disk_is_told_and_cleaned(tmp_path, small_disk, by_gene):
    rng = np.random.default_rng(5)
    matrix = rng.integers(1, 60000, (300, 700))
    write(tmp_path / "a", matrix=matrix, genes=[f"g{n}" for n in range(700)], cells=[f"c{n}" for n in range(300)])
    if by_gene:
        coordinates = sparse.coo_array(matrix.T)
        scipy.io.mmwrite(tmp_path / "a/matrix.mtx", coordinates, field="integer")
    with pytest.raises(OSError, match=r"no space left on the disk of .*disk; the unfinished store was removed"):
        ingest(tmp_path / "a", small_disk / "s.zarr")
    assert list(small_disk.iterdir()) == []


@pytest.mark.slow
def test_real_counts_agree_with_scipy(tmp_path, real_data):
    with tarfile.open(real_data / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "filtered_gene_bc_matrices/hg19"
    with pytest.warns(UserWarning, match="95 duplicate gene names"):
        store = ingest(folder, tmp_path / "s.zarr")
    expected = scipy.io.mmread(folder / "matrix.mtx").T.tocsr()
    found = anndata.read_zarr(store.path)
    assert (store.n_cells, store.n_genes, store.n_entries) == (2700, 32738, 2286884)
    assert (expected != found.X).nnz == 0
    assert found.var_names.is_unique
    assert (read_cells(store.path, 100, 200) != expected[100:200]).nnz == 0
