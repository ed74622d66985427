"""Matrix Market files: the same matrix as scipy reads, or one line that says what is wrong."""

import gzip
import re

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from normalisr_dask.storage.entry_order import OutOfOrderError, RowBuilder, rows_after_sorting, rows_as_they_come
from normalisr_dask.storage.matrix_market import MatrixMarketSource

HEADER = "%%MatrixMarket matrix coordinate integer general\n"
GOOD = HEADER + "%\n3 2 3\n2 1 5\n1 1 4\n3 2 1\n"


def write(folder, text, *, name="matrix.mtx", n_genes=3, n_cells=2):
    folder.mkdir(exist_ok=True)
    content = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    (folder / "genes.tsv").write_text("".join(f"g{n}\n" for n in range(n_genes)))
    (folder / "barcodes.tsv").write_text("".join(f"c{n}\n" for n in range(n_cells)))
    return folder / name


def read(source, folder, *, group_entries=8):
    """Read a source into a matrix, cells × genes: as the entries come, or sorted through files if they do not."""
    n_cells, n_genes = len(source.obs), len(source.var)
    gene_map = np.arange(n_genes, dtype=np.int32)
    try:
        rows = list(rows_as_they_come(source.entries(), RowBuilder(source.path, gene_map, n_genes), n_cells))
    except OutOfOrderError:
        builder = RowBuilder(source.path, gene_map, n_genes)
        sorting = rows_after_sorting(
            source.entries(),
            builder,
            n_cells,
            source.n_entries,
            folder / "sorting",
            lambda *_: None,
            group_entries=group_entries,
        )
        rows = list(sorting)
    lengths, indices, counts, n_duplicates = zip(*rows, strict=True)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    matrix = sparse.csr_array((np.concatenate(counts), np.concatenate(indices), offsets), shape=(n_cells, n_genes))
    return matrix, sum(n_duplicates)


blanks = st.sampled_from([" ", "  ", "\t", " \t "])
line_ends = st.sampled_from(["\n", "\r\n", " \n", "\t\r\n", "\n\n", "\n  \n"])


@st.composite
def matrix_market_files(draw):
    """A small matrix, written with every liberty that the format leaves."""
    n_rows, n_columns = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    places = st.tuples(st.integers(1, n_rows), st.integers(1, n_columns))
    entries = draw(st.lists(st.tuples(places, st.integers(0, 300)), max_size=25))
    if draw(st.booleans()):  # Cell Ranger's order
        entries.sort(key=lambda entry: (entry[0][1], -entry[0][0]))
    field = draw(st.sampled_from(["integer", "real", "pattern"]))
    values = {"integer": "{}", "real": draw(st.sampled_from(["{}", "{}.0", "{:.17e}"])), "pattern": ""}[field]
    lines = [f"%%MatrixMarket matrix coordinate {field} general"]
    lines += draw(st.lists(st.sampled_from(["%", "% a comment", "%%"]), max_size=2))
    text = "\n".join([*lines, f"{n_rows} {n_columns} {len(entries)}\n"])
    for (row, column), value in entries:
        fields = [str(row), str(column)] + ([values.format(value)] if values else [])
        text += draw(st.sampled_from(["", " "])) + draw(blanks).join(fields) + draw(line_ends)
    if entries and draw(st.booleans()):
        text = text.rstrip()  # the last line may lack its end
    return text, (n_rows, n_columns)


@settings(deadline=None)
@given(
    file=matrix_market_files(),
    block_bytes=st.integers(1, 60),
    transpose=st.booleans(),
    suffix=st.sampled_from(["", ".gz"]),
    group_entries=st.integers(1, 10),
)
def test_any_file_is_read_as_scipy_reads_it(tmp_path_factory, file, block_bytes, transpose, suffix, group_entries):
    text, (n_rows, n_columns) = file
    n_genes, n_cells = (n_columns, n_rows) if transpose else (n_rows, n_columns)
    folder = tmp_path_factory.mktemp("matrix")
    path = write(folder, text, name=f"matrix.mtx{suffix}", n_genes=n_genes, n_cells=n_cells)
    source = MatrixMarketSource(path, transpose=transpose, block_bytes=block_bytes)
    found, n_duplicates = read(source, folder, group_entries=group_entries)

    coordinates = scipy.io.mmread(path, spmatrix=False)
    expected = coordinates.toarray()
    np.testing.assert_array_equal(found.toarray(), expected if transpose else expected.T)
    assert (np.diff(found.indices)[np.diff(np.repeat(np.arange(n_cells), np.diff(found.indptr))) == 0] > 0).all()
    assert (found.data > 0).all()
    kept = coordinates.data > 0
    places = coordinates.row[kept] * n_columns + coordinates.col[kept]
    assert n_duplicates == len(places) - len(np.unique(places))


def test_names_beside_a_prefixed_matrix_are_found(tmp_path):
    path = write(tmp_path, GOOD, name="GSM1_matrix.mtx.gz")
    for name in ("genes.tsv", "barcodes.tsv"):
        (tmp_path / name).rename(tmp_path / f"GSM1_{name}")
    source = MatrixMarketSource(path)
    assert (list(source.var.index), list(source.obs.index)) == (["g0", "g1", "g2"], ["c0", "c1"])


def test_a_plain_name_may_hold_gzip_and_the_reverse(tmp_path):
    expected = [[4, 5, 0], [0, 0, 1]]
    packed = write(tmp_path / "a", gzip.compress(GOOD.encode()))
    assert read(MatrixMarketSource(packed), tmp_path)[0].toarray().tolist() == expected
    plain = write(tmp_path / "b", GOOD, name="matrix.mtx.gz")
    plain.write_text(GOOD)
    assert read(MatrixMarketSource(plain), tmp_path)[0].toarray().tolist() == expected


