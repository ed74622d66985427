"""Parsing of dense tables of counts: one block of whole lines in, the entries above 0 out."""

from typing import Final

import numpy as np
from numba import njit

from normalisr_dask.kernels.matrix_market import PARSED, UNPARSABLE, parse_count

TOO_FEW_VALUES: Final = 11
TOO_MANY_VALUES: Final = 12
SHORTEST_VALUE: Final = 2  # bytes of "1\t", so a block of n bytes has at most n // 2 values

_NEWLINE: Final = 10
_RETURN: Final = 13
_SPACE: Final = 32
_QUOTE: Final = 34
_SMALL_ZERO: Final = 48


@njit(nogil=True, cache=True)
def parse_rows(
    text: np.ndarray,
    separator: int,
    n_values: int,
    rows: np.ndarray,
    columns: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int, int, int, int]:
    """Parse a block of lines, each a name and `n_values` counts; blank lines are passed over.

    Parameters
    ----------
    text
        Whole lines as bytes, uint8; the last byte, if there is one, is a newline.
    separator
        Byte between the fields.
    n_values
        Number of counts in each line.
    rows, columns, counts
        Filled with the entries above 0: row and column from 0 (int32), count (uint32); room for
        ``len(text) // SHORTEST_VALUE`` each.

    Returns
    -------
    n_entries, n_rows, n_lines, code, position
        Entries above 0, rows and lines passed, and `PARSED`, or why and at which byte the next line was refused.
    """
    n_entries = 0
    n_rows = 0
    n_lines = 0
    position = 0
    while position < text.shape[0]:
        if text[position] == _NEWLINE or text[position] == _RETURN:
            n_lines += text[position] == _NEWLINE
            position += 1
            continue
        if text[position] == _QUOTE:  # a quoted name may hold the separator
            position += 1
            while text[position] != _QUOTE and text[position] != _NEWLINE:
                position += 1
        while text[position] != separator and text[position] != _NEWLINE:
            position += 1
        for column in range(n_values):
            if text[position] == _NEWLINE or text[position] == _RETURN:
                return n_entries, n_rows, n_lines, TOO_FEW_VALUES, position
            if text[position] != separator:
                return n_entries, n_rows, n_lines, UNPARSABLE, position
            position += 1
            while text[position] == _SPACE:
                position += 1
            if text[position] == _SMALL_ZERO and (text[position + 1] == separator or text[position + 1] == _NEWLINE):
                position += 1
                continue
            start = position
            count, position, code = parse_count(text, start)
            if code != PARSED:
                return n_entries, n_rows, n_lines, code, start
            while text[position] == _SPACE:
                position += 1
            if count > 0:
                rows[n_entries] = n_rows
                columns[n_entries] = column
                counts[n_entries] = count
                n_entries += 1
        if text[position] == separator:
            return n_entries, n_rows, n_lines, TOO_MANY_VALUES, position
        if text[position] == _RETURN:
            position += 1
        if text[position] != _NEWLINE:
            return n_entries, n_rows, n_lines, UNPARSABLE, position
        n_rows += 1
    return n_entries, n_rows, n_lines, PARSED, position
