"""Matrices of numbers as text without names, tab-separated, gzipped or not: read and written some rows at a time."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from dask.system import CPU_COUNT
from isal import igzip_threaded
from numpy.typing import NDArray

from normalisr_dask.kernels import number_text as kernel
from normalisr_dask.storage.background import in_background, mapped_in_threads
from normalisr_dask.storage.text_file import NEWLINE, LineBlock, TextFile

BLOCK_BYTES = 1 << 22
#: Values that a thread formats at a time, 20 bytes of room for each.
BLOCK_VALUES = 1 << 18
THREADS = min(CPU_COUNT, 4)  # more parse and format faster than a disk takes
COMPRESSION = 3  # the highest of isal; formatting takes longer than any of its levels

REASONS = {
    kernel.TOO_FEW_VALUES: "expected {n_columns} numbers, as in the first row, found fewer",
    kernel.TOO_MANY_VALUES: "expected {n_columns} numbers, as in the first row, found more",
}


class _Parsed(NamedTuple):
    """Rows of a block; or the line in the block, from 0, that is none, and why."""

    values: NDArray[np.float64]
    n_lines: int
    problem: str | None


def read_rows(path: Path, *, block_bytes: int = BLOCK_BYTES) -> Generator[NDArray[np.float64], None, None]:
    """Read a matrix some rows at a time, parsed in threads; gzip is seen from the first bytes.

    Parameters
    ----------
    path
        Rows of numbers separated by tabs, without names. Blank lines and those that begin with # are passed over.
    block_bytes
        How much is read and parsed at a time, in bytes of text.

    Yields
    ------
    float64 (rows, columns)
        The next rows, at least one; as many columns in every block.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty or damaged, or a line is no row of as many numbers as the first.

    Notes
    -----
    Memory: some blocks of text and their values, whatever the size of the file, but at least some rows.
    """
    with TextFile(path) as file, closing(in_background(file.blocks(block_bytes))) as blocks:
        skipped: list[LineBlock] = []
        n_columns = 0
        for block in blocks:
            skipped.append(block)
            n_columns = _count_columns(block.text)
            if n_columns:
                break
        if not n_columns:
            msg = f"{path} holds no numbers, only blank lines"
            raise ValueError(msg)
        parse = partial(_parse, n_columns=n_columns)
        n_lines = 0
        with closing(mapped_in_threads(parse, chain(skipped, blocks), threads=THREADS)) as parsed:
            for values, n_block_lines, problem in parsed:
                if problem is not None:
                    msg = f"{path}, line {n_lines + n_block_lines + 1}: {problem}"
                    raise ValueError(msg)
                n_lines += n_block_lines
                if values.shape[0]:
                    yield values


def write_rows(path: Path, blocks: Iterable[NDArray[Any]], *, gzipped: bool) -> None:
    """Write a matrix some rows at a time, as NumPy's ``savetxt`` does with ``%.8G``, or ``%i`` for whole numbers.

    Parameters
    ----------
    path
        The file.
    blocks
        Rows of the matrix; a vector is written with a number on each line.
    gzipped
        Whether to compress.

    Notes
    -----
    Memory: a block and its text, some pieces of it once more.
    """
    opened = igzip_threaded.open(path, "wb", compresslevel=COMPRESSION, threads=THREADS) if gzipped else path.open("wb")
    with opened as stream, closing(mapped_in_threads(_format, _pieces(blocks), threads=THREADS)) as texts:
        for text in texts:
            stream.write(text)


def _count_columns(text: NDArray[np.uint8]) -> int:
    """Count the fields of the first line that is neither blank nor a comment; 0 if there is none."""
    start = 0
    for stop in np.flatnonzero(text == NEWLINE).tolist():
        line = text[start:stop].tobytes().strip(b" \r")
        if line and not line.startswith(b"#"):
            return line.count(b"\t") + 1
        start = stop + 1
    return 0


def _parse(block: LineBlock, *, n_columns: int) -> _Parsed:
    """Parse a block of lines."""
    text = block.text
    room = int(np.count_nonzero(text == ord("\t"))) + int(np.count_nonzero(text == NEWLINE))
    values, left = np.empty(room), np.empty((room, 3), dtype=np.int64)
    n_rows, n_lines, n_left, code, position = kernel.parse_rows(text, ord("\t"), n_columns, values, left)
    for index, start, stop in left[:n_left].tolist():
        field = text[start:stop].tobytes()
        try:
            values[index] = float(field.replace(b"_", b"no digit"))  # Python's own numbers may hold _, and no others
        except ValueError:
            found = field.decode(errors="replace")[:60]
            problem = f"expected a number, found {found!r}; matrices have no names of rows and columns"
            return _Parsed(values[:0].reshape(0, n_columns), int(np.count_nonzero(text[:start] == NEWLINE)), problem)
    of_rows = values[: n_rows * n_columns].reshape(n_rows, n_columns)
    if code == kernel.PARSED:
        return _Parsed(of_rows, n_lines, None)
    n_lines = int(np.count_nonzero(text[:position] == NEWLINE))
    return _Parsed(of_rows, n_lines, REASONS[code].format(n_columns=n_columns))


def _pieces(blocks: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Cut blocks into pieces of whole rows for a thread each."""
    for block in blocks:
        rows = block[:, np.newaxis] if block.ndim == 1 else block
        height = max(1, BLOCK_VALUES // max(1, rows.shape[1]))
        for start in range(0, rows.shape[0], height):
            yield rows[start : start + height]


def _format(rows: NDArray[Any]) -> memoryview:
    """Write rows as text."""
    n_columns = rows.shape[1]
    text = np.empty(rows.size * (kernel.LONGEST_NUMBER + 1), dtype=np.uint8)
    if rows.dtype.kind in "bui":
        end = kernel.format_integer_rows(rows.astype(np.int64).ravel(), n_columns, ord("\t"), text)
        return text[:end].data
    values = rows.astype(np.float64, copy=False).ravel()
    written, end = 0, 0
    while True:
        written, end = kernel.format_rows(values, written, n_columns, ord("\t"), text, end)
        if written == values.size:
            return text[:end].data
        number = b"%.8G" % values[written]
        written += 1
        field = number + (b"\n" if written % n_columns == 0 else b"\t")
        text[end : end + len(field)] = np.frombuffer(field, dtype=np.uint8)
        end += len(field)
