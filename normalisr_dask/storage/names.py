"""Names of genes and cells: read from tables beside a matrix, checked, made unique, aligned between inputs."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from normalisr_dask.storage.table_files import read_frame
from normalisr_dask.storage.text_file import TextFile

GENE_COLUMNS = ("gene_ids", "gene_symbols", "feature_types")


def read_gene_table(path: Path) -> pd.DataFrame:
    """Read genes from a table without header.

    Parameters
    ----------
    path
        One gene a line, fields separated by tabs: its name; or, as Cell Ranger writes it, its identifier, its symbol
        and, from version 3, the type of feature.

    Returns
    -------
    pandas.DataFrame
        Indexed by the symbols, or the names; columns ``gene_ids`` and ``feature_types`` where given.
    """
    rows = _read_rows(path)
    n_fields = min(max(len(row) for row in rows), len(GENE_COLUMNS))
    for line, row in enumerate(rows, start=1):
        if len(row) < n_fields:
            msg = f"{path}, line {line}: expected {n_fields} fields separated by tabs, found {len(row)}"
            raise ValueError(msg)
    if n_fields == 1:
        return pd.DataFrame(index=_names_index(row[0] for row in rows))
    columns = {name: [row[field] for row in rows] for field, name in enumerate(GENE_COLUMNS[:n_fields])}
    symbols = columns.pop("gene_symbols")
    index = _names_index(symbols)
    return pd.DataFrame({name: pd.Series(values, index=index, dtype=object) for name, values in columns.items()})


def read_cell_table(path: Path) -> pd.DataFrame:
    """Read the names of cells, one a line, the first field where there are several; no header."""
    return pd.DataFrame(index=_names_index(row[0] for row in _read_rows(path)))


def check_length(path: Path, table: pd.DataFrame, expected: int, matrix: Path, what: str) -> None:
    """Refuse a table of names that does not fit its matrix."""
    if len(table) != expected:
        hint = f"; its first line is taken for a name, too: {table.index[0]!r}" if len(table) == expected + 1 else ""
        msg = f"{path} names {len(table)} {what}, but {matrix} has {expected}{hint}"
        raise ValueError(msg)


def make_genes_unique(var: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Give genes of the same name suffixes, as anndata does, and say so."""
    n_duplicates = int(var.index.duplicated().sum())
    if n_duplicates == 0:
        return var
    first = var.index[var.index.duplicated()][0]
    msg = f"{path}: {n_duplicates} duplicate gene names, the first {first!r}, were made unique by suffixes -1, -2, …"
    warnings.warn(msg, UserWarning, stacklevel=2)
    return var.set_axis(make_index_unique(var.index))


def join_cells(tables: Sequence[pd.DataFrame], paths: Sequence[Path]) -> pd.DataFrame:
    """Put the cells of all inputs below one another.

    Raises
    ------
    ValueError
        If two cells have the same name.
    """
    for table, path in zip(tables, paths, strict=True):
        if not table.index.is_unique:
            name = table.index[table.index.duplicated()][0]
            lines = np.flatnonzero(table.index == name)[:2] + 1
            n_duplicates = int(table.index.duplicated().sum())
            msg = (
                f"{path} has {n_duplicates} duplicate cell names, the first {name!r} (cells {lines[0]} and {lines[1]});"
                " give a file of unique names (--cells)"
            )
            raise ValueError(msg)
    if len(tables) == 1:
        return tables[0]
    joined = pd.concat(tables)
    if not joined.index.is_unique:
        name = joined.index[joined.index.duplicated()][0]
        first, second = [path for table, path in zip(tables, paths, strict=True) if name in table.index][:2]
        n_duplicates = int(joined.index.duplicated().sum())
        msg = (
            f"{n_duplicates} cell names are in more than one input, the first {name!r} in {first} and {second};"
            " give each input a file of names that are unique among all (--cells), for example with the"
            " sample's name as a suffix"
        )
        raise ValueError(msg)
    return joined


