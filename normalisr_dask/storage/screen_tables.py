"""Tables that describe a screen: targets of guides, names of controls, pairs of grouping and gene to test."""

from pathlib import Path

import numpy as np
import pandas as pd

from normalisr_dask.storage.names import read_cell_table
from normalisr_dask.storage.table_files import read_frame
from normalisr_dask.validation import listing


def read_targets(path: str | Path) -> pd.Series:
    """Read which target each guide has.

    Parameters
    ----------
    path
        TSV or CSV (plain or .gz) or Parquet with a header, guides in the first column and their targets in the second.

    Returns
    -------
    pandas.Series
        Targets as str, indexed by guides.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is of an unknown kind, empty, cut short or malformed.
    ValueError
        If a guide occurs twice or has no target; the message names it.
    """
    targets = _second_column(Path(path), "guide", "target")
    repeats = targets.index[targets.index.duplicated()]
    if len(repeats):
        msg = f"{path}: guide {str(repeats[0])!r} occurs more than once; there are {len(repeats):,} repeats"
        raise ValueError(msg)
    return targets


def read_pairs(path: str | Path) -> pd.Series:
    """Read which pairs of grouping and gene to test.

    Parameters
    ----------
    path
        TSV or CSV (plain or .gz) or Parquet with a header, groupings (or guides, or targets) in the first column and
        genes in the second.

    Returns
    -------
    pandas.Series
        Genes as str, indexed by groupings.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is of an unknown kind, empty, cut short or malformed, or a grouping has no gene beside it.
    """
    return _second_column(Path(path), "grouping", "gene")


def read_name_list(path: str | Path) -> tuple[str, ...]:
    """Read names, one a line, without a header.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it has no names, or a blank line among them.
    """
    return tuple(read_cell_table(Path(path)).index)


def _second_column(path: Path, rows: str, values: str) -> pd.Series:
    """Read two columns of names, the first as index."""
    frame = read_frame(path, rows, as_text=True)
    if frame.shape[1] != 1:
        msg = (
            f"{path}: expected two columns, {rows} and {values}, found {frame.shape[1] + 1}: "
            f"after the first, {listing(frame.columns)}"
        )
        raise ValueError(msg)
    if frame.empty:
        msg = f"{path} has a header but no {rows}s"
        raise ValueError(msg)
    column = frame.iloc[:, 0]
    missing = np.flatnonzero(column.isna())
    if len(missing):
        msg = f"{path}: {rows} {str(frame.index[missing[0]])!r} has no {values} ({len(missing):,} such lines)"
        raise ValueError(msg)
    return column.astype(str).astype(object)
