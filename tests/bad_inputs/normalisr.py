"""Normalisr's own commands."""

import numpy as np
import zarr

from bad_inputs.making import cases, cut, edit, folder, remove, text
from normalisr_dask.storage.matrix_store import store_rows


def array(name: str, values: object):
    """Write a Zarr array."""
    return lambda: zarr.create_array(name, data=np.asarray(values))


def zeros(name: str):
    """Write a Zarr array of zeros as a command writes it."""
    return lambda: store_rows(name, [np.zeros((1, 3))])


# fmt: off
COUNTS = cases(
    ("names of other cells", "qc_reads counts.tsv genes.txt two_cells.txt g c", "two_cells.txt has 2 names, but there are 3 columns in counts.tsv"),
    ("names of other genes", "qc_reads counts.tsv cells.txt cells.txt g c", "cells.txt has 3 names, but there are 2 rows in counts.tsv"),
    ("nothing passes", "qc_reads counts.tsv genes.txt cells.txt g c", "expected some genes to pass quality control"),
    ("fractions for counts", "qc_reads fractions.tsv genes.txt cells.txt g c", "fractions.tsv, row 2, column 2: expected a count"),
    ("negative counts", "qc_reads counts.tsv genes.txt cells.txt g c", "counts.tsv, row 1, column 2: expected a count", edit("counts.tsv", "2", "-2")),
    ("NaN for counts", "qc_reads counts.tsv genes.txt cells.txt g c", "counts.tsv, row 1, column 2: expected a count", edit("counts.tsv", "2", "nan")),
    ("one output twice", "qc_reads counts.tsv genes.txt cells.txt g g", "g is named as an output twice"),
    ("missing argument", "qc_reads counts.tsv genes.txt cells.txt g", "Missing argument 'cells_out'; try 'normalisr-dask qc_reads"),
    ("empty path", "qc_reads counts.tsv genes.txt cells.txt '' c", "expected the path of a folder or file, found an empty one"),
    ("file that is not there", "qc_reads none.tsv genes.txt cells.txt g c", "none.tsv does not exist"),
    ("text for Matrix Market", "qc_reads -s counts.tsv genes.txt cells.txt g c", "counts.tsv, line 1: expected a header like"),
    ("unknown option", "qc_reads counts.tsv genes.txt cells.txt g c --cells 3", "No such option: --cells"),
    ("word for a bound", "qc_reads counts.tsv genes.txt cells.txt g c --gene_read_count x", "Invalid value for '--gene_read_count'"),
    ("negative bound", "qc_reads counts.tsv genes.txt cells.txt g c --cell_read_count -1", "Invalid value for '--cell_read_count'"),
    ("folder for counts", "qc_reads box genes.txt cells.txt g c", "box is a folder, expected a file", folder("box")),
    ("text cut off", "qc_reads c.tsv.gz genes.txt cells.txt g c", "c.tsv.gz is truncated", text("c.tsv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\3ab")),
    ("names that are no text", "qc_reads counts.tsv bytes.txt cells.txt g c", "bytes.txt, line 2: expected names in UTF-8", text("bytes.txt", b"a\n\xff\n")),
    ("blank names", "qc_reads counts.tsv blank.txt cells.txt g c", "blank.txt names nothing", text("blank.txt", "\n\n")),
    ("truncated store of counts", "qc_reads counts.zarr counts.zarr counts.zarr g c", "counts.zarr", cut("counts.zarr/X/data/c/0")),
    ("output in no folder", "qc_reads counts.tsv genes.txt cells.txt no/g c", "no to write g into"),
    ("output that is a folder", "qc_reads counts.tsv genes.txt cells.txt box c", "box is a folder and no Zarr store", folder("box")),
    ("nothing to choose by", "subset expression.tsv out.tsv", "nothing says which rows (-r) or columns (-c) to keep"),
    ("no dummies of both", "subset expression.tsv out.tsv -r genes.txt genes.txt -c cells.txt cells.txt --nodummy", "--nodummy is for"),
    ("names that are unknown", "subset expression.tsv out.tsv -c cells.txt other_cells.txt", "names that are not in cells.txt: 'c9'"),
    ("names that occur twice", "subset expression.tsv out.tsv -c twice.txt two_cells.txt", "twice.txt has 1 names twice, the first 'c2'"),
    ("nothing left", "subset constant.tsv out.tsv -c cells.txt two_cells.txt --nodummy", "would be empty"),
    ("names in the matrix", "subset named.tsv out.tsv -c cells.txt cells.txt", "named.tsv, line 1: expected a number, found 'a'", text("named.tsv", "a\tb\tc\n1\t2\t3\n")),
    ("commas between numbers", "subset commas.tsv out.tsv -c cells.txt cells.txt", "commas.tsv, line 1: expected a number, found '1,2,3'", text("commas.tsv", "1,2,3\n")),
    ("ragged matrix", "subset ragged.tsv out.tsv -c cells.txt cells.txt", "ragged.tsv, line 2: expected 3 numbers, as in the first row, found fewer", text("ragged.tsv", "1\t2\t3\n4\t5\n")),
    ("line end within a line", "subset r.tsv out.tsv -c cells.txt cells.txt", "r.tsv, line 1: expected 3 numbers, as in the first row, found more", text("r.tsv", "1\t2\t3\r4\n")),
    ("underscores in a number", "subset u.tsv out.tsv -c cells.txt cells.txt", "u.tsv, line 1: expected a number, found '1_0'", text("u.tsv", "1_0\t2\t3\n")),
    ("store that is not there", "subset none.zarr out.tsv -c cells.txt cells.txt", "there is no Zarr store at none.zarr"),
    ("store that is empty", "subset box.zarr out.tsv -c cells.txt cells.txt", "box.zarr", folder("box.zarr")),
    ("array of three dimensions", "subset cube.zarr out.tsv -c cells.txt cells.txt", "cube.zarr has 3 dimensions, expected 2", array("cube.zarr", np.ones((2, 3, 4)))),
    ("array of complex numbers", "subset complex.zarr out.tsv -c cells.txt cells.txt", "complex.zarr holds values of type complex128, expected real numbers", array("complex.zarr", [[1j, 2, 3]])),
    ("array cut off", "subset cut.zarr out.tsv -c cells.txt cells.txt", "cut.zarr is damaged", array("cut.zarr", [[1.0, 2, 3]]), cut("cut.zarr/c/0/0")),
    ("array without a shard", "subset zeros.zarr out.tsv -c cells.txt cells.txt", "zeros.zarr is damaged or incompletely copied: c/0/0 is missing", zeros("zeros.zarr"), remove("zeros.zarr/c/0/0")),
    ("array of other metadata", "subset cut.zarr out.tsv -c cells.txt cells.txt", "cut.zarr is damaged", array("cut.zarr", [[1.0, 2, 3]]), cut("cut.zarr/zarr.json")),
    ("covariates of other cells", "lcpm counts.tsv l s c -c two_cells.tsv", "two_cells.tsv has 2 columns (cells), but counts.tsv has 3"),
    ("covariates in no folder", "lcpm counts.tsv l s none/c", "none to write c into"),
    ("scales in a folder", "lcpm counts.tsv l box c", "box is a folder and no Zarr store", folder("box")),
    ("memory that is too small", "lcpm counts.tsv l s c --memory-limit 400MB", "--memory-limit is 400,000,000 bytes a worker, too few to work with"),
    ("negative threads", "lcpm counts.tsv l s c -n -1", "Invalid value for '-n'"),
    ("cell without counts", "lcpm empty.tsv l s c", "cell", text("empty.tsv", "0\t1\n0\t2\n")),
    ("Matrix Market cut off", "lcpm plain/matrix.mtx l s c", "plain/matrix.mtx, line 8: expected 'row column value'", cut("plain/matrix.mtx")),
)

