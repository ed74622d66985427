"""What to say of a store or file that is damaged."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import zarr

from normalisr_dask.storage.locations import stored_chunks
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


def check_chunks(array: zarr.Array, path: str | Path, what: str, way_out: str) -> None:
    """Check that all chunks of an array of ours are stored: Zarr would read one that is not as zeros.

    Parameters
    ----------
    array
        Written with :data:`normalisr_dask.storage.locations.ALL_CHUNKS`.
    path
        The store.
    what
        Where the array lies in it; empty if it is the store.
    way_out
        What the user can do.

    Raises
    ------
    ValueError
        If a chunk is missing, or the list of them cannot be read.
    """
    with reading(path, what or "the list of its chunks", way_out):
        present = stored_chunks(array)
    if not present.all():
        first = array.metadata.encode_chunk_key(tuple(np.argwhere(~present)[0].tolist()))
        raise damaged(path, f"{what}/{first} is missing".lstrip("/"), way_out)
