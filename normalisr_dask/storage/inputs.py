"""Which format an input is in, seen from its content, and from its name where that says nothing."""

from pathlib import Path

import pandas as pd

from normalisr_dask.storage.anndata_input import AnnDataSource
from normalisr_dask.storage.count_source import CountSource
from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.matrix_market import MatrixMarketSource
from normalisr_dask.storage.names import check_length, read_cell_table, read_gene_table
from normalisr_dask.storage.ten_x import TenXFileSource, find_matrix, is_ten_x_file
from normalisr_dask.storage.text_file import TextFile, check_file
from normalisr_dask.storage.text_matrix import TextMatrixSource

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MATRIX_MARKET_MAGIC = "%%MatrixMarket"
TEXT_SUFFIXES = {".tsv", ".csv", ".txt"}


def open_source(path: Path, *, genes: Path | None, cells: Path | None, transpose: bool) -> CountSource:
    """Open an input of any supported format.

    Parameters
    ----------
    path
        File or folder.
    genes, cells
        Files of names; only Matrix Market needs them, elsewhere they replace the names inside.
    transpose
        Whether rows are cells, in formats that do not say so themselves.

    Raises
    ------
    FileNotFoundError
        If it, or a file of names, is missing.
    ValueError
        If its format is not known, or it is damaged.
    """
    if path.is_dir() and not is_store(path):
        path = find_matrix(path)
    if not path.is_dir():
        check_file(path)
        if not _is_hdf5(path):
            return _open_text(path, genes=genes, cells=cells, transpose=transpose)
    if transpose:
        msg = f"transpose is for Matrix Market and text; {path} says itself which of its dimensions are cells"
        raise ValueError(msg)
    ten_x = path.is_file() and is_ten_x_file(path)
    return _rename(TenXFileSource(path) if ten_x else AnnDataSource(path), genes=genes, cells=cells)


def _open_text(path: Path, *, genes: Path | None, cells: Path | None, transpose: bool) -> CountSource:
    """Open Matrix Market or a dense table."""
    with TextFile(path) as file:
        first_line = file.read_line()
    is_matrix_market = first_line.lower().startswith(MATRIX_MARKET_MAGIC.lower()) or ".mtx" in path.suffixes
    if is_matrix_market:
        return MatrixMarketSource(path, genes=genes, cells=cells, transpose=transpose)
    if not TEXT_SUFFIXES & set(path.suffixes):
        msg = (
            f"the format of {path} is not known: expected Matrix Market (.mtx), a 10x folder, 10x HDF5, h5ad,"
            " AnnData-Zarr or a table (.tsv, .csv, .txt)"
        )
        raise ValueError(msg)
    return _rename(TextMatrixSource(path, transpose=transpose), genes=genes, cells=cells)


def _rename(source: CountSource, *, genes: Path | None, cells: Path | None) -> CountSource:
    """Replace names that an input carries itself."""
    if genes is not None:
        table = read_gene_table(genes)
        check_length(genes, table, len(source.var), source.path, "genes")
        source.var = table
    if cells is not None:
        names = read_cell_table(cells).index
        check_length(cells, pd.DataFrame(index=names), len(source.obs), source.path, "cells")
        source.obs = source.obs.set_axis(names)
    return source


def _is_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does."""
    with path.open("rb") as file:
        return file.read(len(HDF5_MAGIC)) == HDF5_MAGIC
