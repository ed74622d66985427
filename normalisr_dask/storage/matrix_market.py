"""Matrix Market files of counts as a stream of entries."""

import csv
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from normalisr_dask.kernels import matrix_market as kernel
from normalisr_dask.storage.background import in_background
from normalisr_dask.storage.count_source import Entries
from normalisr_dask.storage.names import check_length, read_cell_table, read_gene_table
from normalisr_dask.storage.text_file import LineBlock, TextFile, gzip_errors

BLOCK_BYTES = 1 << 22
LARGEST_SIZE = 2**31 - 1
GENE_FILES = ("features.tsv.gz", "features.tsv", "genes.tsv", "genes.tsv.gz")
CELL_FILES = ("barcodes.tsv.gz", "barcodes.tsv")
#: How pandas begins what it says of a line.
TOKENIZING = "Error tokenizing data. C error: "
FIELDS = ("integer", "real", "pattern")

REASONS = {
    kernel.UNPARSABLE: "expected 'row column{value}', found {line!r}",
    kernel.ROW_OUT_OF_RANGE: "the row index is not in 1 to {n_rows}: {line!r}",
    kernel.COLUMN_OUT_OF_RANGE: "the column index is not in 1 to {n_columns}: {line!r}",
    kernel.NEGATIVE: "the value is negative, expected a count: {line!r}",
    kernel.FRACTIONAL: "the value is no whole number, expected a count: {line!r}",
    kernel.TOO_LARGE: f"the value is larger than {kernel.LARGEST_COUNT}, the largest count: {{line!r}}",
}


class Header(NamedTuple):
    """What the beginning of a Matrix Market file says, and how many lines it takes."""

    field: str
    n_rows: int
    n_columns: int
    n_entries: int
    n_lines: int


