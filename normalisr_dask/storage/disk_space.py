"""What to say when a disk is full."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from normalisr_dask.storage.locations import is_local

#: No space left, no quota left, and a file larger than this process or file system may write.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full_errors(folder: str | Path, afterwards: str) -> Iterator[None]:
    """Say which disk is full, and how things stand, where the block fails for want of space.

    That is the disk of the file that could not be made, if the error names one elsewhere, such as a temporary one.

    Parameters
    ----------
    folder
        Where the block writes.
    afterwards
        What has become of the work, and a way out.

    Raises
    ------
    OSError
        If the block raised one for want of space; others go through as they are.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        written = Path(folder if is_local(folder) else gettempdir()).absolute()  # on the way to a URL
        msg = f"no space left on the disk of {_full(error, written)}; {afterwards} ({os.strerror(error.errno)})"
        raise OSError(msg) from error


def _full(error: OSError, written: Path) -> Path:
    """Return a folder on the full disk: that of the file that the error names, or the one that is written to."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return written
    folder = Path(os.fsdecode(error.filename)).absolute().parent
    return written if folder == written.parent or folder.is_relative_to(written) else folder
