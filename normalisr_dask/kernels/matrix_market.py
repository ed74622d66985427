"""Parsing of the entry lines of a Matrix Market file: one block of whole lines in, arrays out."""

from typing import Final

import numpy as np
from numba import njit

# Why a line was refused. Plain integers, because the kernels return them.
PARSED: Final = 0
UNPARSABLE: Final = 1
ROW_OUT_OF_RANGE: Final = 2
COLUMN_OUT_OF_RANGE: Final = 3
NEGATIVE: Final = 4
FRACTIONAL: Final = 5
TOO_LARGE: Final = 6

LARGEST_COUNT: Final = 2**32 - 1
SHORTEST_LINE: Final = 4  # bytes of "1 1\n", so a block of n bytes has at most n // 4 entries

_TAB: Final = 9
_NEWLINE: Final = 10
_RETURN: Final = 13
_SPACE: Final = 32
_PLUS: Final = 43
_MINUS: Final = 45
_POINT: Final = 46
_ZERO: Final = 48
_LOWER_E: Final = 101
_UPPER_E: Final = 69
_SAFE_DIGITS: Final = 18  # decimal digits that fit in int64


@njit(nogil=True, cache=True)
def _digit(text: np.ndarray, position: int) -> int:
    """Value of a digit; below 0 or above 9 if there is none."""
    return int(np.int64(text[position])) - _ZERO


@njit(nogil=True, cache=True)
def parse_count(text: np.ndarray, start: int) -> tuple[int, int, int]:
    """Read one count, as an integer or as a decimal number with a whole value.

    Parameters
    ----------
    text
        Bytes, uint8; something that is no digit must follow the number.
    start
        Where the number begins.

    Returns
    -------
    count, stop, code
        The count, the position after the number, and `PARSED` or why it is no count.
    """
    position = start
    negative = text[position] == _MINUS
    if negative or text[position] == _PLUS:
        position += 1
    mantissa = 0
    exponent = 0
    n_digits = 0  # seen in all
    n_zeros = 0  # zeros held back: at the end of a fraction they change nothing
    in_fraction = False
    overflow = False
    while True:
        digit = _digit(text, position)
        if 0 <= digit < 10:
            n_digits += 1
            if in_fraction:
                exponent -= 1
            if digit == 0:
                n_zeros += 1
            else:
                for _ in range(n_zeros + 1):
                    mantissa *= 10
                    overflow |= mantissa > 10**17
                    mantissa = min(mantissa, 10**17)
                mantissa += digit
                n_zeros = 0
        elif text[position] == _POINT and not in_fraction:
            in_fraction = True
        else:
            break
        position += 1
    if n_digits == 0:
        return 0, position, UNPARSABLE
    exponent += n_zeros

    if text[position] == _LOWER_E or text[position] == _UPPER_E:
        position += 1
        sign = -1 if text[position] == _MINUS else 1
        if text[position] == _MINUS or text[position] == _PLUS:
            position += 1
        first_digit = position
        power = 0
        while 0 <= _digit(text, position) < 10:
            power = min(10 * power + _digit(text, position), 10**6)
            position += 1
        if position == first_digit:
            return 0, position, UNPARSABLE
        exponent += sign * power

    if mantissa == 0:
        return 0, position, PARSED
    if negative:
        return 0, position, NEGATIVE
    if exponent < 0:  # the last digit of the mantissa is not 0
        return 0, position, FRACTIONAL
    if overflow or exponent >= _SAFE_DIGITS:
        return 0, position, TOO_LARGE
    for _ in range(exponent):
        mantissa = min(mantissa * 10, LARGEST_COUNT + 1)
    if mantissa > LARGEST_COUNT:
        return 0, position, TOO_LARGE
    return mantissa, position, PARSED


@njit(nogil=True, cache=True)
def parse_entries(
    text: np.ndarray,
    n_rows: int,
    n_columns: int,
    has_values: bool,  # noqa: FBT001
    rows: np.ndarray,
    columns: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int, int, int]:
    """Parse a block of entry lines, ``row column [value]`` with indices from 1; blank lines are passed over.

    Parameters
    ----------
    text
        Whole lines as bytes, uint8; the last byte, if there is one, is a newline.
    n_rows, n_columns
        Shape of the matrix.
    has_values
        Whether lines carry a value; if not (field ``pattern``), each count is 1.
    rows, columns, counts
        Filled: indices from 0 (int32) and counts (uint32); room for ``len(text) // SHORTEST_LINE`` each.

    Returns
    -------
    n_entries, n_lines, code, position
        Entries parsed, lines passed, and `PARSED`, or why and at which byte the next line was refused.
    """
    n_entries = 0
    n_lines = 0
    position = 0
    while position < text.shape[0]:
        if text[position] == _NEWLINE:
            n_lines += 1
            position += 1
            continue
        if text[position] == _SPACE or text[position] == _TAB or text[position] == _RETURN:
            position += 1
            continue

        row = 0
        start = position
        while 0 <= _digit(text, position) < 10:
            row = 10 * row + _digit(text, position)
            position += 1
        if position == start or not (text[position] == _SPACE or text[position] == _TAB):
            return n_entries, n_lines, UNPARSABLE, start
        if row < 1 or row > n_rows or position - start > _SAFE_DIGITS:
            return n_entries, n_lines, ROW_OUT_OF_RANGE, start
        while text[position] == _SPACE or text[position] == _TAB:
            position += 1

        column = 0
        start = position
        while 0 <= _digit(text, position) < 10:
            column = 10 * column + _digit(text, position)
            position += 1
        if position == start:
            return n_entries, n_lines, UNPARSABLE, start
        if column < 1 or column > n_columns or position - start > _SAFE_DIGITS:
            return n_entries, n_lines, COLUMN_OUT_OF_RANGE, start

        count = 1
        if has_values:
            if not (text[position] == _SPACE or text[position] == _TAB):
                return n_entries, n_lines, UNPARSABLE, position
            while text[position] == _SPACE or text[position] == _TAB:
                position += 1
            start = position
            count = 0
            while 0 <= _digit(text, position) < 10:
                count = 10 * count + _digit(text, position)
                position += 1
            plain = position > start and text[position] <= _SPACE and position - start <= _SAFE_DIGITS
            if not plain or count > LARGEST_COUNT:
                count, position, code = parse_count(text, start)
                if code != PARSED:
                    return n_entries, n_lines, code, start

        while text[position] == _SPACE or text[position] == _TAB or text[position] == _RETURN:
            position += 1
        if text[position] != _NEWLINE:
            return n_entries, n_lines, UNPARSABLE, position
        rows[n_entries] = row - 1
        columns[n_entries] = column - 1
        counts[n_entries] = count
        n_entries += 1
    return n_entries, n_lines, PARSED, position