class MatrixMarketSource:
    """A coordinate Matrix Market file whose values are counts, gzipped or not.

    Parameters
    ----------
    path
        The file.
    genes, cells
        Files of names (`read_gene_table`, `read_cell_table`); by default looked for beside the matrix, under Cell
        Ranger's names.
    transpose
        Whether rows are cells; by default they are genes.
    block_bytes
        How much is read and parsed at a time, in bytes.

    Raises
    ------
    FileNotFoundError
        If the file, or a file of names, is missing.
    ValueError
        If the header is not of a coordinate matrix of counts, or the names do not fit its size.
    """

    def __init__(
        self,
        path: Path,
        *,
        genes: Path | None = None,
        cells: Path | None = None,
        transpose: bool = False,
        block_bytes: int = BLOCK_BYTES,
    ) -> None:
        self.path = path
        self.by_cell = True
        with TextFile(path) as file:
            header = read_header(file)
        self.n_bytes = path.stat().st_size
        self.n_entries = header.n_entries
        self._transpose = transpose
        self._block_bytes = block_bytes

        genes_path = genes or find_beside(path, GENE_FILES, "gene", "--genes (assign-guides: --guide-names)")
        cells_path = cells or find_beside(path, CELL_FILES, "cell", "--cells (assign-guides: --cell-names)")
        self.var, self.obs = read_gene_table(genes_path), read_cell_table(cells_path)
        n_genes, n_cells = header.n_rows, header.n_columns
        if transpose:
            n_genes, n_cells = n_cells, n_genes
        if n_genes != n_cells and (len(self.var), len(self.obs)) == (n_cells, n_genes):
            msg = (
                f"{path} has {header.n_rows} rows and {header.n_columns} columns, but there are {len(self.var)} genes"
                f" and {len(self.obs)} cells; {'leave out' if transpose else 'give'} --transpose"
            )
            raise ValueError(msg)
        check_length(genes_path, self.var, n_genes, path, "genes")
        check_length(cells_path, self.obs, n_cells, path, "cells")

    def entries(self) -> Generator[Entries, None, None]:
        """Read the entries; one thread reads ahead, another parses.

        Raises
        ------
        ValueError
            At the first line that is no entry with a count, or if the number of entries is not what the header says.
        """
        return in_background(self._parse())

    def _parse(self) -> Iterator[Entries]:
        """Parse block by block."""
        with TextFile(self.path) as file:
            header = read_header(file)
            n_lines, n_parsed = header.n_lines, 0
            with closing(in_background(file.blocks(self._block_bytes))) as blocks:
                for block in blocks:
                    entries, n_block_lines = self._parse_block(header, block, n_lines)
                    n_lines += n_block_lines
                    n_parsed += entries.counts.shape[0]
                    if n_parsed > header.n_entries:
                        msg = f"{self.path} has more entries than the {header.n_entries} that its header promises"
                        raise ValueError(msg)
                    yield entries
        if n_parsed < header.n_entries:
            msg = (
                f"{self.path} is truncated: it ends after {n_parsed} entries (line {n_lines}), but its header promises"
                f" {header.n_entries}"
            )
            raise ValueError(msg)

    def _parse_block(self, header: Header, block: LineBlock, n_lines: int) -> tuple[Entries, int]:
        """Parse a block that `n_lines` lines precede; gives its entries and its number of lines."""
        room = block.text.shape[0] // kernel.SHORTEST_LINE
        rows, columns = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
        counts = np.empty(room, dtype=np.uint32)
        n_entries, n_block_lines, code, position = kernel.parse_entries(
            block.text, header.n_rows, header.n_columns, header.field != "pattern", rows, columns, counts
        )
        if code != kernel.PARSED:
            self._refuse(header, block, n_lines + n_block_lines + 1, code, position)
        genes, cells = (columns, rows) if self._transpose else (rows, columns)
        return Entries(cells[:n_entries], genes[:n_entries], counts[:n_entries], block.bytes_done), n_block_lines

    def _refuse(self, header: Header, block: LineBlock, line_number: int, code: int, position: int) -> None:
        """Raise what is wrong with a line."""
        text = block.text.tobytes()
        start, end = text.rfind(b"\n", 0, position) + 1, text.find(b"\n", position)
        line = text[start:end].decode(errors="replace").strip()
        reason = REASONS[code].format(
            line=line if len(line) <= 60 else line[:60] + "…",
            n_rows=header.n_rows,
            n_columns=header.n_columns,
            value="" if header.field == "pattern" else " value",
        )
        msg = f"{self.path}, line {line_number}: {reason}"
        raise ValueError(msg)


def read_numbers(path: Path) -> sparse.csr_array:
    """Read a whole coordinate matrix of any numbers, such as groupings; entries that occur twice are summed.

    Returns
    -------
    scipy.sparse.csr_array
        float64.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or no coordinate matrix, general, of numbers or a pattern.

    Notes
    -----
    Some 30 bytes of memory an entry. SciPy's reader ends the process at some malformed files.
    """
    with TextFile(path) as file, gzip_errors(path):
        header = read_header(file)
        columns = ["row", "column"] if header.field == "pattern" else ["row", "column", "value"]
        kinds = {"row": np.int64, "column": np.int64, "value": np.float64, "more": str}
        try:
            entries = pd.read_csv(
                file.stream(returns_end_lines=False),
                sep=r"\s+",
                header=None,
                names=[*columns, "more"],
                index_col=False,
                dtype=kinds,
                quoting=csv.QUOTE_NONE,
                float_precision="round_trip",
            )
        except pd.errors.EmptyDataError:
            entries = pd.DataFrame({name: np.empty(0, kinds[name]) for name in [*columns, "more"]})
        except (ValueError, OverflowError) as error:
            reason = str(error).strip().removeprefix(TOKENIZING)
            msg = f"{path}: expected '{' '.join(columns)}' in every line below the sizes, found others ({reason})"
            raise ValueError(msg) from error
    _check_entries(path, header, entries)
    values = entries["value"] if "value" in entries else np.ones(len(entries))
    places = (entries["row"].to_numpy() - 1, entries["column"].to_numpy() - 1)
    return sparse.csr_array(sparse.coo_array((values, places), shape=(header.n_rows, header.n_columns)))


