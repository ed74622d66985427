"""Where outputs may go."""

from pathlib import Path

from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.locations import is_local


def check_outside_stores(path: str | Path) -> None:
    """Refuse an output inside a Zarr store, which is not to be changed.

    Raises
    ------
    ValueError
        Naming the store.
    """
    for folder in Path(path).absolute().parents if is_local(path) else ():
        if is_store(folder):
            msg = f"{path} would lie inside the store {folder}; choose another place"
            raise ValueError(msg)
