"""Written matrices read back as they were."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.sparse import coo_array, csc_array, csr_matrix

from normalisr_dask.testing import simulate_counts, write_cell_ranger_folder, write_matrix_market


@pytest.mark.parametrize("name", ["matrix.mtx", "matrix.mtx.gz"])
def test_scipy_reads_the_same_matrix(tmp_path: Path, name: str) -> None:
    counts = simulate_counts(120, 90).counts
    write_matrix_market(tmp_path / name, counts)
    assert (scipy.io.mmread(tmp_path / name).tocsc() != counts).nnz == 0


def test_entries_go_cell_by_cell_with_genes_ascending_in_any_block_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("normalisr_dask.testing.writing.BLOCK_ENTRIES", 2)
    counts = csr_matrix(np.array([[0, 3, 0, 1], [0, 0, 0, 2], [4_000_000_000, 5, 0, 0]], dtype=np.uint32))
    write_matrix_market(tmp_path / "matrix.mtx", counts)
    assert (tmp_path / "matrix.mtx").read_text().splitlines() == [
        "%%MatrixMarket matrix coordinate integer general",
        "3 4 5",
        "3 1 4000000000",
        "1 2 3",
        "3 2 5",
        "1 4 1",
        "2 4 2",
    ]


def test_unsorted_genes_are_sorted_and_the_argument_is_left_alone(tmp_path: Path) -> None:
    counts = csc_array((np.array([7, 8]), np.array([1, 0]), np.array([0, 2])), shape=(2, 1))
    write_matrix_market(tmp_path / "matrix.mtx", counts)
    assert (tmp_path / "matrix.mtx").read_text().splitlines()[2:] == ["1 1 8", "2 1 7"]
    assert counts.indices.tolist() == [1, 0]


def test_a_matrix_without_entries_is_a_header(tmp_path: Path) -> None:
    write_matrix_market(tmp_path / "matrix.mtx", coo_array((2, 3), dtype=np.int64))
    assert (tmp_path / "matrix.mtx").read_text().splitlines()[1:] == ["2 3 0"]


def test_cell_ranger_folder_holds_its_three_files(tmp_path: Path) -> None:
    simulated = simulate_counts(12, 9)
    write_cell_ranger_folder(tmp_path / "new" / "folder", simulated.counts, simulated.gene_names, simulated.cell_names)
    lines = {
        path.name: gzip.decompress(path.read_bytes()).decode().splitlines()
        for path in (tmp_path / "new" / "folder").iterdir()
    }
    assert set(lines) == {"matrix.mtx.gz", "features.tsv.gz", "barcodes.tsv.gz"}
    assert lines["features.tsv.gz"][0] == "gene01\tgene01\tGene Expression"
    assert len(lines["features.tsv.gz"]) == 12
    assert lines["barcodes.tsv.gz"] == simulated.cell_names
    assert len(lines["matrix.mtx.gz"]) == 2 + simulated.counts.nnz


def test_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"counts must be integers, found float64; convert them with counts.astype"):
        write_matrix_market(tmp_path / "matrix.mtx", csc_array(np.ones((2, 2))))
    assert not list(tmp_path.iterdir())


def test_names_of_another_number_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"genes x cells = 3 x 2 as the names, found \(2, 2\)"):
        write_cell_ranger_folder(tmp_path / "folder", csc_array((2, 2), dtype=int), ["a", "b", "c"], ["d", "e"])
    assert not list(tmp_path.iterdir())
