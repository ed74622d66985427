"""Numbers as text: lines of separated numbers to float64, and back with eight significant digits.

Powers of ten are sums of two doubles, which leaves an error of some 2⁻¹⁰⁰ in a product. Where that could decide how a
number is rounded, the kernels leave the number to their caller, so that every result is the correctly rounded one.
"""

import math
from fractions import Fraction
from typing import Final

import numpy as np
from numba import njit

PARSED: Final = 0
TOO_FEW_VALUES: Final = 1
TOO_MANY_VALUES: Final = 2

LONGEST_NUMBER: Final = 20  # bytes of "-1.2345678E-300\t", and of the longest int64

_DIGITS: Final = 8
_SMALLEST: Final = 10 ** (_DIGITS - 1)
_LARGEST: Final = 10**_DIGITS
_LARGEST_POWER: Final = 290  # beyond, products may leave the range of normal numbers
_LARGEST_MANTISSA: Final = 2**53
_SAFE_DIGITS: Final = 18  # decimal digits that fit in int64
_SPLITTER: Final = 134217729.0  # 2²⁷ + 1, after Veltkamp
_CLOSE: Final = 1e-12  # to a tie, relative to the last digit written
_UNSURE: Final = 2.0**-95

_TAB: Final = 9
_NEWLINE: Final = 10
_RETURN: Final = 13
_SPACE: Final = 32
_HASH: Final = 35
_PLUS: Final = 43
_MINUS: Final = 45
_POINT: Final = 46
_ZERO: Final = 48
_UPPER_E: Final = 69
_LOWER_E: Final = 101

_POWERS = [Fraction(10) ** exponent for exponent in range(-_LARGEST_POWER, _LARGEST_POWER + 1)]
_POWER_HIGH = np.array([float(power) for power in _POWERS])
_POWER_LOW = np.array([float(power - Fraction(float(power))) for power in _POWERS])


@njit(nogil=True, cache=True)
def parse_rows(
    text: np.ndarray, separator: int, n_values: int, values: np.ndarray, left: np.ndarray
) -> tuple[int, int, int, int, int]:
    """Parse a block of lines, each of `n_values` numbers; blank lines and those that begin with # are passed over.

    Parameters
    ----------
    text
        Whole lines as bytes, uint8; the last byte, if there is one, is a newline.
    separator
        Byte between the numbers; spaces around it are passed over.
    n_values
        Numbers in each line.
    values
        Filled, row after row, float64; room for as many values as there are separators and line ends in `text`.
    left
        Filled with (position in `values`, first byte, byte after the last) of every field that is left to the caller,
        int64; as much room.

    Returns
    -------
    n_rows, n_lines, n_left, code, position
        Rows and lines passed, fields left, and `PARSED`, or why and at which byte the next line was refused.
    """
    n_rows = 0
    n_lines = 0
    n_left = 0
    index = 0
    position = 0
    while position < text.shape[0]:
        if text[position] == _NEWLINE:
            n_lines += 1
            position += 1
            continue
        if text[position] == _RETURN or (text[position] == _SPACE and separator != _SPACE):
            position += 1
            continue
        if text[position] == _HASH:
            while text[position] != _NEWLINE:
                position += 1
            continue
        for column in range(n_values):
            if column:
                if text[position] != separator:
                    return n_rows, n_lines, n_left, TOO_FEW_VALUES, position
                position += 1
            start = position
            value, position, good = _parse_number(text, position)
            while text[position] == _SPACE and separator != _SPACE:
                position += 1
            ends = text[position] == separator or text[position] == _NEWLINE or text[position] == _RETURN
            if not (good and ends):
                while text[position] != separator and text[position] != _NEWLINE and text[position] != _RETURN:
                    position += 1
                left[n_left, 0] = index
                left[n_left, 1] = start
                left[n_left, 2] = position
                n_left += 1
            values[index] = value
            index += 1
        while text[position] == _RETURN:
            position += 1
        if text[position] != _NEWLINE:
            return n_rows, n_lines, n_left, TOO_MANY_VALUES, position
        n_rows += 1
    return n_rows, n_lines, n_left, PARSED, position


