"""One writer at a time: the lock of an output folder.

The operating system gives a lock back when its process ends, however that ends, so that nothing is left to clear up. At
a URL there is none, and a lease takes its place.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from normalisr_dask.storage.leases import leased
from normalisr_dask.storage.locations import as_path, is_local

LOCK = ".lock"
#: Who holds the lock, for the message; a file of its own, since a locked one cannot be read everywhere.
HOLDER = ".lock.holder"


@contextmanager
def locked(folder: str | Path) -> Iterator[Callable[[], None]]:
    """Hold the lock of a folder, which is made where it is missing, until the block ends.

    Yields
    ------
    callable
        To be called before something is published: at a URL it raises RuntimeError if the lock was lost since.

    Raises
    ------
    FileNotFoundError
        If the folder is at a URL, and its bucket is missing.
    ValueError
        If another process holds it.
    """
    folder = as_path(folder)
    if not is_local(folder):
        with leased(folder) as still_held:
            yield still_held
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        msg = (
            f"another run is writing to {folder}{_holder(folder)}; wait until it has ended, or choose another output "
            "folder"
        )
        raise ValueError(msg) from error
    try:
        (folder / HOLDER).write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield lambda: None  # the operating system takes no lock back
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return f" ({(folder / HOLDER).read_text(encoding='utf-8')})"
    except OSError:  # it has just begun, or just ended
        return ""
