"""The text formats as a few lines of Python read them: slow, and written from the formats alone, to compare with.

Each raises ValueError (of which the errors of `int` and `Decimal` are, or are made) for what it cannot read.
"""

import csv
import gzip
import io
from collections import defaultdict
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import NamedTuple

Entries = dict[tuple[int, int], float]


class Table(NamedTuple):
    """Names of rows and columns, and the values between."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]


def plain_text(content: bytes) -> str:
    """Return the text of a file, gzipped or not."""
    return (gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content).decode(errors="replace")


def whole(field: str) -> int:
    """Return a count, however it is written."""
    try:
        number = Decimal(field)
        count = int(number)
    except (InvalidOperation, OverflowError) as error:
        raise ValueError(field) from error
    if number != count or count < 0:
        raise ValueError(field)
    return count


def index(text: str) -> int:
    """Return a position, from 0, of one that counts from 1; 3. is 3 for readers of any numbers."""
    if not float(text).is_integer():
        raise ValueError(text)
    return int(float(text)) - 1


def matrix_market(text: str, number: Callable[[str], float] = whole) -> Entries:
    """Return what a coordinate matrix has but 0 by row and column, from 0; the entries of one place are added up."""
    banner, *lines = text.split("\n")
    field = banner.split()[3].lower()
    lines = [line for line in lines if line.strip()]
    while lines[0].startswith("%"):
        lines.pop(0)
    n_rows, n_columns, n_entries = map(int, lines[0].split())
    if len(lines) - 1 != n_entries:
        raise ValueError(n_entries)
    entries: Entries = defaultdict(int)
    for line in lines[1:]:
        row, column, *value = line.split()
        place = index(row), index(column)
        if not (0 <= place[0] < n_rows and 0 <= place[1] < n_columns) or len(value) != (field != "pattern"):
            raise ValueError(line)
        entries[place] += number(value[0]) if value else 1
    return {place: value for place, value in entries.items() if value}


def count_table(text: str) -> Table:
    """Return a dense table of counts with names in its first line and column, separated by tabs or else commas."""
    lines = [line.strip("\r") for line in text.split("\n")]
    separator = "\t" if "\t" in lines[0] else ","
    header, *rows = (next(csv.reader([line], delimiter=separator)) for line in lines if line)
    columns = header if len(header) < len(rows[0]) else header[1:]
    if any(len(row) != len(columns) + 1 for row in rows):
        raise ValueError(text)
    return Table([row[0] for row in rows], columns, [list(map(whole, row[1:])) for row in rows])


def numbers(text: str) -> list[list[float]]:
    """Return rows of numbers separated by tabs."""
    lines = [line.strip(" \r") for line in text.split("\n")]
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    if any(len(row) != len(rows[0]) for row in rows):
        raise ValueError(text)
    return [list(map(float, row)) for row in rows]


def grouping_table(text: str) -> Table:
    """Return a table of cells × groupings, whose fields may be quoted."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter="\t")
    header, *rows = (row for row in lines if len(row) > 1 or "".join(row).strip(" "))
    truth = {"true": 1.0, "false": 0.0}
    rows = [row[:-1] if len(row) > len(header) and not row[-1] else row for row in rows]  # ends with a separator
    if any(len(row) != len(header) for row in rows):
        raise ValueError(text)
    values = [[truth[field.lower()] if field.lower() in truth else float(field) for field in row[1:]] for row in rows]
    return Table([row[0] for row in rows], header[1:], values)


def annotations(text: str) -> tuple[dict[str, set[str]], set[str]]:
    """Return the biological processes of every gene of a GAF file, but for lines without data, and all its genes."""
    processes: dict[str, set[str]] = defaultdict(set)
    genes = set()
    for line in text.split("\n"):
        if not line.strip("\r ") or line.startswith("!"):
            continue
        fields = line.split("\t")
        genes.add(fields[1])
        if fields[8] == "P" and fields[6] != "ND" and "not" not in fields[3].lower().split("|"):
            processes[fields[1]].add(fields[4])
    return dict(processes), genes