def _check_entries(path: Path, header: Header, entries: pd.DataFrame) -> None:
    """Refuse more or fewer entries than promised, entries of more fields, and such outside the matrix."""
    if len(entries) != header.n_entries:
        msg = f"{path} has {len(entries)} entries, but its header promises {header.n_entries}; is it cut off?"
        raise ValueError(msg)
    longer = np.flatnonzero(entries["more"].notna())
    if longer.size:
        msg = f"{path}, entry {longer[0] + 1}: expected {entries.shape[1] - 1} fields, found more"
        raise ValueError(msg)
    for name, size in (("row", header.n_rows), ("column", header.n_columns)):
        outside = np.flatnonzero(~entries[name].between(1, size))
        if outside.size:
            found = entries[name].iloc[outside[0]]
            msg = f"{path}, entry {outside[0] + 1}: the {name} index is not in 1 to {size}: {found}"
            raise ValueError(msg)


def read_header(file: TextFile) -> Header:
    """Read the header, the comments and the size line of a Matrix Market file.

    Raises
    ------
    ValueError
        If it is not the header of a coordinate matrix, general, of integers, reals or a pattern; or if the size line
        is malformed.
    """
    banner = file.read_line()
    words = banner.lower().split()
    place = f"{file.path}, line 1"
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        expected = "'%%MatrixMarket matrix coordinate integer general'"
        found = repr(banner[:60])
        note = "" if file.gzipped or file.path.suffix != ".gz" else " (the name says gzip, the content does not)"
        msg = f"{place}: expected a header like {expected}, found {found}{note}"
        raise ValueError(msg)
    layout, field, symmetry = words[2:]
    if layout != "coordinate":
        msg = f"{place}: expected a coordinate matrix, found {layout!r}; write it as a sparse matrix"
        raise ValueError(msg)
    if field not in FIELDS:
        msg = f"{place}: expected values of field integer, real or pattern, found {field!r}"
        raise ValueError(msg)
    if symmetry != "general":
        msg = f"{place}: expected a general matrix, found {symmetry!r}; counts of genes in cells have no symmetry"
        raise ValueError(msg)

    n_lines = 1
    while True:
        line = file.read_line()
        n_lines += 1
        if line and not line.startswith("%") and not line.isspace():
            break
        if not line and file.at_end():
            msg = f"{file.path} is truncated: it ends before its size line"
            raise ValueError(msg)
    sizes = line.split()
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        msg = f"{file.path}, line {n_lines}: expected 'rows columns entries', found {line[:60]!r}"
        raise ValueError(msg)
    n_rows, n_columns, n_entries = (int(size) for size in sizes)
    if max(n_rows, n_columns) > LARGEST_SIZE:
        msg = f"{file.path}, line {n_lines}: more than {LARGEST_SIZE} rows or columns are not supported: {line!r}"
        raise ValueError(msg)
    return Header(field, n_rows, n_columns, n_entries, n_lines)


def find_beside(matrix: Path, names: tuple[str, ...], what: str, option: str) -> Path:
    """Find a file of names beside a matrix; a prefix of the matrix's name, as GEO gives it, may stand before it.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    prefix = matrix.name.partition("matrix.mtx")[0] if "matrix.mtx" in matrix.name else ""
    for candidate in [matrix.with_name(prefix + name) for name in names] + [matrix.with_name(name) for name in names]:
        if candidate.is_file():
            return candidate
    way_out = f"give a file with a name on each line, {option}"
    msg = f"no {what} names beside {matrix}: looked for {', '.join(names)}; {way_out}"
    raise FileNotFoundError(msg)
