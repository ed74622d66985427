"""Parsing entry lines of Matrix Market files."""

import numpy as np
import pytest

from normalisr_dask.kernels import matrix_market as kernel

LARGEST = kernel.LARGEST_COUNT


def parse(text: str, *, n_rows: int = 9, n_columns: int = 9, has_values: bool = True):
    block = np.frombuffer(text.encode(), dtype=np.uint8)
    room = len(block) // kernel.SHORTEST_LINE
    rows, columns = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    counts = np.empty(room, dtype=np.uint32)
    n_entries, n_lines, code, position = kernel.parse_entries(
        block, n_rows, n_columns, has_values, rows, columns, counts
    )
    entries = list(zip(*(field[:n_entries].tolist() for field in (rows, columns, counts)), strict=True))
    return entries, n_lines, code, position


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("-0", 0),
        ("7", 7),
        ("+7", 7),
        ("007", 7),
        ("7.", 7),
        ("7.0", 7),
        ("10", 10),
        ("1e0", 1),
        ("1.2e1", 12),
        ("120e-1", 12),
        ("1.200000000000000000000000000000e+01", 12),
        ("3.000000000000000e+03", 3000),
        ("0.0000000000000000000000000000e+00", 0),
        ("0.5e1", 5),
        ("00000000000000000000000000007", 7),
        (str(LARGEST), LARGEST),
        ("4.294967295E9", LARGEST),
        ("1000000000e0", 10**9),
    ],
)
def test_parse_count_reads_whole_numbers(text, count):
    block = np.frombuffer((text + "\n").encode(), dtype=np.uint8)
    assert kernel.parse_count(block, 0) == (count, len(text), kernel.PARSED)
    assert parse(f"1 1 {text}\n")[0] == [(0, 0, count)]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("-1", kernel.NEGATIVE),
        ("-0.5", kernel.NEGATIVE),
        ("0.5", kernel.FRACTIONAL),
        ("1e-1", kernel.FRACTIONAL),
        ("12.000000000000000001", kernel.FRACTIONAL),
        ("1e-999999999999", kernel.FRACTIONAL),
        (str(LARGEST + 1), kernel.TOO_LARGE),
        ("99999999999999999999999999999999999999999", kernel.TOO_LARGE),
        ("1e10", kernel.TOO_LARGE),
        ("1e99999999999999", kernel.TOO_LARGE),
        ("nan", kernel.UNPARSABLE),
        ("inf", kernel.UNPARSABLE),
        (".", kernel.UNPARSABLE),
        ("-", kernel.UNPARSABLE),
        ("1e", kernel.UNPARSABLE),
        ("1e+", kernel.UNPARSABLE),
        ("1.0.0", kernel.UNPARSABLE),
        ("0x10", kernel.UNPARSABLE),
        ("3 4", kernel.UNPARSABLE),
        ("", kernel.UNPARSABLE),
    ],
)
def test_parse_entries_refuses_values_that_are_no_counts(text, code):
    entries, n_lines, found, position = parse(f"1 1 2\n2 2 {text}\n3 3 3\n")
    assert (entries, n_lines, found) == ([(0, 0, 2)], 1, code)
    assert 6 <= position < 11 + len(text)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("0 1 1", kernel.ROW_OUT_OF_RANGE),
        ("10 1 1", kernel.ROW_OUT_OF_RANGE),
        ("18446744073709551617 1 1", kernel.ROW_OUT_OF_RANGE),  # 1 modulo 2⁶⁴
        ("1 0 1", kernel.COLUMN_OUT_OF_RANGE),
        ("1 10 1", kernel.COLUMN_OUT_OF_RANGE),
        ("-1 1 1", kernel.UNPARSABLE),
        ("1,1,1", kernel.UNPARSABLE),
        ("1 x 1", kernel.UNPARSABLE),
        ("1 1x1", kernel.UNPARSABLE),
        ("% no comments here", kernel.UNPARSABLE),
        ("1 1", kernel.UNPARSABLE),
        ("1", kernel.UNPARSABLE),
    ],
)
def test_parse_entries_refuses_bad_lines(line, code):
    assert parse(f"1 1 1\n\n{line}\n")[:3] == ([(0, 0, 1)], 2, code)


def test_parse_entries_takes_any_blanks_between_fields_and_lines():
    entries, n_lines, code, _ = parse("\n  1 \t 2   3  \r\n\r\n\t4\t5\t6\n \n")
    assert (entries, n_lines, code) == ([(0, 1, 3), (3, 4, 6)], 5, kernel.PARSED)


def test_parse_entries_of_a_pattern_gives_ones():
    assert parse("1 2\n3 4\n", has_values=False)[0] == [(0, 1, 1), (2, 3, 1)]
    assert parse("1 2 3\n", has_values=False)[2] == kernel.UNPARSABLE


def test_parse_entries_accepts_an_empty_block():
    assert parse("") == ([], 0, kernel.PARSED, 0)