@njit(nogil=True, cache=True)
def _parse_number(text: np.ndarray, position: int) -> tuple[float, int, bool]:
    """Read a number; gives it, the position after it, and whether it is sure."""
    while text[position] == _SPACE:
        position += 1
    negative = text[position] == _MINUS
    if negative or text[position] == _PLUS:
        position += 1
    mantissa = 0
    exponent = 0
    n_digits = 0
    n_significant = 0
    in_fraction = False
    while True:
        digit = int(np.int64(text[position])) - _ZERO
        if 0 <= digit < 10:
            n_digits += 1
            n_significant += mantissa > 0 or digit > 0
            if n_significant <= _SAFE_DIGITS:
                mantissa = 10 * mantissa + digit
            exponent -= in_fraction
        elif text[position] == _POINT and not in_fraction:
            in_fraction = True
        else:
            break
        position += 1
    good = n_digits > 0 and n_significant <= _SAFE_DIGITS
    if good and (text[position] == _LOWER_E or text[position] == _UPPER_E):
        position += 1
        sign = -1 if text[position] == _MINUS else 1
        if text[position] == _MINUS or text[position] == _PLUS:
            position += 1
        first_digit = position
        power = 0
        while _ZERO <= text[position] < _ZERO + 10:
            power = min(10 * power + int(np.int64(text[position])) - _ZERO, 10**6)
            position += 1
        good = position > first_digit
        exponent += sign * power
    value = 0.0
    if good and mantissa > 0:
        good = abs(exponent) <= _LARGEST_POWER
        if good:
            value, good = _times_power(mantissa, exponent)
    return -value if negative else value, position, good


@njit(nogil=True, cache=True)
def _times_power(mantissa: int, exponent: int) -> tuple[float, bool]:
    """Multiply a whole number by a power of ten; gives the product, and whether its rounding is sure."""
    value = float(mantissa)
    if mantissa <= _LARGEST_MANTISSA and -22 <= exponent <= 22:  # both factors are exact
        if exponent < 0:
            return value / _POWER_HIGH[_LARGEST_POWER - exponent], True
        return value * _POWER_HIGH[_LARGEST_POWER + exponent], True
    high, low = _product(value, float(mantissa - int(value)), exponent)
    slack = high * _UNSURE
    return high, high + (low + slack) == high and high + (low - slack) == high


@njit(nogil=True, cache=True)
def _product(value: float, rest: float, exponent: int) -> tuple[float, float]:
    """Multiply value + rest by a power of ten, both pairs of which the second is less than the first's rounding error.

    The product is such a pair, too.
    """
    power = _POWER_HIGH[exponent + _LARGEST_POWER]
    high = value * power
    split = _SPLITTER * value
    value_high = split - (split - value)
    value_low = value - value_high
    scaled = power * 2.0**-28 if power > 2.0**900 else power  # so that splitting does not overflow
    split = _SPLITTER * scaled
    power_high = split - (split - scaled)
    if power > 2.0**900:
        power_high *= 2.0**28
    power_low = power - power_high
    low = ((value_high * power_high - high) + value_high * power_low + value_low * power_high) + value_low * power_low
    low += value * _POWER_LOW[exponent + _LARGEST_POWER] + rest * power
    total = high + low
    return total, low - (total - high)


@njit(nogil=True, cache=True)
def format_rows(
    values: np.ndarray, first: int, n_columns: int, separator: int, text: np.ndarray, position: int
) -> tuple[int, int]:
    """Write float64 as C's ``%.8G`` does, until all are written or one is left to the caller.

    Parameters
    ----------
    values
        Row after row, flat.
    first
        Position of the first value to write.
    n_columns
        Values in a line.
    separator
        Byte between values.
    text
        Filled, uint8; room for `LONGEST_NUMBER` bytes a value.
    position
        Where to begin in `text`.

    Returns
    -------
    next, position
        Position of the value that is left to the caller, or how many there are; and where the text ends.
    """
    for index in range(first, values.shape[0]):
        value = values[index]
        size = abs(value)
        if not size < math.inf:
            return index, position
        if value < 0 or (value == 0 and math.copysign(1.0, value) < 0):
            text[position] = _MINUS
            start = position
            position += 1
        else:
            start = position
        if size == 0:
            text[position] = _ZERO
            position += 1
        else:
            digits, exponent = _eight_digits(size)
            if digits == 0:
                return index, start
            position = _write_number(digits, exponent, text, position)
        text[position] = _NEWLINE if (index + 1) % n_columns == 0 else separator
        position += 1
    return values.shape[0], position


