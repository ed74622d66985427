"""Tables of cells that users bring: groupings (guides, conditions) and covariates; columns: ``cell_columns.py``.

Groupings stay sparse from the file on, since a screen has thousands of guides and most cells carry one. Covariates are
few and become a dense array. Both are brought into the order of the count store's cells by name.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from scipy import sparse

from normalisr_dask.storage.matrix_market import read_numbers
from normalisr_dask.storage.names import read_cell_table
from normalisr_dask.storage.table_files import is_matrix_market, read_chunks, read_frame
from normalisr_dask.validation import listing


@dataclass(frozen=True)
class NamedRows:
    """Sparse rows over cells, with the names of both.

    Attributes
    ----------
    names
        Names of the rows.
    cells
        Names of the cells, object array of str.
    values
        float64 array of shape (len(names), len(cells)).
    """

    names: tuple[str, ...]
    cells: np.ndarray
    values: sparse.csr_array

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.names), len(self.cells)):
            msg = f"{len(self.names)} names and {len(self.cells)} cells do not fit values of shape {self.values.shape}"
            raise ValueError(msg)


Table = TypeVar("Table", NamedRows, pd.DataFrame)


def read_groupings(
    path: str | Path,
    *,
    names: str | Path | None = None,
    cells: str | Path | Sequence[str] | np.ndarray | None = None,
) -> NamedRows:
    """Read groupings from a table or a Matrix Market file.

    Parameters
    ----------
    path
        TSV or CSV (plain or .gz) or Parquet, with cell names in the first column and a grouping in each other one; or
        Matrix Market (.mtx, .mtx.gz) of shape groupings × cells.
    names
        For Matrix Market: file with the name of a grouping on each line.
    cells
        For Matrix Market: the cells of its columns, as names or as a file with one name on each line.

    Returns
    -------
    NamedRows
        Groupings × cells.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If the file is of an unknown kind, empty, cut short or malformed.
    ValueError
        If a name occurs twice, or names do not fit the matrix.
    ValueError
        If a value is missing, infinite or no number; the message names grouping and cell.

    Notes
    -----
    Tables are read some million values at a time; only non-zero values are kept.
    """
    path = Path(path)
    if is_matrix_market(path):
        groupings = _read_matrix_market(path, names, cells)
    elif names is not None:
        msg = f"a file of grouping names goes with a Matrix Market file; {path} has its names in the header"
        raise ValueError(msg)
    else:
        groupings = _read_table(path)
    _refuse_duplicates(groupings.names, f"{path}: grouping")
    _refuse_duplicates(groupings.cells, f"{path}: cell")
    return groupings


def read_covariates(path: str | Path) -> pd.DataFrame:
    """Read a table of covariates.

    Parameters
    ----------
    path
        TSV or CSV (plain or .gz) or Parquet, with cell names in the first column and a covariate in each other one.

    Returns
    -------
    pandas.DataFrame
        Indexed by cell names. In text files a column where every value is a number or missing is numeric, one of True
        and False is bool, and any other holds labels, where 'NA' is a label as any other. Parquet keeps its types.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is of an unknown kind, empty, cut short or malformed, or a cell or covariate occurs twice.
    """
    path = Path(path)
    frame = read_frame(path)
    _refuse_duplicates(frame.index, f"{path}: cell")
    return frame


def align_to_cells(table: Table, cells: np.ndarray, what: str) -> Table:
    """Bring a table into the order of the count store's cells.

    Parameters
    ----------
    table
        Groupings, or a frame indexed by cell names.
    cells
        Names of the store's cells.
    what
        What the table is called in messages.

    Returns
    -------
    NamedRows or pandas.DataFrame
        The same kind of table, with exactly these cells.

    Raises
    ------
    ValueError
        If a cell of the store is not in the table; the message counts them, names the first, and says whether the names
        seem to differ by a suffix only.

    Warns
    -----
    UserWarning
        If the table has cells that the store lacks; they are ignored.
    UserWarning
        If a grouping has the same value in all these cells, and nothing can be found for it.
    """
    own = pd.Index(table.index if isinstance(table, pd.DataFrame) else table.cells)
    positions = own.get_indexer(pd.Index(cells))
    missing = np.flatnonzero(positions < 0)
    if len(missing):
        msg = (
            f"{what}: {len(missing):,} of the store's {len(cells):,} cells are missing, "
            f"the first is {str(cells[missing[0]])!r}{_suffix_hint(own, cells)}"
        )
        raise ValueError(msg)
    n_others = len(own) - len(cells)
    if n_others:
        msg = f"{what}: {n_others:,} of {len(own):,} cells are not in the store and are ignored"
        warnings.warn(msg, UserWarning, stacklevel=2)
    if isinstance(table, pd.DataFrame):
        return table.iloc[positions]
    aligned = NamedRows(table.names, own.to_numpy(dtype=object)[positions], table.values[:, positions])
    constant = _constant_rows(aligned)
    if constant:
        msg = (
            f"{what}: {len(constant):,} have the same value in all cells, so nothing can be found: {listing(constant)}"
        )
        warnings.warn(msg, UserWarning, stacklevel=2)
    return aligned


def _read_table(path: Path) -> NamedRows:
    """Read cells × groupings a run of cells at a time, and turn it."""
    cells: list[str] = []
    blocks: list[sparse.csr_array] = []
    names: tuple[str, ...] = ()
    for chunk in read_chunks(path):
        names = tuple(map(str, chunk.columns))
        cells.extend(chunk.index)
        blocks.append(sparse.csr_array(_numbers(chunk, path)))
    if not cells:
        msg = f"{path} has a header but no cells"
        raise ValueError(msg)
    values = sparse.csr_array(sparse.vstack(blocks, format="csr").T)
    return NamedRows(names, np.array(cells, dtype=object), values)


def _numbers(chunk: pd.DataFrame, path: Path) -> np.ndarray:
    """Values of a run of cells as float64; refuse what is no finite number."""
    for column in chunk.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in chunk.dtypes]]:
        numbers = pd.to_numeric(chunk[column], errors="coerce")
        words = np.flatnonzero(numbers.isna() & chunk[column].notna())
        if len(words):
            cell, word = chunk.index[words[0]], chunk[column].iloc[words[0]]
            msg = f"{path}: grouping {str(column)!r} has {word!r} for cell {cell!r}, expected a number"
            raise ValueError(msg)
        chunk = chunk.assign(**{column: numbers})
    values = chunk.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        found = "no value" if np.isnan(values[row, column]) else f"{values[row, column]}"
        grouping, cell = str(chunk.columns[column]), chunk.index[row]
        msg = f"{path}: grouping {grouping!r} has {found} for cell {cell!r}, expected a number"
        raise ValueError(msg)
    return values


def _read_matrix_market(
    path: Path, names: str | Path | None, cells: str | Path | Sequence[str] | np.ndarray | None
) -> NamedRows:
    """Read groupings × cells, with names from beside."""
    if names is None:
        msg = f"{path} holds no names; give a file with one grouping's name on each line"
        raise ValueError(msg)
    if cells is None:
        msg = f"{path} holds no cell names; give them in the order of its columns"
        raise ValueError(msg)
    grouping_names = _read_names(names)
    cell_names = _read_names(cells) if isinstance(cells, (str, Path)) else tuple(map(str, cells))
    values = read_numbers(path)
    expected = (len(grouping_names), len(cell_names))
    if values.shape != expected:
        msg = (
            f"{path} is {values.shape[0]:,} × {values.shape[1]:,}, but {names} names {expected[0]:,} groupings "
            f"and there are {expected[1]:,} cells"
        )
        if values.shape == expected[::-1]:
            msg += "; it must be groupings × cells and seems to be transposed"
        raise ValueError(msg)
    wrong = np.flatnonzero(~np.isfinite(values.data))
    if len(wrong):
        row = np.searchsorted(values.indptr, wrong[0], side="right") - 1
        cell = cell_names[values.indices[wrong[0]]]
        msg = (
            f"{path}: grouping {grouping_names[row]!r} has {values.data[wrong[0]]} for cell {cell!r}, expected a number"
        )
        raise ValueError(msg)
    return NamedRows(grouping_names, np.array(cell_names, dtype=object), values)


def _read_names(path: str | Path) -> tuple[str, ...]:
    """Read a file with one name on each line."""
    return tuple(read_cell_table(Path(path)).index)


def _refuse_duplicates(names: Sequence[str] | np.ndarray | pd.Index, what: str) -> None:
    """Name the first name that occurs again."""
    index = pd.Index(names)
    if index.has_duplicates:
        repeats = index[index.duplicated()]
        msg = f"{what} {str(repeats[0])!r} occurs more than once; there are {len(repeats):,} repeats"
        raise ValueError(msg)


def _constant_rows(rows: NamedRows) -> list[str]:
    """Names of the rows with one value in all cells; works on the stored values alone."""
    n_cells = rows.values.shape[1]
    lowest, highest = (extreme.toarray().ravel() for extreme in (rows.values.min(axis=1), rows.values.max(axis=1)))
    return [rows.names[row] for row in np.flatnonzero(lowest == highest)] if n_cells else []


def _suffix_hint(own: pd.Index, cells: np.ndarray) -> str:
    """Tell whether a suffix such as Cell Ranger's -1 is all that differs."""
    store = pd.Index(cells).astype(str)
    own = own.astype(str)
    suffix = r"-\d+$"
    if len(own) and own[:100].str.contains(suffix).all() != store[:100].str.contains(suffix).all():
        stripped = own.str.replace(suffix, "", regex=True).intersection(store.str.replace(suffix, "", regex=True))
        if len(stripped):
            side = "the store's" if store[:100].str.contains(suffix).all() else "the table's"
            return f"; only {side} names end in a suffix such as '-1', without it {len(stripped):,} match"
    return f"; the table's first is {str(own[0])!r}" if len(own) else ""
