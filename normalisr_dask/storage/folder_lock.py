"""One writer at a time: the lock of an output folder.

The operating system gives a lock back when its process ends, however that ends, so that nothing is left to clear up.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK = ".lock"
#: Who holds the lock, for the message; a file of its own, since a locked one cannot be read everywhere.
HOLDER = ".lock.holder"


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made where it is missing, until the block ends.

    Raises
    ------
    ValueError
        If another process holds it.
    """
    folder = Path(folder)
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
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        return f" ({(folder / HOLDER).read_text(encoding='utf-8')})"
    except OSError:  # it has just begun, or just ended
        return ""
