"""Where stores and outputs lie: in a folder, or at a URL of object storage such as ``s3://bucket/name``.

Both are paths with the same methods: pathlib's, and for URLs those of universal-pathlib (extra ``s3``), which takes
credentials from the environment or the usual files and keeps none. What object storage has no means for is done here.
It knows no rename, so a folder is published by copies inside the store, with the file last by which readers know a Zarr
group. An object appears when all of it is there, so a file is written on this machine and then sent.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.storage import FsspecStore

#: What Zarr knows a group or an array by.
METADATA = "zarr.json"
#: What tells of a group of Zarr's format 2: of all in it, or, where that was not written, of itself.
METADATA_OF_FORMAT_2 = (".zmetadata", ".zattrs")
#: How arrays are written: with chunks of zeros, too, so that a chunk that is not there is one that is missing.
ALL_CHUNKS: Any = {"write_empty_chunks": True}
#: What says so of an array that somebody else could have written.
HAS_ALL_CHUNKS = "normalisr_dask_writes_all_chunks"
#: Packages for URLs of any kind, and of one.
NEEDED, NEEDED_FOR = ("upath",), {"s3": ("s3fs",), "s3a": ("s3fs",)}
NAMES_ON_PYPI = {"upath": "universal-pathlib"}
#: Other processes write to the same place, so nothing that was listed before is believed.
OPTIONS = {"use_listings_cache": False}


def as_path(location: str | Path) -> Path:
    """Return a location as a path; that of a URL has the methods of one.

    Raises
    ------
    ImportError
        If it is a URL, and a package that is needed for it is not installed.
    ValueError
        If it is empty, or a URL holds credentials.
    """
    text = str(location).removeprefix("file://")
    if not text:
        msg = "expected the path of a folder or file, or a URL, found an empty one"
        raise ValueError(msg)
    if "://" not in text:
        return Path(text)
    protocol, _, rest = text.partition("://")
    if "@" in rest.partition("/")[0]:
        msg = (
            f"the {protocol} URL holds what looks like credentials (before its @), which manifests would hold, too; "
            "give them in the environment or in the usual files, and the URL without them"
        )
        raise ValueError(msg)
    missing = [NAMES_ON_PYPI.get(name, name) for name in NEEDED + NEEDED_FOR.get(protocol, ()) if not find_spec(name)]
    if missing:
        msg = f"{text} needs {' and '.join(missing)}: install what is missing with pip install 'normalisr-dask[s3]'"
        raise ImportError(msg)
    path: Path = import_module("upath").UPath(text.rstrip("/"), **OPTIONS)
    return path


def is_local(location: str | Path) -> bool:
    """Return whether a location is in a file system of this machine."""
    return "://" not in str(location).removeprefix("file://")


def absolute(location: str | Path) -> str:
    """Return where tasks find a location, whatever folder their process is in."""
    return str(as_path(location).absolute())


def has_bucket(path: Path) -> bool:
    """Return whether there is a bucket for a URL; there is always one for a path on this machine."""
    return is_local(path) or bool(_file_system(path).exists(_key(path).partition("/")[0]))


def has_file(path: Path) -> bool:
    """Return whether there is a file; that storage refuses or does not answer is an error, and not taken for a no."""
    return path.is_file() if is_local(path) else path.exists()


def metadata_file(store: str | Path) -> Path:
    """Return the file with the metadata of a store, of either format of Zarr; that of format 3 if there is none."""
    files = [as_path(store) / name for name in (METADATA, *METADATA_OF_FORMAT_2)]
    return next((file for file in files if has_file(file)), files[0])


def zarr_store(path: Path) -> Any:
    """Return what Zarr's functions take as the store at a path."""
    return path if is_local(path) else FsspecStore.from_url(str(path), storage_options=OPTIONS)


def open_array(path: Path, *, mode: Literal["r", "r+"] = "r") -> zarr.Array:
    """Open an array of ours: at a URL with one request, since its format is known."""
    array = zarr.open_array(zarr_store(path), mode=mode, zarr_format=3)  # which takes no config
    return zarr.Array(zarr.AsyncArray(array.metadata, array.store_path, ALL_CHUNKS))


