"""Groupings and covariates from files and columns, brought into the order of the store's cells."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from normalisr_dask.storage import table_files
from normalisr_dask.storage.cell_columns import groupings_from_column
from normalisr_dask.storage.tables import (
    NamedRows,
    align_to_cells,
    read_covariates,
    read_groupings,
)

CELLS = [f"cell_{number}" for number in range(7)]
VALUES = np.array([[1, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 1, 0], [0, 0, 2.5, 0, 0, 0, -1]])
MEASURED_PROGRAM = """
import json, sys
from normalisr_dask.process_memory import peak_bytes
from normalisr_dask.storage.tables import read_groupings
before = peak_bytes()
values = read_groupings(sys.argv[1]).values
print(json.dumps([values.shape, values.nnz, peak_bytes() - before]))
"""
FRAME = pd.DataFrame(VALUES.T, index=pd.Index(CELLS, name="cell"), columns=["guide_1", "guide_2", "score"])


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def write_matrix_market(path: Path, rows: str, shape: str) -> Path:
    n_entries = rows.count("\n")
    return write_text(path, f"%%MatrixMarket matrix coordinate real general\n{shape} {n_entries}\n{rows}")


def named_rows(values: np.ndarray, cells: list[str] = CELLS) -> NamedRows:
    names = tuple(f"row_{number}" for number in range(len(values)))
    return NamedRows(names, np.array(cells, dtype=object), sparse.csr_array(values))


class TestReadGroupings:
    @pytest.mark.parametrize("suffix", [".tsv", ".tsv.gz", ".txt", ".csv", ".csv.gz", ".parquet"])
    def test_every_kind_of_table_gives_the_same(self, tmp_path, suffix, monkeypatch):
        monkeypatch.setattr(table_files, "_VALUES_AT_A_TIME", 8)  # two cells at a time
        path = tmp_path / f"groupings{suffix}"
        if suffix == ".parquet":
            FRAME.reset_index().to_parquet(path)
        else:
            FRAME.to_csv(path, sep="," if ".csv" in suffix else "\t")
        groupings = read_groupings(path)
        assert groupings.names == ("guide_1", "guide_2", "score")
        assert list(groupings.cells) == CELLS
        assert isinstance(groupings.values, sparse.csr_array)
        assert groupings.values.dtype == np.float64
        assert groupings.values.nnz == np.count_nonzero(VALUES)
        assert_array_equal(groupings.values.toarray(), VALUES)

    def test_parquet_with_the_index_of_pandas(self, tmp_path):
        FRAME.to_parquet(tmp_path / "indexed.parquet")  # pandas writes the index last
        assert list(read_groupings(tmp_path / "indexed.parquet").cells) == CELLS

    def test_truth_values_are_numbers(self, tmp_path):
        path = write_text(tmp_path / "bool.tsv", "cell\ta\tb\nx\tTrue\t1\ny\tFalse\t0\n")
        assert_array_equal(read_groupings(path).values.toarray(), [[1, 0], [1, 0]])
        pd.DataFrame({"cell": ["x", "y"], "a": [True, False]}).to_parquet(tmp_path / "bool.parquet")
        assert_array_equal(read_groupings(tmp_path / "bool.parquet").values.toarray(), [[1, 0]])

    def test_cell_names_that_look_like_numbers_stay_text(self, tmp_path):
        path = write_text(tmp_path / "numbers.tsv", "\t1\n007\t1\n1e3\t0\n")
        groupings = read_groupings(path)
        assert list(groupings.cells) == ["007", "1e3"]
        assert groupings.names == ("1",)

    def test_matrix_market_with_names_beside(self, tmp_path):
        path = write_matrix_market(tmp_path / "groupings.mtx", "1 1 1\n1 4 1\n2 2 1\n2 6 1\n3 3 2.5\n3 7 -1\n", "3 7")
        names = write_text(tmp_path / "names.txt", "guide_1\nguide_2\nscore\n")
        cells = write_text(tmp_path / "cells.tsv", "".join(f"{cell}\n" for cell in CELLS))
        for order in (CELLS, np.array(CELLS, dtype=object), cells):
            groupings = read_groupings(path, names=names, cells=order)
            assert groupings.names == ("guide_1", "guide_2", "score")
            assert list(groupings.cells) == CELLS
            assert_array_equal(groupings.values.toarray(), VALUES)
        compressed = tmp_path / "groupings.mtx.gz"
        compressed.write_bytes(gzip.compress(path.read_bytes()))
        assert_array_equal(read_groupings(compressed, names=names, cells=CELLS).values.toarray(), VALUES)

    def test_a_real_screen(self, real_data):
        screen = real_data / "papalexi_lowmoi"
        cells = read_covariates(screen / "cells.tsv.gz").index
        guides = read_groupings(screen / "grnas.mtx.gz", names=screen / "grna_names.txt", cells=list(cells))
        assert guides.values.shape == (110, 20_729)
        assert guides.values.nnz == 162_681

    @pytest.mark.slow
    def test_thousands_of_guides_in_many_cells_stay_sparse(self, tmp_path):
        n_guides, n_cells = 10_000, 200_000
        guides = np.random.default_rng(0).permutation(np.arange(n_cells) % (n_guides - 1)) + 1
        rows = "".join(f"{guide} {cell} 1\n" for cell, guide in enumerate(guides, start=1))
        path = write_matrix_market(tmp_path / "guides.mtx", rows, f"{n_guides} {n_cells}")
        names = write_text(tmp_path / "names.txt", "".join(f"guide_{number}\n" for number in range(n_guides)))
        cells = np.array([f"cell_{number}" for number in range(n_cells)], dtype=object)
        # dense, each of these would be 16 GB
        groupings = read_groupings(path, names=names, cells=cells)
        with pytest.warns(
            UserWarning, match="1 have the same value in all cells, so nothing can be found: 'guide_9999'"
        ):
            aligned = align_to_cells(groupings, cells[::-1], "groupings")
        by_column = groupings_from_column(pd.Series(guides, index=cells, name="guide"))
        assert aligned.values.nnz == by_column.values.nnz == n_cells
        assert_array_equal(aligned.values[:, [0]].toarray(), groupings.values[:, [n_cells - 1]].toarray())

    @pytest.mark.slow
    def test_a_wide_text_table_stays_sparse(self, tmp_path):
        n_cells, n_guides = 20_000, 2_000
        path = tmp_path / "wide.tsv"
        with path.open("w") as file:
            file.write("\t".join(["cell", *(f"guide_{guide}" for guide in range(n_guides))]) + "\n")
            zeros = ["0"] * n_guides
            for cell in range(n_cells):
                row = zeros.copy()
                row[cell % n_guides] = "1"
                file.write(f"cell_{cell}\t" + "\t".join(row) + "\n")
        program = subprocess.run(
            [sys.executable, "-c", MEASURED_PROGRAM, path], capture_output=True, text=True, check=True
        )
        shape, n_values, growth = json.loads(program.stdout)
        assert shape == [n_guides, n_cells]
        assert n_values == n_cells
        assert growth < 150_000_000  # dense, it would be 320 MB, and twice that while it is turned

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("a.xlsx", "x", r"a\.xlsx: a table must be a \.tsv, \.txt or \.csv file"),
            ("a.tsv", "", r"a\.tsv is empty"),
            (
                "a.tsv",
                "cell\n",
                "expected a header with a column of cell names and at least one more, found only 'cell'",
            ),
            ("a.tsv", "cell,a\nx,1\n", "and at least one more, found only 'cell,a'"),
            ("a.tsv", "cell\ta\n", "has a header but no cells"),
            ("a.tsv", "cell\ta\ta\nx\t1\t1\n", "column 'a' occurs twice"),
            (
                "a.tsv",
                "a\tb\nx\t1\t1\n",
                "the header has 2 fields, line 2 has 3; the column of cell names needs a title",
            ),
            ("a.tsv", "cell\ta\nx\t1\ny\t1\t2\n", "data row 2 has more fields than the header, which has 2"),
            ("a.tsv", "cell\ta\n\nx\t1\t2\t3\ny\t1\n", "data row 1 has more fields than the header, which has 2"),
            ("a.tsv", "cell\ta\nx\t1\ny\t0\nx\t0\n", "cell 'x' occurs more than once; there are 1 repeats"),
            ("a.tsv", "cell\ta\tb\nx\t1\t1\ny\t\t0\n", "grouping 'a' has no value for cell 'y', expected a number"),
            ("a.tsv", "cell\ta\tb\nx\t1\tNA\n", "grouping 'b' has no value for cell 'x', expected a number"),
            ("a.tsv", "cell\ta\nx\t1\ny\tinf\n", "grouping 'a' has inf for cell 'y', expected a number"),
            ("a.tsv", "cell\ta\nx\t1\ny\tyes\n", "grouping 'a' has 'yes' for cell 'y', expected a number"),
            ("a.tsv", "cell\ta\nx\t1\n\t0\n", "data row 2 has no cell name"),
            ("a.parquet", "no parquet", r"a\.parquet cannot be read: "),
        ],
    )
    def test_bad_tables_are_one_line(self, tmp_path, name, text, message):
        path = write_text(tmp_path / name, text)
        with pytest.raises(ValueError, match=message) as caught:
            read_groupings(path)
        assert "\n" not in str(caught.value)

    def test_a_file_that_is_cut_short_is_named(self, tmp_path):
        path = tmp_path / "cut.tsv.gz"
        path.write_bytes(gzip.compress(("cell\ta\n" + "".join(f"c{i}\t{i}\n" for i in range(9999))).encode())[:5000])
        with pytest.raises(ValueError, match=r"cut\.tsv\.gz is truncated: its gzip stream ends too early"):
            read_groupings(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.tsv does not exist"):
            read_groupings(tmp_path / "nowhere.tsv")

    def test_names_and_matrix_must_fit(self, tmp_path):
        path = write_matrix_market(tmp_path / "groupings.mtx", "1 1 1\n", "2 3")
        two, three = (write_text(tmp_path / f"{n}.txt", "".join(f"n{i}\n" for i in range(n))) for n in (2, 3))
        with pytest.raises(ValueError, match="holds no names; give a file with one grouping's name on each line"):
            read_groupings(path, cells=CELLS[:3])
        with pytest.raises(ValueError, match="holds no cell names"):
            read_groupings(path, names=two)
        with pytest.raises(ValueError, match=r"is 2 × 3, but .*2\.txt names 2 groupings and there are 7 cells$"):
            read_groupings(path, names=two, cells=CELLS)
        with pytest.raises(
            ValueError, match="there are 2 cells; it must be groupings × cells and seems to be transposed"
        ):
            read_groupings(path, names=three, cells=CELLS[:2])
        with pytest.raises(ValueError, match="a file of grouping names goes with a Matrix Market file"):
            read_groupings(write_text(tmp_path / "a.tsv", "cell\ta\nx\t1\n"), names=two)

    def test_lines_of_a_matrix_may_end_as_in_windows_but_not_with_a_return_alone(self, tmp_path):
        names = write_text(tmp_path / "names.txt", "a\nb\n")
        text = "%%MatrixMarket matrix coordinate real general\r\n2 7 3\r\n1 1 1\r\n2 5 2\r\n2 6 3\r\n"
        path = tmp_path / "guides.mtx"
        path.write_bytes(text.encode())
        values = read_groupings(path, names=names, cells=CELLS).values.toarray()
        assert (values[0, 0], values[1, 4], values[1, 5], values.sum()) == (1, 2, 3, 6)
        path.write_bytes(text.replace("2 5 2\r\n", "2 5 2\r").encode())
        with pytest.raises(ValueError, match=r"guides\.mtx holds a carriage return that ends no line; write"):
            read_groupings(path, names=names, cells=CELLS)

    def test_bad_matrices_are_one_line(self, tmp_path):
        names = write_text(tmp_path / "names.txt", "a\nb\n")
        path = write_text(tmp_path / "bad.mtx", "hello\n")
        with pytest.raises(ValueError, match=r"bad\.mtx, line 1: expected a header like"):
            read_groupings(path, names=names, cells=CELLS)
        path = write_matrix_market(tmp_path / "nan.mtx", "1 1 1\n2 5 nan\n", "2 7")
        with pytest.raises(ValueError, match="grouping 'b' has nan for cell 'cell_4', expected a number"):
            read_groupings(path, names=names, cells=CELLS)
        path = write_matrix_market(tmp_path / "twice.mtx", "1 1 1\n", "2 7")
        with pytest.raises(ValueError, match="grouping 'a' occurs more than once"):
            read_groupings(path, names=write_text(tmp_path / "twice.txt", "a\na\n"), cells=CELLS)


class TestReadCovariates:
    def test_columns_get_their_types(self, tmp_path):
        path = write_text(
            tmp_path / "covariates.tsv",
            "cell\tbatch\tdepth\tcluster\tfresh\tpartly\nx\tNA\t1.5\t0\tTrue\t3\ny\tB\t2\t11\tFalse\tNA\n",
        )
        frame = read_covariates(path)
        assert list(frame.index) == ["x", "y"]
        assert frame["batch"].tolist() == ["NA", "B"]  # a label as any other
        assert frame["depth"].tolist() == [1.5, 2]
        assert frame["cluster"].dtype.kind == "i"
        assert frame["fresh"].dtype == bool
        assert frame["partly"].dtype.kind == "f"
        assert frame["partly"].isna().tolist() == [False, True]

    def test_parquet_keeps_its_types(self, tmp_path):
        frame = pd.DataFrame({"batch": pd.Categorical(["1", "2", "1"]), "n": [1, 2, 3]}, index=["x", "y", "z"])
        frame.to_parquet(tmp_path / "covariates.parquet")
        read = read_covariates(tmp_path / "covariates.parquet")
        assert isinstance(read["batch"].dtype, pd.CategoricalDtype)
        assert list(read.index) == ["x", "y", "z"]
        assert list(read.columns) == ["batch", "n"]

    def test_real_cell_types_keep_the_label_na(self, real_data):
        frame = read_covariates(real_data / "pbmc3k_cell_types.tsv")
        assert len(frame) == 2700
        assert "NA" in set(frame["cell_type"])

    def test_numbers_are_rounded_correctly(self, tmp_path):
        path = write_text(tmp_path / "covariates.tsv", "cell\ta\nx\t0.6369616873214543\ny\t0.00139831509038486\n")
        assert read_covariates(path)["a"].tolist() == [0.6369616873214543, 0.00139831509038486]
        assert read_groupings(path).values.toarray().tolist() == [[0.6369616873214543, 0.00139831509038486]]

    def test_a_cell_that_occurs_twice_is_named(self, tmp_path):
        path = write_text(tmp_path / "twice.csv", "cell,a\nx,1\ny,2\ny,3\n")
        with pytest.raises(ValueError, match=r"twice\.csv: cell 'y' occurs more than once"):
            read_covariates(path)


class TestAlignToCells:
    def test_rows_and_frames_follow_the_order_of_the_store(self):
        order = np.array(CELLS[::-1], dtype=object)
        aligned = align_to_cells(named_rows(VALUES), order, "groupings")
        assert list(aligned.cells) == CELLS[::-1]
        assert aligned.names == ("row_0", "row_1", "row_2")
        assert_array_equal(aligned.values.toarray(), VALUES[:, ::-1])
        assert align_to_cells(FRAME, order, "covariates").equals(FRAME.iloc[::-1])

    def test_cells_that_the_store_lacks_are_counted_and_ignored(self):
        order = np.array(CELLS[:6], dtype=object)
        with pytest.warns(UserWarning, match="groupings: 1 of 7 cells are not in the store and are ignored"):
            aligned = align_to_cells(named_rows(VALUES), order, "groupings")
        assert_array_equal(aligned.values.toarray(), VALUES[:, :6])
        with pytest.warns(UserWarning, match="covariates: 1 of 7 cells"):
            assert list(align_to_cells(FRAME, order, "covariates").index) == CELLS[:6]

    @pytest.mark.parametrize("table", [named_rows(VALUES[:, :5], CELLS[:5]), FRAME.iloc[:5]])
    def test_cells_that_the_table_lacks_are_counted_and_named(self, table):
        message = (
            "groupings: 2 of the store's 7 cells are missing, the first is 'cell_5'; the table's first is 'cell_0'"
        )
        with pytest.raises(ValueError, match=message):
            align_to_cells(table, np.array(CELLS, dtype=object), "groupings")

    def test_a_suffix_that_differs_is_told(self):
        with_suffix = np.array([f"{cell}-1" for cell in CELLS], dtype=object)
        message = "only the store's names end in a suffix such as '-1', without it 7 match"
        with pytest.raises(ValueError, match=message):
            align_to_cells(FRAME, with_suffix, "covariates")
        message = "only the table's names end in a suffix such as '-1', without it 7 match"
        with pytest.raises(ValueError, match=message):
            align_to_cells(named_rows(VALUES, list(with_suffix)), np.array(CELLS, dtype=object), "groupings")

    def test_constant_groupings_are_warned_of(self):
        values = np.array([[0] * 7, [1] * 7, [1, *[0] * 6], [2.5] * 7])
        message = "groupings: 3 have the same value in all cells, so nothing can be found: 'row_0', 'row_1', 'row_3'"
        with pytest.warns(UserWarning, match=message):
            align_to_cells(named_rows(values), np.array(CELLS, dtype=object), "groupings")


def test_rows_and_names_must_fit():
    with pytest.raises(ValueError, match=r"1 names and 7 cells do not fit values of shape \(3, 7\)"):
        NamedRows(("a",), np.array(CELLS, dtype=object), sparse.csr_array(VALUES))
