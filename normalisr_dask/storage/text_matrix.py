"""Dense tables of counts as text, tab- or comma-separated, as streams of entries."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd

from normalisr_dask.kernels import matrix_market, text_matrix
from normalisr_dask.storage.background import in_background
from normalisr_dask.storage.count_source import Entries
from normalisr_dask.storage.text_file import NEWLINE, LineBlock, TextFile, split_line

BLOCK_BYTES = 1 << 22
QUOTED = re.compile(rb'"((?:[^"]|"")*)"')
USUAL_DENSITY = 10  # one value in so many is taken not to be 0; only the number of files for sorting depends on it

REASONS = {
    matrix_market.UNPARSABLE: "expected a count, found {value!r}",
    matrix_market.NEGATIVE: "expected a count, found the negative {value!r}",
    matrix_market.FRACTIONAL: "expected a count, found {value!r}, which is no whole number",
    matrix_market.TOO_LARGE: f"{{value!r}} is larger than {matrix_market.LARGEST_COUNT}, the largest count",
    text_matrix.TOO_FEW_VALUES: "expected {n_values} values, as the first line names, found fewer",
    text_matrix.TOO_MANY_VALUES: "expected {n_values} values, as the first line names, found more",
}


class TextMatrixSource:
    """A dense table with names in its first line and its first column, gzipped or not.

    Parameters
    ----------
    path
        The file; the first line names the columns, with or without a field above the first column.
    transpose
        Whether rows are cells; by default they are genes.
    block_bytes
        How much is read and parsed at a time, in bytes.

    Raises
    ------
    ValueError
        If it has no separators or no rows, or names and values do not fit.

    Notes
    -----
    The file is read once for the names of the rows and once for the counts.
    """

    def __init__(self, path: Path, *, transpose: bool = False, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.by_cell = transpose
        self.n_bytes = path.stat().st_size
        self._transpose = transpose
        self._block_bytes = block_bytes
        with TextFile(path) as file:
            header = file.read_line()
            self._separator = _find_separator(path, header)
            row_names, n_fields = _read_row_names(file, self._separator, block_bytes)
        if not row_names:
            msg = f"{path} has no rows below its first line"
            raise ValueError(msg)
        column_names = split_line(header, self._separator, path)
        if len(column_names) == n_fields:
            column_names = column_names[1:]
        if len(column_names) != n_fields - 1:
            msg = f"{path}: the first line has {len(column_names)} fields, but the second {n_fields}"
            raise ValueError(msg)
        self._n_values = len(column_names)
        rows, columns = (pd.DataFrame(index=pd.Index(np.array(n, dtype=object))) for n in (row_names, column_names))
        self.var, self.obs = (columns, rows) if transpose else (rows, columns)
        self.n_entries = len(rows) * len(columns) // USUAL_DENSITY

    def entries(self) -> Generator[Entries, None, None]:
        """Read the entries above 0; one thread reads ahead, another parses.

        Raises
        ------
        ValueError
            At the first value that is no count, or line of another length.
        """
        return in_background(self._parse())

    def _parse(self) -> Iterator[Entries]:
        """Parse block by block."""
        with TextFile(self.path) as file:
            file.read_line()
            n_rows, n_lines = 0, 1
            with closing(in_background(file.blocks(self._block_bytes))) as blocks:
                for block in blocks:
                    entries, n_block_rows, n_block_lines = self._parse_block(block, n_rows, n_lines)
                    n_rows += n_block_rows
                    n_lines += n_block_lines
                    yield entries

    def _parse_block(self, block: LineBlock, n_rows: int, n_lines: int) -> tuple[Entries, int, int]:
        """Parse a block that `n_rows` rows and `n_lines` lines precede; gives its entries, rows and lines."""
        room = block.text.shape[0] // text_matrix.SHORTEST_VALUE
        rows, columns = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
        counts = np.empty(room, dtype=np.uint32)
        n_entries, n_block_rows, n_block_lines, code, position = text_matrix.parse_rows(
            block.text, ord(self._separator), self._n_values, rows, columns, counts
        )
        if code != matrix_market.PARSED:
            self._refuse(block.text, n_lines + n_block_lines + 1, code, position)
        rows, columns = rows[:n_entries] + np.int32(n_rows), columns[:n_entries]
        genes, cells = (columns, rows) if self._transpose else (rows, columns)
        return Entries(cells, genes, counts[:n_entries], block.bytes_done), n_block_rows, n_block_lines

    def _refuse(self, block: np.ndarray, line_number: int, code: int, position: int) -> None:
        """Raise what is wrong with a value."""
        rest = block[position : position + 60].tobytes().decode(errors="replace").splitlines() or [""]
        value = rest[0].split(self._separator)[0]
        reason = REASONS[code].format(value=value, n_values=self._n_values)
        msg = f"{self.path}, line {line_number}: {reason}"
        raise ValueError(msg)


def _find_separator(path: Path, header: str) -> str:
    """Tab or comma, whichever the first line has; the name decides where it has both."""
    order = ",\t" if ".csv" in path.suffixes else "\t,"
    for separator in order:
        if separator in header:
            return separator
    msg = f"{path}, line 1: expected names separated by tabs or commas, found {header[:60]!r}"
    raise ValueError(msg)


def _read_row_names(file: TextFile, separator: str, block_bytes: int) -> tuple[list[str], int]:
    """Names in the first column of all lines that are left, and the number of fields of the first."""
    names: list[str] = []
    n_fields = 0
    for block in file.blocks(block_bytes):
        text = block.text.tobytes()
        start = 0
        for stop in np.flatnonzero(block.text == NEWLINE).tolist():
            line = text[start:stop].strip(b"\r")
            if line:
                if not names:
                    n_fields = len(split_line(line.decode(errors="replace"), separator, file.path))
                names.append(_first_field(line, separator.encode(), file.path))
            start = stop + 1
    return names, n_fields


def _first_field(line: bytes, separator: bytes, path: Path) -> str:
    """Name at the beginning of a line; a quoted one may hold the separator, and quotes twice."""
    name, end = line.partition(separator)[0], separator
    if name.startswith(b'"'):
        quoted = QUOTED.match(line)
        end = b"" if quoted is None else line[quoted.end() : quoted.end() + 1]
        name = b"\r" if quoted is None else quoted[1].replace(b'""', b'"')
    if b"\r" in name or end not in {separator, b""}:
        msg = f"{path}: expected a name, and quotes that close behind it, found {line[:60].decode(errors='replace')!r}"
        raise ValueError(msg)
    return name.decode(errors="replace")
