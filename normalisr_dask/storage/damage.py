"""What to say of a store or file that is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from normalisr_dask.storage.url_errors import UnreachableError, url_errors


def damaged(path: str | Path, what: str, way_out: str = "copy it again, or ingest it again") -> ValueError:
    """Return an error that says what is wrong with a store, and the way out."""
    return ValueError(f"{path} is damaged or incompletely copied: {what}; {way_out}")


@contextmanager
def reading(path: str | Path, what: str, way_out: str = "copy it again, or ingest it again") -> Iterator[None]:
    """Say of which store and part it is that Zarr, HDF5 or a codec finds no key, no JSON or no checksum.

    Parameters
    ----------
    path
        The store or file.
    what
        The part of it that the block reads, and nothing else.
    way_out
        What the user can do.

    Raises
    ------
    ValueError
        If the part is missing or cannot be read.
    UnreachableError
        As :func:`normalisr_dask.storage.url_errors.url_errors`.
    """
    try:
        with url_errors(path):
            yield
    except (UnreachableError, FileNotFoundError):
        raise
    except KeyError as error:
        raise damaged(path, f"{what} is missing", way_out) from error
    except (IndexError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition(". ")[0]  # Zarr's next sentences hold the bytes of checksums
        raise damaged(path, f"{what} cannot be read ({reason})", way_out) from error
