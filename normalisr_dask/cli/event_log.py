"""What a command does as JSON, one line an event, for programs that watch it: ``--log-json``."""

import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from normalisr_dask.cli.messages import PROGRAM, describe, tell
from normalisr_dask.storage.locations import as_path, is_local
from normalisr_dask.storage.outputs import store_around

#: What every event has.
KEYS = {"time", "event"}
#: Bytes in which the first line of a log ends.
FIRST_LINE = 10_000


class EventLog:
    """Lines of JSON, each with the time and the name of an event.

    Parameters
    ----------
    file
        Where they go, unbuffered, so that each line is there at once and whole; None for nowhere.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file

    def write(self, event: str, **values: Any) -> None:
        """Write a line; where that fails, say so once, and go on without the log."""
        if self._file is None:
            return
        line = json.dumps({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **values})
        try:
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            self._file = None
            tell("warning", f"--log-json: nothing more is logged: {error.strerror}")


@contextmanager
def event_log(path: str | None, command: str, output: str | None = None) -> Iterator[EventLog]:
    """Log that a command has started, what it warns of, and how it ends.

    Parameters
    ----------
    path
        File to add lines to; None for no log.
    command
        Name of the command.
    output
        What the command writes, where no log may be.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it holds something else than events, or would lie inside a store or the output.
    """
    if path is None:
        yield EventLog(None)
        return
    _check(path, output)
    with as_path(path).open("ab", buffering=0) as file:
        log, start = EventLog(file), time.perf_counter()
        log.write("started", command=command, version=version(PROGRAM), host=platform.node(), process=os.getpid())
        try:
            with _logged_warnings(log):
                yield log
        except BaseException as error:
            said = describe(error) if isinstance(error, Exception) else "interrupted"
            log.write("failed", error=" ".join(said.split()), seconds=_since(start))
            raise
        log.write("finished", seconds=_since(start))


def _check(path: str, output: str | None) -> None:
    """Refuse a file that is not for events, before anything is added to it: it may be an input."""
    if not is_local(path):
        msg = f"--log-json: {path} is a URL, expected a file of this machine"
        raise ValueError(msg)
    file = as_path(path).resolve()
    if not file.parent.is_dir():
        msg = f"--log-json: there is no folder {file.parent} for {path}; make it, or give another file"
        raise FileNotFoundError(msg)
    if file.is_dir():
        msg = f"--log-json: {path} is a folder, expected a file"
        raise ValueError(msg)
    store = store_around(file)
    if store is not None:
        msg = f"--log-json: {path} would lie inside the store {store}; give a file elsewhere"
        raise ValueError(msg)
    if output is not None and is_local(output) and as_path(output).resolve() in (file, *file.parents):
        msg = f"--log-json: {path} is where the command's own output goes, {output}; give a file elsewhere"
        raise ValueError(msg)
    if file.is_file() and not _holds_events(file):
        msg = f"--log-json: {path} holds something else than a log of earlier commands; give a new file, or such a log"
        raise ValueError(msg)


def _holds_events(path: Path) -> bool:
    """Whether a file is empty, or begins as a log does."""
    with path.open("rb") as file:
        line = file.readline(FIRST_LINE)
    try:
        event = json.loads(line) if line else dict.fromkeys(KEYS)
    except (ValueError, RecursionError):
        return False
    return isinstance(event, dict) and event.keys() >= KEYS


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 3)


@contextmanager
def _logged_warnings(log: EventLog) -> Iterator[None]:
    """Log the text of every warning, each once, besides showing it."""
    seen: set[str] = set()
    with warnings.catch_warnings():
        show_before = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if str(message) not in seen:
                seen.add(str(message))
                log.write("warning", message=" ".join(str(message).split()))
            show_before(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
