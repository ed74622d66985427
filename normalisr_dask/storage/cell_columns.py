"""Columns of the cell table as groupings and covariates: a grouping of each label, one-hot covariates."""

import warnings

import numpy as np
import pandas as pd
from scipy import sparse

from normalisr_dask.storage.tables import NamedRows
from normalisr_dask.validation import check_choice, listing

_MOST_LABELS_OF_A_COVARIATE = 1000
_DETERMINED = 1e-8
#: Labels, in lower case, that programs write where there is none.
_OFTEN_MISSING = frozenset({"", "-", ".", "?", "<na>", "n/a", "na", "nan", "none", "null"})


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

    Warns
    -----
    UserWarning
        If a grouping has a label that often stands for a missing one, such as NA.
    """
    column = str(series.name)
    _refuse_missing(
        series,
        "column",
        missing="no label",
        way_out="give such cells one, such as 'unlabelled' (in the table of ingest --obs, or in obs), and name it as "
        "the reference if they are to be in no grouping",
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
    for label in names:
        if label.strip().casefold() in _OFTEN_MISSING:
            n_cells = np.count_nonzero(codes == labels.index(label))
            msg = (
                f"column {column!r}: the label {label!r} of {n_cells:,} cells, which often stands for a missing one, "
                "is tested as a grouping of its own; rename it, such as to 'unlabelled', if that is meant; to leave it "
                "untested, name it as the reference, with other groupings ignored"
            )
            warnings.warn(msg, UserWarning, stacklevel=2)
    return NamedRows(names, series.index.to_numpy(dtype=object), values)


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


def _refuse_missing(
    series: pd.Series, what: str, *, missing: str = "no value", way_out: str = "fill it or leave the column out"
) -> None:
    """Name the first cell without a value."""
    refused = series.isna()
    if _is_numeric(series):
        refused |= np.isinf(series.astype(np.float64))
    if refused.any():
        first = int(np.argmax(refused))
        found = missing if pd.isna(series.iloc[first]) else f"{series.iloc[first]}"
        msg = (
            f"{what} {str(series.name)!r} has {found} for cell {str(series.index[first])!r} "
            f"({int(refused.sum()):,} such cells); {way_out}"
        )
        raise ValueError(msg)


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
