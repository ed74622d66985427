"""Names of genes and cells."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from normalisr_dask.storage import names

A, B = Path("a"), Path("b")


def table(*index, **columns):
    return pd.DataFrame(columns, index=pd.Index(list(index), dtype=object))


def test_gene_tables_of_cell_ranger_are_read(tmp_path):
    path = tmp_path / "features.tsv"
    path.write_text("E1\tTP53\tGene Expression\textra\nE2\tCD4\tAntibody Capture\textra\n\n")
    expected = table("TP53", "CD4", gene_ids=["E1", "E2"], feature_types=["Gene Expression", "Antibody Capture"])
    pd.testing.assert_frame_equal(names.read_gene_table(path), expected)
    path.write_text("E1\tTP53\r\nE2\tCD4\r\n")
    pd.testing.assert_frame_equal(names.read_gene_table(path), expected[["gene_ids"]])
    path.write_text("TP53\nCD4")
    pd.testing.assert_frame_equal(names.read_gene_table(path), expected[[]], check_column_type=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n\n", "names nothing: it has only blank lines"),
        ("a\n\nb\n", "line 2: expected a name, found a blank line"),
        (b"a\nb\n\xff\n", "line 3: expected UTF-8 text, found byte 255"),
        ("E1\ta\nE2\n", "line 2: expected 2 fields separated by tabs, found 1"),
    ],
)
def test_bad_gene_tables_are_refused(tmp_path, text, message):
    path = tmp_path / "genes.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message):
        names.read_gene_table(path)


def test_duplicate_genes_are_made_unique_as_anndata_does():
    message = "a: 3 duplicate gene names, the first 'x', were made unique"
    with pytest.warns(UserWarning, match=message):
        unique = names.make_genes_unique(table("x", "y", "x", "x", "y"), A)
    assert list(unique.index) == ["x", "y", "x-1", "x-2", "y-1"]


def test_duplicate_cells_are_refused_with_a_way_out():
    message = r"a has 1 duplicate cell names, the first 'x' \(cells 1 and 3\); give a file of unique names \(--cells\)"
    with pytest.raises(ValueError, match=message):
        names.join_cells([table("x", "y", "x")], [A])
    message = "2 cell names are in more than one input, the first 'y' in a and b; give each input a file of names"
    with pytest.raises(ValueError, match=message):
        names.join_cells([table("x", "y", "z"), table("y", "z")], [A, B])


def test_cells_are_joined_with_their_columns():
    joined = names.join_cells([table("x", n=[1]), table("y", m=["q"])], [A, B])
    assert list(joined.index) == ["x", "y"]
    assert list(joined.columns) == ["n", "m"]


def test_genes_are_joined():
    first, second = table("x", "y", "z", n=[1, 2, 3]), table("w", "z", "y", n=[4, 5, 6])
    assert list(names.join_genes([first, second], [A, B], "inner").index) == ["y", "z"]
    outer = names.join_genes([first, second], [A, B], "outer")
    assert (list(outer.index), outer["n"].tolist()) == (["x", "y", "z", "w"], [1, 2, 3, 4])
    reordered = second.iloc[[1, 0, 2]]
    assert list(names.join_genes([second, reordered], [A, B], None).index) == ["w", "z", "y"]
    message = (
        "differ in their genes: 1 genes only in a, the first 'x'; 1 genes only in b, the first 'w'; use --join outer"
    )
    with pytest.raises(ValueError, match=message):
        names.join_genes([first, second], [A, B], None)
    with pytest.raises(ValueError, match="2 inputs have no gene in common"):
        names.join_genes([table("x"), table("y")], [A, B], "inner")


@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".csv.gz", ".parquet"])
def test_a_table_of_cells_is_joined(tmp_path, suffix):
    path = tmp_path / f"cells{suffix}"
    content = pd.DataFrame({"cell": ["3", "1", "2"], "batch": ["c", "a", "b"], "depth": [30, 10, 20]})
    if suffix == ".parquet":
        content.to_parquet(path)
    else:
        content.to_csv(path, sep="," if "csv" in suffix else "\t", index=False)
    with pytest.warns(UserWarning, match="has 1 rows of cells that are not in the matrix, the first '3'"):
        joined = names.add_cell_table(table("1", "2", n=[7, 8]), path)
    pd.testing.assert_frame_equal(joined, table("1", "2", n=[7, 8], batch=["a", "b"], depth=[10, 20]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cell\tm\nx\t1\n",
            "lacks 2 of 3 cells, the first 'y'; its first column names cells; add a line for each of them",
        ),
        ("cell\tm\na\t1\n", "lacks 3 of 3 cells, the first 'x'; its first column names cells$"),
        ("cell\tm\nx\t1\ny\t1\nz\t1\ny\t2\n", "has 1 cells twice, the first 'y'"),
        ("cell\tn\nx\t1\ny\t1\nz\t1\n", "has a column 'n', which the cells already have"),
    ],
)
def test_tables_that_do_not_fit_the_cells_are_refused(tmp_path, text, message):
    path = tmp_path / "cells.tsv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        names.add_cell_table(table("x", "y", "z", n=[1, 2, 3]), path)


def test_labels_with_gaps_become_categorical():
    storable = names.storable(table("x", "y", word=["a", "b"], gap=["a", np.nan], mixed=["a", 1], number=[1.0, np.nan]))
    assert [str(dtype) for dtype in storable.dtypes] == ["object", "category", "category", "float64"]
    assert storable["gap"].tolist()[0] == "a"
    assert storable["gap"].isna().tolist() == [False, True]
    assert storable["mixed"].tolist() == ["a", "1"]
