"""Vectors in local Zarr arrays, read in the thread that wants them.

Zarr hands every chunk of a megabyte to its event loop and from there to threads of its own, which takes twice as long
as decoding it. A pass over the counts is a pass over thousands of chunks, and a worker has one thread for each core.
"""

import json
import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
import numpy as np
from numcodecs import blosc
from numpy.typing import NDArray

from normalisr_dask.storage.locations import METADATA, is_local, path_of

#: Offset and length of a chunk that a shard does not hold.
ABSENT = 2**64 - 1
CHECKSUM_BYTES = 4
#: Of what Blosc writes: bytes of the values and of all of it.
BLOSC_HEADER = struct.Struct("<4xI4xI")
LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
DATA_TYPES = ("uint8", "int32", "int64", "uint16", "uint32")


@dataclass
class LocalVector:
    """A vector of integers in the files of a Zarr array, each a chunk or a shard of them, compressed by Blosc.

    Attributes
    ----------
    folder
        Of the array.
    path
        Of the array in its store; for errors.
    length, dtype
        Of the vector.
    per_file, per_chunk
        Values of a file and of a chunk.
    is_sharded
        Whether a file is a shard, with an index of its chunks at the end.
    """

    folder: Path
    path: str
    length: int
    dtype: np.dtype[Any]
    per_file: int
    per_chunk: int
    is_sharded: bool
    _latest: tuple[tuple[int, ...], NDArray[Any]] | None = field(default=None, repr=False)

    @property
    def shape(self) -> tuple[int]:
        """Length, as arrays give it."""
        return (self.length,)

    def __getitem__(self, place: slice) -> NDArray[Any]:
        """Read a run of values; a chunk or file that is not there stands for zeros, as it does for Zarr.

        Raises
        ------
        ValueError, RuntimeError
            If a file is cut off or otherwise damaged.
        """
        start, stop, _ = place.indices(self.length)
        values = np.empty(max(0, stop - start), self.dtype)
        for number in range(start // self.per_file, math.ceil(stop / self.per_file) if values.size else 0):
            first = number * self.per_file
            inside = slice(max(start - first, 0), min(stop - first, self.per_file))
            self._read_file(number, inside, values[first + inside.start - start : first + inside.stop - start])
        return values

    def _read_file(self, number: int, place: slice, values: NDArray[Any]) -> None:
        """Read a run of the values of a file."""
        try:
            file = (self.folder / "c" / str(number)).open("rb", buffering=0)
        except FileNotFoundError:
            values[:] = 0
            return
        with file:
            places, status = self._places(file), os.fstat(file.fileno())
            version = (number, status.st_ino, status.st_size, status.st_mtime_ns)
            for chunk in range(place.start // self.per_chunk, math.ceil(place.stop / self.per_chunk)):
                first = chunk * self.per_chunk
                inside = slice(max(place.start - first, 0), min(place.stop - first, self.per_chunk))
                target = values[first + inside.start - place.start : first + inside.stop - place.start]
                if target.size == self.per_chunk:
                    self._read_chunk(file, places[chunk], target)
                else:
                    target[:] = self._whole_chunk(file, places[chunk], (*version, chunk))[inside]

    def _whole_chunk(self, file: BinaryIO, place: tuple[int, int], key: tuple[int, ...]) -> NDArray[Any]:
        """Return all values of a chunk; the latest is kept, since the run that ends in it is followed by another."""
        latest = self._latest
        if latest is None or latest[0] != key:
            values = np.empty(self.per_chunk, self.dtype)
            self._read_chunk(file, place, values)
            self._latest = latest = key, values
        return latest[1]

    def _read_chunk(self, file: BinaryIO, place: tuple[int, int], values: NDArray[Any]) -> None:
        """Read all values of a chunk."""
        if place == (ABSENT, ABSENT):
            values[:] = 0
        else:
            self._decode(_read(file, *place), values)

    def _places(self, file: BinaryIO) -> list[tuple[int, int]]:
        """Return offset and length of every chunk in a file: from the index at the end of a shard."""
        n_bytes, n_chunks = os.fstat(file.fileno()).st_size, self.per_file // self.per_chunk
        if not self.is_sharded:
            return [(0, n_bytes)]
        length = 16 * n_chunks + CHECKSUM_BYTES
        index = _read(file, n_bytes - length, length)
        if google_crc32c.value(index[:-CHECKSUM_BYTES]) != int.from_bytes(index[-CHECKSUM_BYTES:], "little"):
            msg = "the checksum of its index differs"
            raise ValueError(msg)
        numbers = np.frombuffer(index, "<u8", 2 * n_chunks).tolist()
        return list(zip(numbers[::2], numbers[1::2], strict=True))

    def _decode(self, encoded: bytes, values: NDArray[Any]) -> None:
        header = encoded[: BLOSC_HEADER.size]
        n_bytes, n_encoded = BLOSC_HEADER.unpack(header) if len(header) == BLOSC_HEADER.size else (0, 0)
        if n_bytes != values.nbytes or n_encoded != len(encoded):
            msg = f"expected {values.nbytes} bytes in {len(encoded)}, found {n_bytes} in {n_encoded}"
            raise ValueError(msg)
        blosc.decompress(encoded, values)


def as_local_vector(array: Any) -> Any:
    """Return a Zarr array of one dimension as a local vector, or as it is where that cannot read it."""
    folder = path_of(array)
    if array.ndim != 1 or not is_local(folder) or not (folder / METADATA).is_file():
        return array
    metadata = json.loads((folder / METADATA).read_text())
    per_file, codecs = array.chunks[0], metadata["codecs"]
    if array.shards is not None:
        sharding = codecs[0]["configuration"]
        if len(codecs) > 1 or not _is_known_index(sharding):
            return array
        per_file, codecs = array.shards[0], sharding["codecs"]
    is_known = (
        metadata["data_type"] in DATA_TYPES
        and metadata["fill_value"] == 0
        and metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "/"}}
        and [codec["name"] for codec in codecs] == ["bytes", "blosc"]
        and codecs[0] in (LITTLE_ENDIAN, {"name": "bytes"})  # of single bytes there is no order
    )
    if not is_known:
        return array
    dtype = array.dtype.newbyteorder("<")
    return LocalVector(
        folder, array.path, array.shape[0], dtype, per_file, array.chunks[0], is_sharded=array.shards is not None
    )


def _is_known_index(sharding: dict[str, Any]) -> bool:
    """Return whether the index of a shard is what Zarr writes by default."""
    return (
        sharding.get("index_codecs") == [LITTLE_ENDIAN, {"name": "crc32c"}]
        and sharding.get("index_location", "end") == "end"
    )


def _read(file: BinaryIO, offset: int, n_bytes: int) -> bytes:
    """Read some bytes of a file."""
    size = os.fstat(file.fileno()).st_size
    if not 0 <= offset <= offset + n_bytes <= size:
        msg = f"expected {n_bytes} bytes at {offset}, found {size} bytes in all: it was cut off"
        raise ValueError(msg)
    file.seek(offset)
    parts = []
    while n_bytes and (part := file.read(n_bytes)):  # network file systems may give less than was asked for
        parts.append(part)
        n_bytes -= len(part)
    return b"".join(parts)
