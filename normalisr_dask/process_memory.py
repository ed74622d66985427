"""Memory that a process has held and can give back, bytes that it has read, and amounts as people write them."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path

import psutil
from dask.utils import parse_bytes

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None


def peak_bytes() -> int:
    """Give the most memory that this process has held at a time since it started, or since :func:`reset_peak`."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return psutil.Process().memory_info().peak_wset


def reset_peak() -> None:
    """Begin anew with the peak of this process; where the system cannot do that, it stays that since the start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def bytes_read() -> int:
    """Give how many bytes this process has read from files, those in the system's cache too; 0 where nobody counts."""
    counters = getattr(psutil.Process(), "io_counters", None)  # not on macOS
    return 0 if counters is None else int(getattr(counters(), "read_chars", 0))


def take_use() -> tuple[int, int]:
    """Give peak and bytes read of this process, and begin anew with the peak."""
    use = peak_bytes(), bytes_read()
    reset_peak()
    return use


def release_freed() -> None:
    """Give memory that was freed back to the system, where the C library keeps it for itself, as that of Linux does.

    Small arrays of many tasks leave pages behind that are nearly empty, the longer a run, the more.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


def parse_memory(text: str) -> int:
    """Read an amount of memory such as ``1.5GB``, ``800 MiB`` or a plain number of bytes.

    Parameters
    ----------
    text
        Number and unit.

    Returns
    -------
    int
        Bytes.

    Raises
    ------
    ValueError
        If there is no such amount.

    Examples
    --------
    >>> parse_memory("1.5GB")
    1500000000
    """
    try:
        amount = parse_bytes(text) if text[:1].isdigit() else 0  # Dask reads "" as one byte
    except ValueError:
        amount = 0
    if amount <= 0:
        msg = f"{text!r} is no amount of memory: write a number and a unit, such as 1.5GB or 800MiB"
        raise ValueError(msg)
    return amount
