"""Matrices of numbers as text, beside NumPy's loadtxt and savetxt."""

import gzip
import threading

import numpy as np
import pytest

from normalisr_dask.storage import number_text
from normalisr_dask.storage.number_text import read_rows, write_rows


@pytest.fixture
def matrix():
    values = np.random.default_rng(0).normal(size=(57, 23)) * 10.0 ** np.random.default_rng(1).integers(-30, 9, 23)
    values[3, 4], values[5, 6], values[7, 8] = np.nan, 0, -np.inf
    return values


@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
@pytest.mark.parametrize("values_a_piece", [1, 100, 1 << 18])
def test_what_is_written_is_what_numpy_writes(tmp_path, matrix, suffix, values_a_piece, monkeypatch):
    monkeypatch.setattr(number_text, "BLOCK_VALUES", values_a_piece)
    ours, numpys = tmp_path / f"ours{suffix}", tmp_path / f"numpys{suffix}"
    write_rows(ours, [matrix[:20], matrix[20:]], gzipped=suffix.endswith("gz"))
    np.savetxt(numpys, matrix, delimiter="\t", fmt="%.8G")
    opened = gzip.open if suffix.endswith("gz") else open
    with opened(ours) as mine, opened(numpys) as theirs:
        assert mine.read() == theirs.read()


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_whole_numbers_and_vectors(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2, (4, 3)).astype(dtype)
    write_rows(tmp_path / "matrix.tsv", [values], gzipped=False)
    write_rows(tmp_path / "vector.tsv", [values[0]], gzipped=False)
    assert (tmp_path / "matrix.tsv").read_text() == "".join(
        "\t".join(str(int(value)) for value in row) + "\n" for row in values
    )
    assert (tmp_path / "vector.tsv").read_text() == "".join(f"{int(value)}\n" for value in values[0])


@pytest.mark.parametrize("block_bytes", [16, 1000, 1 << 22])
@pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz"])
def test_what_numpy_writes_is_read(tmp_path, matrix, suffix, block_bytes):
    path = tmp_path / f"matrix{suffix}"
    np.savetxt(path, matrix, delimiter="\t", fmt="%.17g", header="a comment")
    np.testing.assert_array_equal(np.concatenate(list(read_rows(path, block_bytes=block_bytes))), matrix)


def test_gzip_is_seen_from_the_content(tmp_path, matrix):
    (tmp_path / "matrix.tsv").write_bytes(gzip.compress(b"1\t2\n3\t4\n"))
    np.testing.assert_array_equal(np.concatenate(list(read_rows(tmp_path / "matrix.tsv"))), [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\t2\n\n3\n", "line 3: expected 2 numbers, as in the first row, found fewer"),
        ("1\t2\n3\t4\t5\n", "line 2: expected 2 numbers, as in the first row, found more"),
        ("c1\tc2\n3\t4\n", "line 1: expected a number, found 'c1'; matrices have no names of rows and columns"),
        ("1\t2\n3\t\n", "line 2: expected a number, found ''"),
        ("# only\n\n", "holds no numbers, only blank lines"),
        ("", "is empty"),
    ],
)
@pytest.mark.parametrize("block_bytes", [8, 1 << 20])
def test_bad_lines_are_refused_with_their_number(tmp_path, text, message, block_bytes):
    path = tmp_path / "bad.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        list(read_rows(path, block_bytes=block_bytes))


def test_a_truncated_file_is_refused(tmp_path, matrix):
    np.savetxt(tmp_path / "whole.tsv.gz", matrix)
    (tmp_path / "cut.tsv.gz").write_bytes((tmp_path / "whole.tsv.gz").read_bytes()[:-200])
    with pytest.raises(ValueError, match="is truncated"):
        list(read_rows(tmp_path / "cut.tsv.gz"))


def test_no_thread_is_left_where_reading_stops_early(tmp_path, matrix):
    np.savetxt(tmp_path / "matrix.tsv", matrix, delimiter="\t")
    before = threading.active_count()
    rows = read_rows(tmp_path / "matrix.tsv", block_bytes=100)
    next(rows)
    rows.close()
    assert threading.active_count() == before
