"""Numbers become text as C's %.8G makes it, and text becomes the number that Python reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from normalisr_dask.kernels import number_text as kernel

TAB = ord("\t")


def formatted(values: np.ndarray, n_columns: int) -> tuple[str, int]:
    """The text of the values, those that the kernel leaves formatted by Python; and how many it left."""
    text = np.empty(values.size * (kernel.LONGEST_NUMBER + 1), dtype=np.uint8)
    parts, n_left, first = [], 0, 0
    while True:
        stopped, end = kernel.format_rows(values, first, n_columns, TAB, text, 0)
        parts.append(text[:end].tobytes().decode())
        if stopped == values.size:
            return "".join(parts), n_left
        first = stopped + 1
        n_left += 1
        parts.append(f"{values[stopped]:.8G}" + ("\n" if first % n_columns == 0 else "\t"))


def parsed(text: str, n_columns: int) -> tuple[np.ndarray, int]:
    """The numbers of the text, and how many the kernel left to Python."""
    block = np.frombuffer(text.encode(), dtype=np.uint8)
    values, left = np.empty(block.size), np.empty((block.size, 3), dtype=np.int64)
    n_rows, _, n_left, code, _ = kernel.parse_rows(block, TAB, n_columns, values, left)
    assert code == kernel.PARSED
    for index, start, stop in left[:n_left].tolist():
        values[index] = float(text[start:stop])
    return values[: n_rows * n_columns], n_left


def lines(values: np.ndarray, form: str) -> str:
    return "".join(f"{value:{form}}\n" for value in values)


@given(st.lists(st.floats(), min_size=1))
def test_any_number_is_written_and_read_exactly(numbers):
    values = np.array(numbers)
    text, _ = formatted(values, 1)
    assert text == lines(values, ".8G")
    np.testing.assert_array_equal(parsed(lines(values, ".17g"), 1)[0], values)
    np.testing.assert_array_equal(parsed(text, 1)[0], [float(line) for line in text.split()])


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=20_000),
        10 ** np.random.default_rng(1).uniform(-280, 0, size=20_000),
        np.concatenate([factor * 10.0 ** np.arange(-280, 280) for factor in (1, 3, 9.99999994, 9.99999996)]),
        np.nextafter(10.0 ** np.arange(-280, 280), 0),
        np.arange(-20_000, 20_000) / 8,
    ],
    ids=["usual", "p-values", "powers", "below powers", "eighths"],
)
def test_what_matrices_hold_is_hardly_ever_left_to_python(values):
    text, n_formatted = formatted(values, 1)
    assert text == lines(values, ".8G")
    exact, n_parsed = parsed(lines(values, ".17g"), 1)
    np.testing.assert_array_equal(exact, values)
    np.testing.assert_array_equal(parsed(text, 1)[0], [float(line) for line in text.split()])
    assert max(n_formatted, n_parsed) <= 0.1 * values.size


def test_ties_are_left_to_python_and_rounded_to_even():
    values = np.array([12345678.5, 12345679.5, 0.125, 99999999.5])
    assert formatted(values, 2) == ("12345678\t12345680\n0.125\t1E+08\n", 3)


def test_rows_with_spaces_comments_and_line_ends_of_all_kinds():
    text = "# a comment\n\n1\t2\r\n \n 3\t +4.5 \n-.5\t1e2\n"
    np.testing.assert_array_equal(parsed(text, 2)[0], [1, 2, 3, 4.5, -0.5, 100])


def test_what_is_no_number_is_left():
    assert parsed("nan\t-inf\t1_0\n", 3)[1] == 3
    assert parsed("1\t12345678901234567890123\n", 2)[1] == 1


@pytest.mark.parametrize(
    ("text", "code", "rows_before"), [("1\t2\n3\n", kernel.TOO_FEW_VALUES, 1), ("1\t2\t3\n", kernel.TOO_MANY_VALUES, 0)]
)
def test_rows_of_another_length_are_refused(text, code, rows_before):
    block = np.frombuffer(text.encode(), dtype=np.uint8)
    outcome = kernel.parse_rows(block, TAB, 2, np.empty(block.size), np.empty((block.size, 3), dtype=np.int64))
    assert (outcome[0], outcome[3]) == (rows_before, code)


def test_whole_numbers():
    values = np.array([0, 7, -10, 2**63 - 1, -(2**63 - 1), 100], dtype=np.int64)
    text = np.empty(values.size * (kernel.LONGEST_NUMBER + 1), dtype=np.uint8)
    end = kernel.format_integer_rows(values, 3, TAB, text)
    assert text[:end].tobytes() == b"0\t7\t-10\n9223372036854775807\t-9223372036854775807\t100\n"


def test_no_rows():
    assert formatted(np.empty(0), 3) == ("", 0)
    assert parsed("", 3)[0].size == 0
