"""What goes to stderr besides progress: errors and warnings, one line each."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

PROGRAM = "normalisr-dask"

# What the layers below raise for bad input and bad circumstances; their messages are written for users.
EXPECTED_ERRORS = (ValueError, TypeError, OSError, RuntimeError, ImportError)
QUIET_CATEGORIES = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ImportWarning, ResourceWarning)


def tell(kind: str, message: str) -> None:
    """Print one line to stderr.

    Parameters
    ----------
    kind
        Such as ``error``.
    message
        What happened; line breaks become spaces.
    """
    print(f"{PROGRAM}: {kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)


def describe(error: Exception) -> str:
    """Say in words what an exception means.

    Parameters
    ----------
    error
        Anything that a command raised.

    Returns
    -------
    str
        Its message; where it has none or was not meant for users, its kind and a way out, too.
    """
    if isinstance(error, MemoryError):
        return f"out of memory; use fewer workers or another machine ({error})"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, EXPECTED_ERRORS) and str(error):
        return str(error)
    return (
        f"{type(error).__name__}: {error}; this should not happen: please report it with what `{PROGRAM} --debug` adds"
    )


def log_to_stderr() -> None:
    """Tell on stderr, step by step, what this program does."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger(__package__.partition(".")[0])
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)


def ignore_abandoned_coroutines() -> None:
    """Filter out what Python says, up to its very end, of Zarr's coroutines when Ctrl-C has come between."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def ignore_further_failures() -> None:
    """Keep asyncio from telling of those of Zarr's writes that fail beside the one that the command tells of."""
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def ignore_failing_destructors() -> None:
    """Keep Python from telling of objects that a signal has left half made, and that fail as they go."""
    sys.unraisablehook = lambda _failure: None


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print Python's warnings as one line each, each text once; leave out what only programmers can act on."""
    seen: set[str] = set()

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
            tell("warning", str(message))

    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("always")
            for category in QUIET_CATEGORIES:
                warnings.simplefilter("ignore", category)
            ignore_abandoned_coroutines()
        warnings.showwarning = show
        yield
