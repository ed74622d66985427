"""Write counts as Matrix Market files and Cell Ranger folders, block by block of cells."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from isal import igzip
from scipy.sparse import csc_array, sparray, spmatrix

# Entries formatted at a time: some 50 MB.
BLOCK_ENTRIES = 1_000_000


def write_matrix_market(path: str | Path, counts: sparray | spmatrix) -> None:
    """Write counts as a Matrix Market file in Cell Ranger's order: cell by cell, genes ascending within a cell.

    Parameters
    ----------
    path : str or Path
        A name that ends in ``.gz`` gives a gzip file.
    counts : sparse array or matrix of integers, shape (n_genes, n_cells)
        Any sparse format; CSC without duplicates is written as it is, others are converted first.

    Raises
    ------
    TypeError
        If the counts are not integers.

    Notes
    -----
    Memory beyond that of `counts` is some 50 MB.
    """
    by_cell = _sorted_by_cell(counts)
    with _open_for_writing(Path(path)) as file:
        n_genes, n_cells = by_cell.shape
        file.write(b"%%MatrixMarket matrix coordinate integer general\n")
        file.write(f"{n_genes} {n_cells} {by_cell.nnz}\n".encode())
        _write_entries(file, by_cell)


def write_cell_ranger_folder(
    folder: str | Path, counts: sparray | spmatrix, gene_names: Sequence[str], cell_names: Sequence[str]
) -> None:
    """Write counts as Cell Ranger 3 does: ``matrix.mtx.gz``, ``features.tsv.gz`` and ``barcodes.tsv.gz``.

    Parameters
    ----------
    folder : str or Path
        Made if it does not exist.
    counts : sparse array or matrix of integers, shape (n_genes, n_cells)
    gene_names : sequence of str, length n_genes
        Written both as identifier and as name.
    cell_names : sequence of str, length n_cells

    Raises
    ------
    TypeError
        If the counts are not integers.
    ValueError
        If the number of names is not that of genes or cells.
    """
    if counts.shape != (len(gene_names), len(cell_names)):
        msg = f"counts must be genes x cells = {len(gene_names)} x {len(cell_names)} as the names, found {counts.shape}"
        raise ValueError(msg)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_matrix_market(folder / "matrix.mtx.gz", counts)
    with _open_for_writing(folder / "features.tsv.gz") as file:
        file.writelines(f"{name}\t{name}\tGene Expression\n".encode() for name in gene_names)
    with _open_for_writing(folder / "barcodes.tsv.gz") as file:
        file.writelines(f"{name}\n".encode() for name in cell_names)


def _open_for_writing(path: Path) -> BinaryIO:
    """Open a file, compressing if its name says so."""
    return igzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb")


def _sorted_by_cell(counts: sparray | spmatrix) -> csc_array:
    """Turn counts into CSC with ascending genes, copying only where that changes something."""
    if not np.issubdtype(counts.dtype, np.integer):
        msg = f"counts must be integers, found {counts.dtype}; convert them with counts.astype(numpy.uint32)"
        raise TypeError(msg)
    by_cell = csc_array(counts)
    return by_cell if by_cell.has_sorted_indices else by_cell.sorted_indices()


def _write_entries(file: BinaryIO, by_cell: csc_array) -> None:
    """Write lines of gene, cell and count, numbered from 1."""
    options = pa_csv.WriteOptions(include_header=False, delimiter=" ", quoting_style="none")
    schema = pa.schema([("gene", pa.int64()), ("cell", pa.int64()), ("count", pa.from_numpy_dtype(by_cell.dtype))])
    # closing() ends the CSV stream and leaves the file to its owner
    with closing(pa_csv.CSVWriter(pa.PythonFile(file, "w"), schema, write_options=options)) as writer:
        for start in range(0, by_cell.nnz, BLOCK_ENTRIES):
            stop = min(start + BLOCK_ENTRIES, by_cell.nnz)
            genes = by_cell.indices[start:stop].astype(np.int64) + 1
            # the number (from 1) of entry i's cell is that of the columns that start at or before i
            cells = np.searchsorted(by_cell.indptr, np.arange(start, stop), side="right")
            table = pa.table([genes, cells.astype(np.int64), by_cell.data[start:stop]], schema=schema)
            writer.write_table(table)
