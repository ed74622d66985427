"""Lists of names, one on each line, as Normalisr's commands read and write them; and other small text."""

import gzip
from collections.abc import Iterable
from pathlib import Path

from normalisr_dask.storage.text_file import TextFile

BLOCK_BYTES = 1 << 20


def read_name_list(path: Path) -> list[str]:
    """Read names; space around them and blank lines are dropped.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, damaged or no UTF-8.
    """
    with TextFile(path) as file:
        text = b"".join(block.text.tobytes() for block in file.blocks(BLOCK_BYTES))
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        msg = f"{path}, line {number}: expected names in UTF-8"
        raise ValueError(msg) from error
    names = [name for name in map(str.strip, lines) if name]
    if not names:
        msg = f"{path} names nothing: it has only blank lines"
        raise ValueError(msg)
    return names


def name_lines(names: Iterable[str]) -> str:
    """Return names as lines; the last one has no line end, as in normalisr's files."""
    return "\n".join(names)


def write_text(path: Path, text: str, *, gzipped: bool) -> None:
    """Write text."""
    content = text.encode()
    path.write_bytes(gzip.compress(content) if gzipped else content)
