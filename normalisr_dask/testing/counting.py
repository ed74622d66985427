"""Counters that show what a call computed and which files it read.

Building a graph must compute nothing and read no matrix; these make it a test:

>>> import dask.array as da
>>> with count_computes() as counter:
...     doubled = 2 * da.ones(3)
>>> counter.computes
0
"""

import os
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import dask
import dask.threaded
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

METADATA_FILES = frozenset({"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"})


@dataclass
class ComputeCounter:
    """A Dask scheduler that counts its calls and passes them to the threaded one.

    Attributes
    ----------
    computes : int
        Calls so far.
    allowed : int or None
        More calls than these raise RuntimeError; None for no limit.
    """

    allowed: int | None = None
    computes: int = 0

    def __call__(self, graph: Any, keys: Any, **options: Any) -> Any:
        """Compute the keys of a graph."""
        self.computes += 1
        if self.allowed is not None and self.computes > self.allowed:
            msg = f"Dask was asked to compute {self.computes} times where {self.allowed} are allowed"
            raise RuntimeError(msg)
        return dask.threaded.get(graph, keys, **options)


@contextmanager
def count_computes() -> Iterator[ComputeCounter]:
    """Count how often Dask computes within the context.

    Yields
    ------
    ComputeCounter
        Its `computes` is the number so far.

    Notes
    -----
    `dask.compute`, `.compute()` and `.persist()` are counted in whichever thread, also while a distributed client is
    the default. Not seen: a `scheduler=` given to the call itself, and methods of a client (`client.compute`).
    """
    counter = ComputeCounter()
    with dask.config.set(scheduler=counter):
        yield counter


@contextmanager
def raise_if_computes(allowed: int = 0) -> Iterator[None]:
    """Raise RuntimeError, from within the offending call, if Dask computes more than `allowed` times in the context."""
    with dask.config.set(scheduler=ComputeCounter(allowed)):
        yield


class ReadCounter(Counter[str]):
    """Reads for each key of a store: the path below its root, with ``/``."""

    def data(self) -> "ReadCounter":
        """Leave out the metadata of groups and arrays."""
        return ReadCounter({key: n for key, n in self.items() if key.rpartition("/")[2] not in METADATA_FILES})


class ReadCountingStore(WrapperStore[Store]):
    """A Zarr store that counts the reads of the store it wraps, for code that takes a store or an open array.

    Attributes
    ----------
    reads : ReadCounter
        Reads so far, whole values and byte ranges alike; asking for a key that does not exist counts, too.

    Notes
    -----
    Code that takes a path opens a store of its own: use `count_reads` there.
    """

    def __init__(self, store: Store, reads: ReadCounter | None = None) -> None:
        super().__init__(store)
        self.reads = ReadCounter() if reads is None else reads

    def with_read_only(self, read_only: bool = False) -> Self:  # noqa: FBT001, FBT002 (Zarr's signature)
        """Copy the store for reading only, as Zarr does on opening; copies share the counter."""
        return type(self)(self._store.with_read_only(read_only), self.reads)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a value or a part of it."""
        self.reads[key] += 1
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Read parts of several values."""
        key_ranges = list(key_ranges)
        self.reads.update(key for key, _ in key_ranges)
        return await super().get_partial_values(prototype, key_ranges)

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        """Read several values, as Zarr does for metadata."""
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)


class _OpenedFiles:
    """Counts files opened for reading, by the interpreter's own audit events.

    An audit hook cannot be taken away again, so one is added at the first use and stays idle when no counter listens.
    """

    def __init__(self) -> None:
        self.listeners: list[tuple[Path, ReadCounter]] = []
        self.installed = False

    def listen(self, folder: Path, counter: ReadCounter) -> None:
        if not self.installed:
            sys.addaudithook(self.hook)
            self.installed = True
        self.listeners.append((folder, counter))

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.listeners or event != "open":
            return
        path, _, flags = arguments
        if isinstance(path, int) or flags & os.O_WRONLY:
            return
        opened = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 (Path.absolute keeps "..")
        for folder, counter in self.listeners:
            if opened.is_relative_to(folder):
                counter[opened.relative_to(folder).as_posix()] += 1


_opened_files = _OpenedFiles()


@contextmanager
def count_reads(folder: str | Path) -> Iterator[ReadCounter]:
    """Count which files of a folder, such as a Zarr store on disk, this process opens for reading.

    Parameters
    ----------
    folder : str or Path
        A folder, or a single file, whose key is then ``.``.

    Yields
    ------
    ReadCounter
        Number of openings for each path below the folder; looking for a file that does not exist counts, too.

    Notes
    -----
    Python reports each opening of a file to audit hooks, whichever library asks and in whichever thread, so code under
    test is neither patched nor told. Not seen: other processes (use a cluster with ``processes=False``), files opened
    by compiled libraries (HDF5, Arrow), and what is read from a file that was open before.
    """
    counter = ReadCounter()
    entry = (Path(os.path.abspath(folder)), counter)  # noqa: PTH100 (Path.absolute keeps "..")
    _opened_files.listen(*entry)
    try:
        yield counter
    finally:
        _opened_files.listeners.remove(entry)
