"""Counts in files without names become count stores."""

import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import zarr

from normalisr_dask.storage.count_files import counts_of_array, counts_of_matrix_market, counts_of_text

COUNTS = np.random.default_rng(0).poisson(0.4, size=(31, 47))
COUNTS[3, 5] = 70_000


def check(counts) -> None:
    np.testing.assert_array_equal(counts.matrix.compute().toarray(), COUNTS)
    assert counts.genes.tolist() == [str(number) for number in range(31)]
    assert counts.cells.tolist() == [str(number) for number in range(47)]


@pytest.mark.parametrize("form", ["%i", "%.5e"])
def test_text(tmp_path, form):
    np.savetxt(tmp_path / "counts.tsv.gz", COUNTS, delimiter="\t", fmt=form)
    check(counts_of_text(tmp_path / "counts.tsv.gz", tmp_path))


def test_matrix_market(tmp_path):
    with gzip.open(tmp_path / "counts.any", "wb") as stream:
        scipy.io.mmwrite(stream, scipy.sparse.coo_array(COUNTS), field="integer")
    check(counts_of_matrix_market(tmp_path / "counts.any", tmp_path))


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.float64])
def test_arrays(tmp_path, dtype):
    array = zarr.create_array(tmp_path / "counts.zarr.d", data=COUNTS.astype(dtype), chunks=(7, 10))
    check(counts_of_array(array, tmp_path))


@pytest.mark.parametrize("bad", ["-1", "0.5", "nan", "5e9"])
def test_what_is_no_count_is_refused_with_its_place(tmp_path, bad):
    (tmp_path / "counts.tsv").write_text(f"1\t2\n3\t{bad}\n")
    with pytest.raises(ValueError, match=r"counts.tsv, row 2, column 2: expected a count, .* found "):
        counts_of_text(tmp_path / "counts.tsv", tmp_path)


def test_bad_arrays_are_refused(tmp_path):
    array = zarr.create_array(tmp_path / "bad.zarr", data=np.array([[0.5]]))
    with pytest.raises(ValueError, match=r"bad.zarr holds 0.5, expected counts"):
        counts_of_array(array, tmp_path)
