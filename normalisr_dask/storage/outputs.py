"""Where outputs may go."""

from pathlib import Path

from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.locations import is_local


def store_around(path: str | Path) -> Path | None:
    """Return the innermost Zarr store that a path lies inside, if there is one; at a URL none is looked for."""
    folders = Path(path).absolute().parents if is_local(path) else ()
    return next((folder for folder in folders if is_store(folder)), None)


def check_outside_stores(path: str | Path) -> None:
    """Refuse an output inside a Zarr store, which is not to be changed.

    Raises
    ------
    ValueError
        Naming the store.
    """
    folder = store_around(path)
    if folder is not None:
        msg = f"{path} would lie inside the store {folder}; choose another place"
        raise ValueError(msg)
