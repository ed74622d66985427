"""Readers of text: every legal writing is read, and of spoilt files none is read wrongly, hangs or ends in a crash."""

import gzip
from datetime import timedelta
from pathlib import Path

import plain_readers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader_checks import (
    CELLS,
    GENES,
    READERS,
    SCRAPS,
    check_count_table,
    check_groupings,
    check_matrix_market,
    check_numbers,
)

#: Far more than a small file takes, so that what takes longer hangs.
DEADLINE = timedelta(seconds=10)
line_ends = st.sampled_from(["\n", "\r\n"])
counts = st.integers(0, 2000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the files, after kernels have been compiled."""
    folder = tmp_path_factory.mktemp("files")
    for reader in READERS.values():
        assert all(reader.check(content, folder) for content in reader.files)
    return folder


@st.composite
def written(draw: st.DrawFn, count: int) -> str:
    """One of the ways to write a count."""
    ways = [f"{count}", f"+{count}", f"0{count}", f"{count}.", f"{count}.00", f"{count}e0", f"{count}0E-1"]
    return draw(st.sampled_from([*ways, f"{count:.3e}", f"{count / 10}e+01"]))


@st.composite
def packed(draw: st.DrawFn, text: str) -> bytes:
    """The bytes of a text; as they are, gzipped, or gzipped in two parts."""
    content = text.encode()
    middle = draw(st.integers(0, len(content)))
    parts = draw(st.sampled_from([[], [content], [content[:middle], content[middle:]]]))
    return b"".join(map(gzip.compress, parts)) or content


@st.composite
def matrix_market_files(draw: st.DrawFn) -> tuple[bytes, plain_readers.Entries]:
    """A matrix written with the liberties that the format leaves, and what is in it."""
    places = st.tuples(st.integers(0, len(GENES) - 1), st.integers(0, len(CELLS) - 1))
    entries = draw(st.lists(st.tuples(places, counts), max_size=8))
    end = draw(line_ends)
    notes = draw(st.lists(st.sampled_from(["%", "% a note", "%%", ""]), max_size=3))
    field = draw(st.sampled_from(["integer", "real", "Integer", "REAL"]))
    lines = [f"%%MatrixMarket matrix coordinate {field} general", *notes, f"{len(GENES)} {len(CELLS)} {len(entries)}"]
    for (gene, cell), count in entries:
        blank = draw(st.sampled_from([" ", "  ", "\t"]))
        before, after = draw(st.sampled_from([("", ""), (" ", ""), ("\t", " "), (f"{end} ", "")]))
        lines.append(f"{before}{gene + 1}{blank}{cell + 1}{blank}{draw(written(count))}{after}")
    expected: plain_readers.Entries = {}
    for place, count in entries:
        expected[place] = expected.get(place, 0) + count
    text = end.join(lines) + draw(st.sampled_from(["", end, end * 2]))
    return draw(packed(text)), {place: count for place, count in expected.items() if count}


@st.composite
def tables(draw: st.DrawFn, values: st.SearchStrategy, names: st.SearchStrategy) -> tuple[bytes, plain_readers.Table]:
    """A table of text, and what is in it."""
    end, quote = draw(line_ends), draw(st.sampled_from(["", '"']))
    rows = draw(st.lists(names, min_size=1, max_size=5, unique=True))
    columns = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    filled = [[draw(values) for _ in columns] for _ in rows]
    lines = [[f"{quote}{name}{quote}" for name in ("name", *columns)]]
    lines += [[f"{quote}{name}{quote}", *map(str, row)] for name, row in zip(rows, filled, strict=True)]
    text = end.join("\t".join(fields) for fields in lines) + draw(st.sampled_from(["", end]))
    return draw(packed(text)), plain_readers.Table(rows, columns, [list(map(float, row)) for row in filled])


words = st.text("abcXYZ019.-_/é ", min_size=1, max_size=6).filter(lambda name: name.strip() == name != "NA")


@settings(deadline=DEADLINE)
@given(file=matrix_market_files())
def test_every_writing_of_a_sparse_matrix(folder: Path, file: tuple[bytes, plain_readers.Entries]) -> None:
    content, expected = file
    assert plain_readers.matrix_market(plain_readers.plain_text(content)) == expected
    assert check_matrix_market(content, folder)


@settings(deadline=DEADLINE)
@given(file=tables(counts.flatmap(written), words))
def test_every_writing_of_a_table_of_counts(folder: Path, file: tuple[bytes, plain_readers.Table]) -> None:
    content, expected = file
    assert plain_readers.count_table(plain_readers.plain_text(content)) == expected
    assert check_count_table(content, folder)


@settings(deadline=DEADLINE)
@given(file=tables(st.floats(allow_nan=False, allow_infinity=False), words))
def test_every_writing_of_groupings(folder: Path, file: tuple[bytes, plain_readers.Table]) -> None:
    content, expected = file
    assert plain_readers.grouping_table(plain_readers.plain_text(content)) == expected
    assert check_groupings(content, folder)


@settings(deadline=DEADLINE)
@given(
    rows=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(st.floats(), min_size=width, max_size=width), min_size=1)
    ),
    end=line_ends,
    between=st.sampled_from(["", "# a note", " "]),
    data=st.data(),
)
def test_every_writing_of_numbers(folder: Path, rows: list[list[float]], end: str, between: str, data) -> None:
    ways = st.sampled_from(["{!r}", " {!r} ", "{:.17g}", "{:+.20e}", "{:.17E}"])
    lines = ["\t".join(data.draw(ways).format(value) for value in row) for row in rows]
    text = f"{end}{between}{end}".join(lines) + data.draw(st.sampled_from(["", end]))
    assert check_numbers(data.draw(packed(text)), folder)


@st.composite
def spoilt(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A good file with a few bytes changed, lost, added or repeated."""
    content = bytearray(draw(st.sampled_from(files)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.integers(1, 12)))
        change = draw(st.sampled_from(["flip", "lose", "cut", "add", "repeat"]))
        if change == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "lose":
            del content[start:stop]
        elif change == "cut":
            del content[start:]
        elif change == "add":
            content[start:start] = draw(st.sampled_from(SCRAPS))
        else:
            content[start:start] = content[start:stop]
    return bytes(content)


@pytest.mark.parametrize("name", READERS)
@settings(deadline=DEADLINE)
@given(data=st.data())
def test_spoilt_files_are_refused_or_read_as_they_stand(folder: Path, name: str, data: st.DataObject) -> None:
    READERS[name].check(data.draw(spoilt(READERS[name].files)), folder)