def test_several_gzip_members_are_read(tmp_path):
    path = write(tmp_path, "", name="matrix.mtx.gz")
    half = len(GOOD) // 2
    path.write_bytes(gzip.compress(GOOD[:half].encode()) + gzip.compress(GOOD[half:].encode()))
    assert read(MatrixMarketSource(path), tmp_path)[0].sum() == 10


BAD_HEADERS = [
    ("", "is empty"),
    ("1 2 3\n", r"line 1: expected a header like '%%MatrixMarket .*', found '1 2 3'"),
    (GOOD.replace("coordinate", "array"), "line 1: expected a coordinate matrix, found 'array'"),
    (GOOD.replace("integer", "complex"), "line 1: expected values of field integer, real or pattern, found 'complex'"),
    (GOOD.replace("general", "symmetric"), "line 1: expected a general matrix, found 'symmetric'"),
    (GOOD.replace("3 2 3", "3 2"), "line 3: expected 'rows columns entries', found '3 2'"),
    (GOOD.replace("3 2 3", "3 -2 3"), "line 3: expected 'rows columns entries', found '3 -2 3'"),
    (GOOD.replace("3 2 3", "3 2147483648 3"), "line 3: more than 2147483647 rows or columns are not supported"),
    (HEADER + "%\n", "is truncated: it ends before its size line"),
    (GOOD.replace("3 2 3", "4 2 3"), "genes.tsv names 3 genes, but .*matrix.mtx has 4"),
    (
        GOOD.replace("3 2 3", "2 2 3"),
        "genes.tsv names 3 genes, but .*matrix.mtx has 2; its first line is taken for a name",
    ),
    (GOOD.replace("3 2 3", "3 5 3"), "barcodes.tsv names 2 cells, but .*matrix.mtx has 5"),
    (GOOD.replace("3 2 3", "2 3 3"), "2 rows and 3 columns, but there are 3 genes and 2 cells; give --transpose"),
]


@pytest.mark.parametrize(("text", "message"), BAD_HEADERS)
def test_bad_headers_are_refused(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        MatrixMarketSource(path)


BAD_ENTRIES = [
    ("2 1 5", "4 1 5", r"line 4: the row index is not in 1 to 3: '4 1 5'"),
    ("2 1 5", "2 0 5", r"line 4: the column index is not in 1 to 2: '2 0 5'"),
    ("1 1 4", "1 1 -4", r"line 5: the value is negative, expected a count: '1 1 -4'"),
    ("3 2 1", "3 2 0.5", r"line 6: the value is no whole number, expected a count: '3 2 0.5'"),
    ("3 2 1", "3 2 4294967296", r"line 6: the value is larger than 4294967295, the largest count: '3 2 42949"),
    ("1 1 4", "1 1 four", r"line 5: expected 'row column value', found '1 1 four'"),
    ("1 1 4", "1 1", r"line 5: expected 'row column value', found '1 1'"),
    ("1 1 4", "\n\n1", r"line 7: expected 'row column value', found '1'"),
    ("3 2 1\n", "", r"is truncated: it ends after 2 entries \(line 5\), but its header promises 3"),
    ("3 2 1\n", "3 2", r"line 6: expected 'row column value', found '3 2'"),
    ("3 2 1\n", "3 2 1\n1 2 1\n", r"has more entries than the 3 that its header promises"),
]


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
@pytest.mark.parametrize(("old", "new", "message"), BAD_ENTRIES)
def test_bad_entries_are_refused_with_their_line(tmp_path, old, new, message, block_bytes):
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ValueError, match=re.escape(str(path)) + ",? " + message):
        read(MatrixMarketSource(path, block_bytes=block_bytes), tmp_path)


@pytest.mark.parametrize("kept", [5, 30, -9, -1])
def test_truncated_gzip_is_refused(tmp_path, kept):
    text = GOOD.replace("3 2 3", "3 2 3003") + "1 1 1\n" * 3000
    path = write(tmp_path, text, name="matrix.mtx.gz")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"matrix\.mtx\.gz is truncated: its gzip stream ends too early"):
        read(MatrixMarketSource(path), tmp_path)


def test_damaged_gzip_is_refused(tmp_path):
    path = write(tmp_path, GOOD, name="matrix.mtx.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # in the check sum
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"matrix\.mtx\.gz is damaged: its gzip stream cannot be read"):
        read(MatrixMarketSource(path), tmp_path)


def test_a_gzip_name_without_gzip_content_is_told(tmp_path):
    path = write(tmp_path, "", name="matrix.mtx.gz")
    path.write_text("<html>404</html>\n")
    with pytest.raises(ValueError, match=r"found '<html>404</html>' \(the name says gzip, the content does not\)"):
        MatrixMarketSource(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"matrix\.mtx does not exist"):
        MatrixMarketSource(tmp_path / "matrix.mtx")
    path = write(tmp_path, GOOD)
    (tmp_path / "genes.tsv").unlink()
    message = (
        r"no gene names beside .*: looked for features\.tsv\.gz, .*; give a file with a name on each line, --genes"
    )
    with pytest.raises(FileNotFoundError, match=message):
        MatrixMarketSource(path)


def test_a_binary_file_without_lines_does_not_fill_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("normalisr_dask.storage.text_file.LONGEST_LINE", 1000)
    path = write(tmp_path, GOOD + "1" * 5000)
    with pytest.raises(ValueError, match="has a line of more than 1000 bytes"):
        read(MatrixMarketSource(path, block_bytes=100), tmp_path)