@njit(nogil=True, cache=True)
def _eight_digits(size: float) -> tuple[int, int]:
    """Return the first eight digits of a positive number and the power of ten of the first; 0 if they are not sure."""
    exponent = math.floor(math.log10(size))
    for _ in range(2):  # the logarithm may be off by one
        power = _DIGITS - 1 - exponent
        if abs(power) > _LARGEST_POWER:
            return 0, 0
        high, low = _product(size, 0.0, power)
        whole = math.floor(high)
        fraction = (high - whole) + low
        if abs(fraction - 0.5) < _CLOSE or abs(fraction + 0.5) < _CLOSE:
            return 0, 0
        digits = int(whole) + (1 if fraction > 0.5 else 0)
        if high < _SMALLEST:
            exponent -= 1
        elif high >= _LARGEST:
            exponent += 1
        elif digits == _LARGEST:
            return _SMALLEST, exponent + 1
        else:
            return digits, exponent
    return 0, 0


@njit(nogil=True, cache=True)
def _write_number(digits: int, exponent: int, text: np.ndarray, position: int) -> int:
    """Write eight digits, without zeros at their end, as a decimal fraction or with an exponent."""
    n_digits = _DIGITS
    while digits % 10 == 0:
        digits //= 10
        n_digits -= 1
    scientific = exponent < -4 or exponent >= _DIGITS
    before_point = 1 if scientific else exponent + 1
    if before_point <= 0:
        text[position] = _ZERO
        text[position + 1] = _POINT
        position += 2
        for _ in range(-before_point):
            text[position] = _ZERO
            position += 1
        position = _write_digits(digits, n_digits, text, position)
    elif n_digits <= before_point:
        position = _write_digits(digits, n_digits, text, position)
        for _ in range(before_point - n_digits):
            text[position] = _ZERO
            position += 1
    else:
        after = 1
        for _ in range(n_digits - before_point):
            after *= 10
        position = _write_digits(digits // after, before_point, text, position)
        text[position] = _POINT
        position = _write_digits(digits % after, n_digits - before_point, text, position + 1)
    if scientific:
        text[position] = _UPPER_E
        text[position + 1] = _MINUS if exponent < 0 else _PLUS
        size = abs(exponent)
        position = _write_digits(size, 3 if size >= 100 else 2, text, position + 2)
    return position


@njit(nogil=True, cache=True)
def _write_digits(digits: int, n_digits: int, text: np.ndarray, position: int) -> int:
    for place in range(position + n_digits - 1, position - 1, -1):
        text[place] = _ZERO + digits % 10
        digits //= 10
    return position + n_digits


@njit(nogil=True, cache=True)
def format_integer_rows(values: np.ndarray, n_columns: int, separator: int, text: np.ndarray) -> int:
    """Write whole numbers.

    Parameters
    ----------
    values
        Row after row, flat, int64; not the smallest one.
    n_columns
        Values in a line.
    separator
        Byte between values.
    text
        Filled, uint8; room for `LONGEST_NUMBER` + 1 bytes a value.

    Returns
    -------
    int
        Where the text ends.
    """
    position = 0
    for index in range(values.shape[0]):
        value = values[index]
        if value < 0:
            text[position] = _MINUS
            position += 1
            value = -value
        n_digits = 1
        rest = value // 10
        while rest > 0:
            n_digits += 1
            rest //= 10
        position = _write_digits(value, n_digits, text, position)
        text[position] = _NEWLINE if (index + 1) % n_columns == 0 else separator
        position += 1
    return position
