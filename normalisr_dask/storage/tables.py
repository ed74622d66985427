"""Tables of cells that users bring: groupings (guides, conditions) and covariates.

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
from normalisr_dask.validation import check_choice, listing

_MOST_LABELS_OF_A_COVARIATE = 1000
_DETERMINED = 1e-8


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


def one_hot_covariates(frame: pd.DataFrame) -> tuple[tuple[str, ...], np.ndarray]:
    """Turn columns into covariates: numbers as they are, labels one-hot without the first in sorted order.

    Parameters
    ----------
    frame
        Cells × columns.

    Returns
    -------
    names
        Of the q covariates: the column's name, or ``column=label``.
    values
        float64 array of shape (q, n_cells).

    Raises
    ------
    ValueError
        If a value is missing or infinite; the message names column and cell.
    ValueError
        If columns are constant over the cells; the message names them.
    ValueError
        If a column has more than a thousand labels.

    Warns
    -----
    UserWarning
        If a constant and the covariates before them determine some covariates; the message names these.

    Notes
    -----
    Takes twice the memory of the result, and q² · n_cells operations to find determined covariates.
    """
    for column in frame.columns:
        _refuse_missing(frame[column], "covariate")
    constant = [column for column in frame.columns if frame[column].nunique() < 2]
    if constant:
        msg = f"covariates with one value in all {len(frame):,} cells: {listing(constant)}; leave them out"
        raise ValueError(msg)

    names: list[str] = []
    rows: list[np.ndarray] = []
    for column in frame.columns:
        series = frame[column]
        if _is_numeric(series):
            names.append(str(column))
            rows.append(series.to_numpy(dtype=np.float64))
            continue
        labels, codes = _labels(series)
        if len(labels) > _MOST_LABELS_OF_A_COVARIATE:
            msg = (
                f"covariate {str(column)!r} has {len(labels):,} labels, each of which would be a covariate; group them"
            )
            raise ValueError(msg)
        for code, label in enumerate(labels[1:], start=1):
            names.append(f"{column}={label}")
            rows.append((codes == code).astype(np.float64))
    values = np.array(rows, dtype=np.float64).reshape(len(rows), len(frame))  # (q, n_cells)

    determined = [names[row] for row in _determined_rows(values)]
    if determined:
        msg = f"covariates that the others determine: {listing(determined)}; they change nothing and can be left out"
        warnings.warn(msg, UserWarning, stacklevel=2)
    return tuple(names), values


def groupings_from_column(series: pd.Series, reference: str | None = None) -> NamedRows:
    """Make a grouping of each label in a column.

    Parameters
    ----------
    series
        Labels, indexed by cell names.
    reference
        A label whose cells shall belong to no grouping.

    Returns
    -------
    NamedRows
        Groupings × cells, 0 or 1; groupings in sorted order.

    Raises
    ------
    ValueError
        If a label is missing, or the column holds fractional numbers.
    ValueError
        If all cells have the same label, or each its own.
    ValueError
        If the reference is not among the labels; the message lists them and suggests the closest.
    """
    column = str(series.name)
    _refuse_missing(
        series, "column", "label such cells, and name that label as the reference if they are to be in none"
    )
    if pd.api.types.is_float_dtype(series.dtype) and (series % 1 != 0).any():
        msg = f"column {column!r} holds fractional numbers, expected labels; such a column can be a covariate"
        raise ValueError(msg)
    labels, codes = _labels(series)
    if len(labels) in {1, len(series)}:
        found = f"{labels[0]!r} in every cell" if len(labels) == 1 else "another label in every cell"
        msg = f"column {column!r} has {found}, so there are no groupings in it"
        raise ValueError(msg)
    if reference is not None:
        check_choice(reference, labels, f"reference of column {column!r}:")
    kept = np.array([label != reference for label in labels])
    row_of_label = np.where(kept, np.cumsum(kept) - 1, -1)
    rows = row_of_label[codes]
    members = np.flatnonzero(rows >= 0)
    values = sparse.csr_array((np.ones(len(members)), (rows[members], members)), shape=(kept.sum(), len(series)))
    names = tuple(label for label in labels if label != reference)
    return NamedRows(names, series.index.to_numpy(dtype=object), values)


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


def _is_numeric(series: pd.Series) -> bool:
    """Whether a column holds numbers, truth values aside."""
    return pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)


def _labels(series: pd.Series) -> tuple[list[str], np.ndarray]:
    """Labels that occur, in sorted order, and the place of each cell's label among them."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        series = series.astype(series.cat.categories.dtype)
    if series.dtype == object:
        series = series.astype(str)
    codes, labels = pd.factorize(series, sort=True)
    return [str(label) for label in labels], codes


def _refuse_missing(series: pd.Series, what: str, way_out: str = "fill it or leave the column out") -> None:
    """Name the first cell without a value."""
    missing = series.isna()
    if _is_numeric(series):
        missing |= np.isinf(series.astype(np.float64))
    if missing.any():
        first = int(np.argmax(missing))
        msg = (
            f"{what} {str(series.name)!r} has {series.iloc[first]} for cell {str(series.index[first])!r} "
            f"({int(missing.sum()):,} such cells); {way_out}"
        )
        raise ValueError(msg)


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


def _determined_rows(values: np.ndarray) -> list[int]:
    """Rows that a constant and the rows before them determine, by Gram-Schmidt with one repetition."""
    n_rows, n_cells = values.shape
    basis = np.empty((n_rows + 1, n_cells))
    basis[0] = n_cells**-0.5
    rank = 1
    determined = []
    for row in range(n_rows):
        residual = values[row] - values[row].mean()
        length = np.linalg.norm(residual)
        for _ in range(2):
            residual -= (basis[:rank] @ residual) @ basis[:rank]
        rest = np.linalg.norm(residual)
        if rest <= _DETERMINED * length:
            determined.append(row)
        else:
            basis[rank] = residual / rest
            rank += 1
    return determined


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
