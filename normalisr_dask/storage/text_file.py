"""Text files, gzipped or not, read as blocks of whole lines, with the errors of gzip told in words."""

import csv
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError

GZIP_MAGIC = b"\x1f\x8b"
GZIP_ERRORS: Any = (igzip.BadGzipFile, IsalError, zlib.error)  # isal types its error as an instance
LONGEST_LINE = 1 << 26
NEWLINE = ord("\n")
_LONE_RETURN = re.compile(rb"\r[^\n]")


class LineBlock(NamedTuple):
    """Whole lines of a file.

    Attributes
    ----------
    text
        uint8; ends with a newline, even where the file does not.
    bytes_done
        How far the file has been read, in bytes on disk.
    """

    text: np.ndarray
    bytes_done: int


class TextFile:
    """A text file opened for reading from its beginning; whether it is gzipped is seen from its first bytes.

    Raises
    ------
    FileNotFoundError
        If it does not exist.
    ValueError
        If it is empty or a folder; while reading, if its gzip stream is damaged or cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_file(path)
        self._raw = path.open("rb")
        self.gzipped = self._raw.peek(2)[:2] == GZIP_MAGIC
        self._stream: Any = igzip.IGzipFile(fileobj=self._raw, mode="rb") if self.gzipped else self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()
        self._raw.close()

    def read_line(self) -> str:
        """Read the next line, without its line end; empty at the end of the file, too."""
        with gzip_errors(self.path):
            line = self._stream.readline(LONGEST_LINE)
        return line.decode(errors="replace").rstrip("\r\n")

    def at_end(self) -> bool:
        """Whether everything has been read."""
        with gzip_errors(self.path):
            return not self._stream.peek(1)

    def stream(self, *, returns_end_lines: bool = True) -> io.BufferedReader:
        """Return what is left as bytes for readers of other libraries, some of which pass over what follows a NUL.

        Pandas ends lines at carriage returns, too. Where nothing else does, they are not to stand by themselves.

        To be read within `gzip_errors`; raises ValueError at a NUL and, if asked to, at such a return.
        """
        checked = _CheckedText(self._stream, self.path, returns_end_lines=returns_end_lines)
        return io.BufferedReader(checked, buffer_size=1 << 18)

    def blocks(self, block_bytes: int) -> Iterator[LineBlock]:
        """Read what is left as blocks of whole lines, of about `block_bytes` bytes each."""
        carried = np.empty(0, dtype=np.uint8)
        while True:
            buffer = np.empty(carried.shape[0] + block_bytes + 1, dtype=np.uint8)  # 1 for a last newline
            buffer[: carried.shape[0]] = carried
            with gzip_errors(self.path):
                n_read = self._stream.readinto(buffer[carried.shape[0] : -1].data)
            n_bytes = carried.shape[0] + n_read
            if n_read == 0:
                if n_bytes:
                    buffer[n_bytes] = NEWLINE
                    yield LineBlock(buffer[: n_bytes + 1], self._raw.tell())
                return
            end = _after_last_newline(buffer[:n_bytes])
            carried = buffer[end:n_bytes].copy()
            if carried.shape[0] > LONGEST_LINE:
                msg = f"{self.path} has a line of more than {LONGEST_LINE} bytes; it is no text file of lines"
                raise ValueError(msg)
            if end:
                yield LineBlock(buffer[:end], self._raw.tell())


class _CheckedText(io.RawIOBase):
    """A stream of text that ends with an error where it holds a NUL, or a carriage return in the middle of a line."""

    def __init__(self, stream: Any, path: Path, *, returns_end_lines: bool) -> None:
        self._stream, self._path, self._returns_end_lines = stream, path, returns_end_lines
        self._last = b""

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what fits."""
        n_read: int = self._stream.readinto(buffer)
        text = bytes(buffer[:n_read])
        if b"\0" in text:
            msg = f"{self._path} is no text: it holds a NUL byte; write it as UTF-8"
            raise ValueError(msg)
        if not self._returns_end_lines and _LONE_RETURN.search(self._last + text):
            msg = f"{self._path} holds a carriage return that ends no line; write its lines with newlines alone"
            raise ValueError(msg)
        self._last = text[-1:]
        return n_read


def check_file(path: Path) -> None:
    """Refuse what is missing, empty or no file."""
    if not path.exists():
        msg = f"{path} does not exist"
        raise FileNotFoundError(msg)
    if not path.is_file():
        msg = f"{path} is a folder, expected a file"
        raise ValueError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty"
        raise ValueError(msg)


def split_line(line: str, separator: str, path: Path) -> list[str]:
    """Return the fields of a line of names, some of them quoted.

    Raises
    ------
    ValueError
        If quotes do not close at the end of a field.
    """
    fields: list[str] | None = None
    with suppress(csv.Error):
        fields = next(csv.reader([line], delimiter=separator, strict=True))
    if fields is None or line.count('"') % 2:
        msg = f"{path}: the quotes of a field do not close where it ends: {line[:60]!r}"
        raise ValueError(msg)
    return fields


@contextmanager
def gzip_errors(path: Path) -> Iterator[None]:
    """Say which file is cut off or damaged."""
    try:
        yield
    except EOFError as error:
        msg = f"{path} is truncated: its gzip stream ends too early; copy or download it again"
        raise ValueError(msg) from error
    except GZIP_ERRORS as error:
        msg = f"{path} is damaged: its gzip stream cannot be read ({error}); copy or download it again"
        raise ValueError(msg) from error


def _after_last_newline(text: np.ndarray, *, step: int = 4096) -> int:
    """Position after the last newline, 0 if there is none; looks from the end."""
    for stop in range(text.shape[0], 0, -step):
        start = max(stop - step, 0)
        found = np.flatnonzero(text[start:stop] == NEWLINE)
        if found.shape[0]:
            return start + int(found[-1]) + 1
    return 0