STEPS = cases(
    ("constant covariate", "normcov constant.tsv out.tsv", "constant"),
    ("covariate with NaN", "normcov nan.tsv out.tsv", "nan.tsv, row 1, column 2: expected a finite number, found nan", text("nan.tsv", "1\tnan\t3\n")),
    ("covariates of other cells", "fitvar expression.tsv two_cells.tsv out.tsv", "two_cells.tsv has 2 columns (cells), but expression.tsv has 3"),
    ("weights of other cells", "qc_outlier two_cells.tsv cells.txt out.txt", "cells.txt has 3 names, but there are 2 weights"),
    ("pcut of 2", "qc_outlier constant.tsv cells.txt out.txt --pcut 2", "pcut"),
    ("negative weights", "qc_outlier weights.tsv cells.txt out.txt", "weight", edit("weights.tsv", "2", "-2")),
    ("weights of words", "qc_outlier weights.tsv cells.txt out.txt", "weights.tsv, line 2: expected a number, found 'x'", edit("weights.tsv", "2", "x")),
    ("weights of too few cells", "normvar expression.tsv two_cells.tsv constant.tsv P.tsv e c", "two_cells.tsv has 2 numbers, expected one for"),
    ("scales of too few genes", "normvar expression.tsv weights.tsv constant.tsv constant.tsv e c", "constant.tsv has 3 numbers, expected one for each of 2"),
    ("design of other cells", "de two_cells.tsv expression.tsv constant.tsv p l", "two_cells.tsv has 2 columns (cells), but expression.tsv has 3"),
    ("unknown method", "de -m both constant.tsv expression.tsv constant.tsv p l", "'both' is not one of 'ignore', 'single', 'covariate'"),
    ("mistyped method", "de -m sing constant.tsv expression.tsv constant.tsv p l", "'sing' is not one of 'ignore', 'single', 'covariate'"),
    ("design of fractions, alone", "de -m single weights_row.tsv expression.tsv constant.tsv p l", "0 and 1", text("weights_row.tsv", "0.5\t1\t0\n")),
    ("expression with NaN", "de constant.tsv expression.tsv constant.tsv p l", "expression.tsv, row 2, column 2: expected a finite number, found nan", edit("expression.tsv", "7", "nan")),
    ("covariates of fewer cells", "coex expression.tsv two_cells.tsv p", "two_cells.tsv has 2 columns (cells), but expression.tsv has 3"),
    ("more covariates than cells", "coex expression.tsv expression.tsv p", "expected more cells than covariates of rank 2"),
    ("store of P-values in the way", "coex expression.tsv constant.tsv box", "box is a folder and no Zarr store", folder("box")),
    ("network that is not square", "binnet expression.tsv net.tsv 0.1", "expression.tsv has 2 rows and 3 columns, expected as many"),
    ("network without edges", "binnet P.tsv net.tsv 0.1", "expected some gene pairs with Q <= 0.1, found none"),
    ("qcut above 1", "binnet P.tsv net.tsv 1.5", "expected qcut between 0 and 1, found 1.5"),
    ("qcut of words", "binnet P.tsv net.tsv small", "Invalid value for 'qcut'"),
    ("P-values above 1", "binnet P.tsv net.tsv 0.5", "P", edit("P.tsv", "0.9", "1.9")),
    ("names of other genes for terms", "gocovt expression.tsv constant.tsv P.tsv cells.txt terms.obo genes.gaf c", "cells.txt has 3 names, but there are 2 rows"),
    ("network of other genes", "gocovt expression.tsv constant.tsv expression.tsv genes.txt terms.obo genes.gaf c", "expected 2 rows and columns"),
    ("two ways to translate", "gocovt expression.tsv constant.tsv P.tsv genes.txt terms.obo genes.gaf c -c a b c --mapping f", "not by both"),
    ("OBO that is none", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt genes.gaf genes.gaf c -n 2 -m 1", "genes.gaf, line 2: expected a tag"),
    ("GAF that is none", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt terms.obo terms.obo c -n 2 -m 1", "terms.obo, line 1: expected 15 or more fields"),
    ("GAF of other genes", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt terms.obo genes.gaf c -n 2 -m 1", "none of the 4 genes, the first 'g1', is annotated in genes.gaf"),
    ("GAF that is not there", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt terms.obo none.gaf c -n 2 -m 1", "none.gaf does not exist"),
    ("mapping of one column", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt terms.obo genes.gaf c -n 2 -m 1 --mapping four_genes.txt", "four_genes.txt, line 1: expected a gene name and an annotation ID"),
    ("network of no edges", "gocovt four_genes.tsv constant.tsv net.tsv four_genes.txt terms.obo genes.gaf c -n 2 -m 1", "expected more than 2 genes with edges, found 0", edit("net.tsv", "1", "0")),
)
# fmt: on
