"""Lists of names."""

import gzip

import pytest

from normalisr_dask.storage.name_lists import name_lines, read_name_list, write_text


@pytest.mark.parametrize("gzipped", [False, True])
def test_names_are_stripped_and_written_as_normalisr_does(tmp_path, gzipped):
    path = tmp_path / "names.txt"
    write_text(path, "a\r\n\n  b c \nδ", gzipped=gzipped)
    assert (path.read_bytes()[:2] == gzip.compress(b"")[:2]) == gzipped
    assert read_name_list(path) == ["a", "b c", "δ"]
    assert name_lines(["a", "b"]) == "a\nb"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\n \n", "names nothing"), (b"a\nb\xff\n", "line 2: expected names in UTF-8"), (b"", "empty")],
)
def test_bad_lists_are_refused(tmp_path, content, message):
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_name_list(tmp_path / "names.txt")