def join_genes(tables: Sequence[pd.DataFrame], paths: Sequence[Path], join: str | None) -> pd.DataFrame:
    """Bring the genes of all inputs together, in the order of the first.

    Parameters
    ----------
    tables, paths
        Genes of each input, with unique names, and where they come from.
    join
        ``"inner"`` keeps the genes that all inputs have, ``"outer"`` all; None takes only inputs with the same genes.

    Raises
    ------
    ValueError
        If genes differ and `join` is None, or if no gene is left.
    """
    joined = tables[0]
    for table, path in zip(tables[1:], paths[1:], strict=True):
        missing = joined.index.difference(table.index, sort=False)
        added = table.index.difference(joined.index, sort=False)
        if join is None and (len(missing) or len(added)):
            parts = [
                f"{len(names)} genes only in {where}, the first {names[0]!r}"
                for names, where in ((missing, paths[0]), (added, path))
                if len(names)
            ]
            msg = f"the inputs differ in their genes: {'; '.join(parts)}; use --join outer or --join inner"
            raise ValueError(msg)
        if join == "inner":
            joined = joined.loc[joined.index.isin(table.index)]
        elif len(added):
            joined = pd.concat([joined, table.loc[added]])
    if len(joined) == 0:
        msg = f"the {len(tables)} inputs have no gene in common; check that they use the same kind of gene names"
        raise ValueError(msg)
    return joined


def add_cell_table(obs: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Join a table of cells to the cells.

    Parameters
    ----------
    obs
        The cells.
    path
        TSV, CSV (each also gzipped) or Parquet, with the names of cells in the first column.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, cells are missing or named twice in it, or it has a column that is already there.
    """
    table = read_frame(path)
    missing = obs.index.difference(table.index, sort=False)
    if len(missing):
        way_out = "its first column names cells"
        if len(missing) < len(obs):
            way_out += "; add a line for each of them, with any label, such as 'unlabelled'"
        msg = f"{path} lacks {len(missing):,} of {len(obs):,} cells, the first {missing[0]!r}; {way_out}"
        raise ValueError(msg)
    if not table.index.is_unique:
        name = table.index[table.index.duplicated()][0]
        msg = f"{path} has {int(table.index.duplicated().sum())} cells twice, the first {name!r}"
        raise ValueError(msg)
    both = obs.columns.intersection(table.columns)
    if len(both):
        msg = f"{path} has a column {both[0]!r}, which the cells already have; rename it or leave it out"
        raise ValueError(msg)
    n_extra = len(table) - len(obs)
    if n_extra:
        extra = table.index.difference(obs.index, sort=False)
        msg = f"{path} has {n_extra} rows of cells that are not in the matrix, the first {extra[0]!r}; they are ignored"
        warnings.warn(msg, UserWarning, stacklevel=2)
    return obs.join(table)


def storable(table: pd.DataFrame) -> pd.DataFrame:
    """Make labels that lack values, or are mixed with numbers, categorical, since AnnData stores no others."""
    table = table.copy()
    for column in table.select_dtypes(object):
        if not table[column].map(lambda value: isinstance(value, str)).all():
            table[column] = table[column].where(table[column].isna(), table[column].astype(str)).astype("category")
    return table


def _read_rows(path: Path) -> list[list[str]]:
    """Fields of all lines of a small text file; blank lines at its end are dropped."""
    with TextFile(path) as file:
        text = b"".join(block.text.tobytes() for block in file.blocks(1 << 20))
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        msg = f"{path}, line {number}: expected UTF-8 text, found byte {text[error.start]}"
        raise ValueError(msg) from error
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        msg = f"{path} names nothing: it has only blank lines"
        raise ValueError(msg)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            msg = f"{path}, line {number}: expected a name, found a blank line"
            raise ValueError(msg)
    return [line.rstrip("\r").split("\t") for line in lines]


def _names_index(names: Iterable[str]) -> pd.Index:
    """Index of names as str objects."""
    return pd.Index(np.array(list(names), dtype=object))