def path_of(array: zarr.Array) -> Path:
    """Return where an array lies."""
    store = array.store_path.store
    if isinstance(store, FsspecStore):
        return as_path(store.fs.unstrip_protocol(store.path)) / array.path
    return Path(str(array.store_path).removeprefix("file://"))


@dataclass(frozen=True)
class ArrayAtUrl:
    """An array for tasks: they get its URL and open it themselves, with the credentials of where they run.

    Attributes
    ----------
    url
        Where the array lies.
    shape, dtype, chunks
        Of the array.
    """

    url: str
    shape: tuple[int, ...]
    dtype: Any
    chunks: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __getitem__(self, place: Any) -> Any:
        return open_array(as_path(self.url))[place]

    def __setitem__(self, place: Any, values: Any) -> None:
        open_array(as_path(self.url), mode="r+")[place] = values


def for_tasks(array: zarr.Array) -> Any:
    """Return an array as a graph may hold it: Zarr's own, or at a URL one that holds no open file system."""
    path = path_of(array)
    return array if is_local(path) else ArrayAtUrl(str(path), array.shape, array.dtype, array.chunks)


def make_folder(path: Path) -> None:
    """Make a folder and those above it where they are missing; at a URL there is no such thing, but for buckets."""
    if is_local(path):
        path.mkdir(parents=True, exist_ok=True)


def files_below(folder: Path) -> list[str]:
    """List the files below a folder, relative to it; of a URL with one request for every thousand."""
    if is_local(folder):
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    root = _key(folder)
    return [key.removeprefix(f"{root}/") for key in _file_system(folder).find(root)]


def stored_chunks(array: zarr.Array) -> NDArray[np.bool_]:
    """Return which chunks of an array are stored, or shards where it has such, in the shape of their grid."""
    stored = set(files_below(path_of(array)))
    shape = tuple(-(-length // size) for length, size in zip(array.shape, array.shards or array.chunks, strict=True))
    keys = (array.metadata.encode_chunk_key(index) for index in np.ndindex(shape))
    return np.array([key in stored for key in keys], dtype=bool).reshape(shape)


def publish_folder(draft: Path, target: Path) -> None:
    """Move a Zarr group or array to where there is none, so that readers see all of it or nothing.

    Notes
    -----
    In a file system by a rename. At a URL by copies inside the store, without the data passing through this machine.
    """
    if is_local(draft):
        draft.rename(target)
        return
    file_system, source, destination = _file_system(draft), _key(draft), _key(target)
    files = [file for file in files_below(draft) if file != METADATA]
    file_system.copy([f"{source}/{file}" for file in files], [f"{destination}/{file}" for file in files])
    file_system.copy(f"{source}/{METADATA}", f"{destination}/{METADATA}")
    remove_folder(draft)


def remove_folder(folder: Path) -> None:
    """Remove a folder if it is there; at a URL, what readers know it by goes first."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    files = files_below(folder)
    if METADATA in files:
        files.remove(METADATA)
        (folder / METADATA).unlink()
    if files:
        _file_system(folder).rm([f"{_key(folder)}/{file}" for file in files])


@contextmanager
def whole_file(path: Path, *, several_writers: bool = False) -> Iterator[Path]:
    """Yield where to write a file, which appears at its place, whole, when the block ends without an error.

    Parameters
    ----------
    path
        Where the file will be.
    several_writers
        Whether others may write the same file at the same time.

    Notes
    -----
    In a file system it is written beside its place and renamed. For a URL it is written to the folder for temporary
    files of this machine and sent.
    """
    if is_local(path):
        draft = path.with_name(f"{path.name}{f'.{uuid4().hex}' if several_writers else ''}.partial")
        yield draft
        draft.replace(path)
        return
    with TemporaryDirectory(prefix="normalisr-dask-") as folder:
        draft = Path(folder) / path.name
        yield draft
        _file_system(path).put_file(str(draft), _key(path))


def _file_system(path: Any) -> Any:
    """Return the file system of a URL."""
    return path.fs


def _key(path: Any) -> str:
    """Return a URL as its file system writes it, without the protocol."""
    return str(path.path)
