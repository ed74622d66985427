"""Parsing rows of dense tables of counts."""

import numpy as np
import pytest

from normalisr_dask.kernels import matrix_market, text_matrix


def parse(text: str, n_values: int, separator: str = "\t"):
    block = np.frombuffer(text.encode(), dtype=np.uint8)
    room = len(block) // text_matrix.SHORTEST_VALUE
    rows, columns = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    counts = np.empty(room, dtype=np.uint32)
    n_entries, n_rows, n_lines, code, _ = text_matrix.parse_rows(block, ord(separator), n_values, rows, columns, counts)
    entries = list(zip(*(field[:n_entries].tolist() for field in (rows, columns, counts)), strict=True))
    return entries, n_rows, n_lines, code


def test_rows_give_their_entries_above_zero():
    text = "a\t0\t3\t 1.0 \r\n\nb\t0\t0\t0\n" + "c\t12\t0.0\t00\n"
    assert parse(text, 3) == ([(0, 1, 3), (0, 2, 1), (2, 0, 12)], 3, 4, matrix_market.PARSED)


def test_quoted_names_may_hold_the_separator():
    assert parse('"a,b",1,2\n"c",0,3\n', 2, ",")[0] == [(0, 0, 1), (0, 1, 2), (1, 1, 3)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("b\t1", text_matrix.TOO_FEW_VALUES),
        ("b", text_matrix.TOO_FEW_VALUES),
        ("b\t1\t2\t3", text_matrix.TOO_MANY_VALUES),
        ("b\t1\t-2", matrix_market.NEGATIVE),
        ("b\t1\t2.5", matrix_market.FRACTIONAL),
        ("b\t1\t5e9", matrix_market.TOO_LARGE),
        ("b\t1\tNA", matrix_market.UNPARSABLE),
        ("b\t\t2", matrix_market.UNPARSABLE),
        ("b\t1\t2x", matrix_market.UNPARSABLE),
        ("b\t1x\t2", matrix_market.UNPARSABLE),
    ],
)
def test_rows_that_are_no_counts_are_refused(line, code):
    assert parse(f"a\t1\t1\n{line}\nc\t1\t1\n", 2)[1:] == (1, 1, code)


def test_an_empty_block_has_no_rows():
    assert parse("", 3) == ([], 0, 0, matrix_market.PARSED)
