"""Counts in files without names, genes × cells, as count stores: what Normalisr's commands read."""

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse
import zarr
from numpy.typing import NDArray

from normalisr_dask.storage.count_store import as_counts
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.counts import Counts, open_counts
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.storage.matrix_market import read_header
from normalisr_dask.storage.matrix_store import store_rows
from normalisr_dask.storage.number_text import read_rows
from normalisr_dask.storage.text_file import TextFile

STORE = "counts.zarr"


def counts_of_matrix_market(path: Path, scratch: Path) -> Counts:
    """Convert a Matrix Market file to a count store in a folder; genes and cells are named by numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or its values are no counts.
    """
    with TextFile(path) as file:
        header = read_header(file)
    names = {"genes": header.n_rows, "cells": header.n_columns}
    for what, size in names.items():
        (scratch / what).write_text("\n".join(_numbered(size)))
    ingest(path, scratch / STORE, genes=scratch / "genes", cells=scratch / "cells")
    return open_counts(scratch / STORE)


def counts_of_text(path: Path, scratch: Path) -> Counts:
    """Convert rows of counts as text to a count store in a folder; genes and cells are named by numbers.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or a value is no count.

    Notes
    -----
    The counts of the text are written to the folder once, 4 bytes each, since they come gene by gene.
    """
    with closing(_count_rows(path)) as rows:
        dense = store_rows(scratch / "dense.zarr", rows, np.uint32)
    return counts_of_array(dense, scratch)


def counts_of_array(array: zarr.Array, scratch: Path) -> Counts:
    """Convert a dense array of counts, genes × cells, to a count store in a folder.

    Raises
    ------
    ValueError
        If a value is no count.
    """
    n_genes, n_cells = array.shape
    obs, var = (pd.DataFrame(index=pd.Index(_numbered(size), dtype=object)) for size in (n_cells, n_genes))
    width = array.chunks[1] * max(1, (16 << 20) // (array.chunks[1] * max(1, n_genes)))
    with CountStoreWriter(scratch / STORE, obs=obs, var=var) as writer:
        for start in range(0, n_cells, width):
            block = as_counts(np.asarray(array[:, start : start + width]), path=str(array.store_path))
            by_cell = scipy.sparse.csr_array(block.T)
            writer.append(np.diff(by_cell.indptr), by_cell.indices, by_cell.data)
        writer.finalise()
    return open_counts(scratch / STORE)


def _count_rows(path: Path) -> Generator[NDArray[np.unsignedinteger], None, None]:
    """Read rows and check that they are counts."""
    n_rows = 0
    with closing(read_rows(path)) as blocks:
        for block in blocks:
            bad = ~((block >= 0) & (block <= np.iinfo(np.uint32).max) & (block == np.trunc(block)))
            if bad.any():
                row, column = np.argwhere(bad)[0]
                msg = (
                    f"{path}, row {n_rows + row + 1}, column {column + 1}: expected a count, a whole number from 0 on, "
                    f"found {block[row, column]:g}"
                )
                raise ValueError(msg)
            n_rows += block.shape[0]
            yield block.astype(np.uint32)


def _numbered(size: int) -> list[str]:
    return [str(number) for number in range(size)]
