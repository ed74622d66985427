"""One writer at a time at a URL, where no operating system keeps locks: a lease, renewed for as long as it is held.

Whoever wants it writes an object of its own, and then looks for others. One that finds another of a living process
takes its own back and is refused. Of two at the same time at least one sees the other, since a listing shows all that
was written before it; so never do two hold the lease, though two that come at the very same time may both be refused.
Nothing else is asked of the storage. The age of an object is told by the storage's clock alone: against one just
written. One that could not renew its lease for nearly as long as makes it void gives it up by itself.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from uuid import uuid4

from normalisr_dask.storage.processes import described, identity, is_of_this_host, is_running

LEASE = ".lock."
#: A lease that was not renewed for so long is taken over.
LAPSE_SECONDS = 120.0
RENEW_SECONDS = 20.0

logger = logging.getLogger(__name__)


@contextmanager
def leased(
    folder: Path, *, renew_seconds: float = RENEW_SECONDS, lapse_seconds: float = LAPSE_SECONDS
) -> Iterator[Callable[[], None]]:
    """Hold the lease of a folder at a URL until the block ends.

    Parameters
    ----------
    folder
        At a URL.
    renew_seconds
        How often to renew it.
    lapse_seconds
        How long a lease of another host holds without being renewed. One of this host holds while its process runs.

    Yields
    ------
    callable
        Raises RuntimeError if this process could not renew the lease, so that another may have taken it over.

    Raises
    ------
    FileNotFoundError
        If there is no bucket for the folder.
    ValueError
        If another process holds it.
    """
    own = folder / f"{LEASE}{uuid4().hex}"
    lapse = time.time() + lapse_seconds
    try:
        own.write_text(identity())
    except FileNotFoundError as error:
        msg = f"{folder} cannot be written: there is no such bucket; make it first, or name another"
        raise FileNotFoundError(msg) from error
    ended, lost = Event(), Event()
    intervals = (renew_seconds, lapse_seconds)
    renewing = Thread(target=_renew, args=(own, lapse, *intervals, ended, lost), name="lease", daemon=True)

    def still_held() -> None:
        if lost.is_set():
            msg = (
                f"the lock of {folder} was lost: it could not be renewed for {lapse_seconds:.0f} seconds, or was "
                "removed; if no other run has taken over, run the same command again"
            )
            raise RuntimeError(msg)

    try:
        _refuse_others(folder, own, lapse_seconds)
        renewing.start()
        yield still_held
    finally:
        ended.set()
        if renewing.ident is not None:
            renewing.join()
        own.unlink(missing_ok=True)


def _refuse_others(folder: Path, own: Path, lapse_seconds: float) -> None:
    """Refuse to go on beside a living process, and remove what dead ones have left."""
    for other in folder.iterdir():
        if not other.name.startswith(LEASE) or other.name == own.name:
            continue
        try:
            holder, age = other.read_text(), own.stat().st_mtime - other.stat().st_mtime
        except FileNotFoundError:  # given back just now
            continue
        if is_running(holder) if is_of_this_host(holder) else age <= lapse_seconds:
            way_out = "" if is_of_this_host(holder) else f", or {lapse_seconds:.0f} seconds if that was killed"
            msg = (
                f"another run is writing to {folder} ({described(holder)}); wait until it has ended{way_out}, "
                "or choose another output folder"
            )
            raise ValueError(msg)
        other.unlink(missing_ok=True)


def _renew(own: Path, lapse: float, renew_seconds: float, lapse_seconds: float, ended: Event, lost: Event) -> None:
    """Write the object anew, now and then, but not when it may be void already or is gone; runs in a thread."""
    while not ended.wait(renew_seconds):
        now = time.time()  # a clock that goes on while the machine sleeps
        try:
            if now > lapse - renew_seconds or not own.exists():
                lost.set()
                return
            own.write_text(identity())
            lapse = now + lapse_seconds
        except Exception as error:  # of the network or the storage, which may be back the next time
            logger.warning("the lock %s could not be renewed (%s)", own, type(error).__name__)
