"""Files of tables: TSV, CSV and Parquet, read with errors that name the file and the place."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from normalisr_dask.storage.text_file import TextFile, check_file, gzip_errors, split_line
from normalisr_dask.validation import listing

_VALUES_AT_A_TIME = 1 << 20
_MISSING_WORDS = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
_TRUTH_WORDS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}
_SEPARATORS = {".tsv": "\t", ".txt": "\t", ".csv": ","}


def is_matrix_market(path: Path) -> bool:
    """Whether the file's name says Matrix Market."""
    return _plain_suffix(path) == ".mtx"


def read_chunks(path: Path) -> Iterator[pd.DataFrame]:
    """Read a table of numbers a run of rows at a time, indexed by its first column.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of an unknown kind, empty, malformed or cut short, or lacks a cell name.
    """
    with _naming(path):
        if _is_parquet(path):
            file = pq.ParquetFile(path)
            cells = _check_columns(file.schema_arrow.names, path, _parquet_index(file.schema_arrow))
            for batch in file.iter_batches(batch_size=_rows_at_a_time(len(file.schema_arrow.names))):
                yield _indexed(batch.to_pandas(ignore_metadata=True), cells, path)
        else:
            yield from _read_text(path, as_text=False)


def read_frame(path: Path, rows: str = "cell", *, as_text: bool = False) -> pd.DataFrame:
    """Read a whole table, indexed by its first column; see `tables.read_covariates` for the types of columns.

    Parameters
    ----------
    path
        TSV or CSV (plain or .gz) or Parquet.
    rows
        What the first column names, in messages.
    as_text
        Whether to leave text as it stands; an empty field is missing.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is of an unknown kind, empty, malformed or cut short, or lacks a name in its first column.
    """
    with _naming(path):
        if _is_parquet(path):
            table = pq.read_table(path)
            index = _check_columns(table.column_names, path, _parquet_index(table.schema), rows)
            return _indexed(table.to_pandas(ignore_metadata=True), index, path, rows)
        text = pd.concat(list(_read_text(path, as_text=True, rows=rows)))
        if as_text:
            return text.mask(text == "")
        return pd.DataFrame({column: _typed(text[column]) for column in text.columns}, index=text.index)


def _read_text(path: Path, *, as_text: bool, rows: str = "cell") -> Iterator[pd.DataFrame]:
    """Read a TSV or CSV file a run of rows at a time, either typed by pandas or as it stands."""
    separator = _SEPARATORS.get(_plain_suffix(path))
    if separator is None:
        msg = f"{path}: a table must be a .tsv, .txt or .csv file (each also .gz) or a .parquet file"
        raise ValueError(msg)
    with TextFile(path) as file:
        header, first = (split_line(file.read_line(), separator, path) for _ in range(2))
    _check_columns(header, path, header[0] if header else "", rows)
    if len(first) not in {0, len(header)}:
        msg = (
            f"{path}: the header has {len(header)} fields, line 2 has {len(first)}; "
            f"the column of {rows} names needs a title, too"
        )
        raise ValueError(msg)
    more = len(header)  # a column for what is too much in a line, which pandas may pass over else
    with TextFile(path) as file, gzip_errors(path):
        reader = pd.read_csv(
            file.stream(),
            sep=separator,
            header=None,
            skiprows=1,
            names=list(range(more + 1)),
            index_col=False,
            dtype=str if as_text else {0: str, more: str},
            keep_default_na=False,
            na_values=None if as_text else dict.fromkeys(range(1, more), _MISSING_WORDS),  # type: ignore[arg-type]
            float_precision=None if as_text else "round_trip",
            chunksize=_rows_at_a_time(more),
        )
        for chunk in _without_warnings(reader):
            longer = np.flatnonzero(chunk[more].fillna("") != "")
            if longer.size:
                row = chunk.index[longer[0]]
                msg = f"{path}: data row {row + 1:,} has more fields than the header, which has {more:,}"
                raise ValueError(msg)
            yield _indexed(chunk.drop(columns=more), 0, path, rows).set_axis(header[1:], axis="columns")


def _without_warnings(reader: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """Read on; of lines with far more fields than the header pandas warns, and they are refused."""
    while True:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)
            chunk = next(reader, None)
        if chunk is None:
            return
        yield chunk


def _check_columns(columns: list[str], path: Path, index: str, rows: str = "cell") -> str:
    """Refuse a table without columns or with two of a name; pass on the name of the column that names the rows."""
    if len(columns) < 2:
        found = f"only {listing(columns)}" if any(columns) else "nothing"
        msg = f"{path}: expected a header with a column of {rows} names and at least one more, found {found}"
        raise ValueError(msg)
    others = pd.Index(columns)
    repeated = others[others.duplicated()]
    if len(repeated):
        msg = f"{path}: column {str(repeated[0])!r} occurs twice"
        raise ValueError(msg)
    return index


def _indexed(frame: pd.DataFrame, index: str | int, path: Path, rows: str = "cell") -> pd.DataFrame:
    """Index rows by the column of their names."""
    nameless = np.flatnonzero(frame[index].isna() | (frame[index] == ""))
    if len(nameless):
        msg = f"{path}: data row {frame.index[nameless[0]] + 1:,} has no {rows} name"
        raise ValueError(msg)
    frame = frame.set_index(index)
    frame.index = frame.index.astype(str).astype(object)
    return frame


def _parquet_index(schema: pa.Schema) -> str:
    """Name of the column of cells: pandas puts an index last and says so, others put it first."""
    written = (schema.pandas_metadata or {}).get("index_columns", [])
    index = [column for column in written if isinstance(column, str)]
    return index[0] if len(index) == 1 else next(iter(schema.names), "")


def _typed(text: pd.Series) -> pd.Series:
    """Turn a column of text into numbers, truth values or labels."""
    missing = text.isin(_MISSING_WORDS)
    if not missing.any() and text.isin(_TRUTH_WORDS).all():
        return text.map(_TRUTH_WORDS).astype(bool)
    numbers = pd.to_numeric(text.mask(missing), errors="coerce")
    if not missing.all() and numbers[~missing].notna().all():
        if pd.api.types.is_float_dtype(numbers.dtype):
            return text.mask(missing).astype(np.float64)  # correctly rounded, which to_numeric's are not
        return numbers
    return text.mask(text == "")


def _rows_at_a_time(n_columns: int) -> int:
    """Rows that make some million values."""
    return max(1, _VALUES_AT_A_TIME // n_columns)


def _plain_suffix(path: Path) -> str:
    """Give the suffix of a file's name, less .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _is_parquet(path: Path) -> bool:
    """Whether the file's name says Parquet."""
    return _plain_suffix(path) in {".parquet", ".pq"}


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of the libraries that read it."""
    check_file(path)
    try:
        yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        msg = f"{path} cannot be read: {reason}"
        raise ValueError(msg) from error
