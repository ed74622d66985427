"""The count store: an AnnData-Zarr store whose X is CSR, cells × genes, with unsigned integer counts.

Tasks carry a path and open the store themselves; nothing here keeps matrix data but the block that was asked for.
"""

import operator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from scipy import sparse

from normalisr_dask.storage.damage import damaged, reading
from normalisr_dask.storage.local_vectors import as_local_vector
from normalisr_dask.storage.locations import METADATA, as_path, has_bucket, has_file, is_local, zarr_store
from normalisr_dask.storage.url_errors import url_errors
from normalisr_dask.validation import did_you_mean

# zarr types a member of a group as any of eight things; here each member is known by its name
ZarrGroup = Any
ZarrArray = Any

FORMAT_VERSION = 1
METADATA_KEY = "normalisr_dask"
LARGEST_COUNT = 2**32 - 1
SCAN_ENTRIES = 1 << 22
WAY_OUT = "`normalisr-dask ingest` converts it to a count store"


@dataclass(frozen=True)
class CountStore:
    """Small, picklable description of a count store; names, tables and row offsets are read on demand.

    Attributes
    ----------
    path
        Path or URL of the AnnData-Zarr store.
    n_cells, n_genes
        Shape of the matrix.
    n_entries
        Number of stored entries.
    total_count, largest_count
        Sum and maximum over all entries.
    dtype
        Unsigned integer type of the counts that `read_cells` gives.
    """

    path: str
    n_cells: int
    n_genes: int
    n_entries: int
    total_count: int
    largest_count: int
    dtype: np.dtype

    def genes(self) -> np.ndarray:
        """Names of the genes, length n_genes."""
        return self._names("var")

    def cells(self) -> np.ndarray:
        """Names of the cells, length n_cells."""
        return self._names("obs")

    def obs(self) -> pd.DataFrame:
        """Table of the cells, indexed by their names."""
        return self._table("obs")

    def var(self) -> pd.DataFrame:
        """Table of the genes, indexed by their names."""
        return self._table("var")

    def row_offsets(self) -> np.ndarray:
        """Where each cell's entries begin, int64, length n_cells + 1."""
        return _read_offsets(self.path, _member(self.path, _open_group(self.path), "X"), slice(None))

    def _names(self, table: str) -> np.ndarray:
        """Index of a stored table, as an array of str objects."""
        group = _member(self.path, _open_group(self.path), table)
        with reading(self.path, f"the index of {table}"):
            return np.asarray(read_elem(group[group.attrs["_index"]]), dtype=object)

    def _table(self, name: str) -> pd.DataFrame:
        """Return a stored table."""
        group = _member(self.path, _open_group(self.path), name)
        with reading(self.path, name):
            return read_elem(group)


def open_count_store(path: str | Path) -> CountStore:
    """Open a store of counts and check that it is whole and of a form that `read_cells` reads.

    Parameters
    ----------
    path
        A count store that `ingest` wrote, or any AnnData-Zarr store (Zarr format 2 or 3) whose X is CSR with whole,
        non-negative numbers.

    Returns
    -------
    CountStore

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`.
    ValueError
        If it is no AnnData-Zarr store, half-written, of another format version, not CSR, or without integer counts.
        If it is damaged: metadata cannot be read, parts do not fit together, or files of X or of the names are missing,
        which Zarr would read as zeros.

    Notes
    -----
    A store of ours is opened from its metadata and the list of its files (at a URL, from its metadata alone). In any
    other, the stored values are read once, a few million at a time, to check them and to find their sum and maximum.
    """
    root = _open_group(path)
    ours, metadata = METADATA_KEY in root.attrs, root.attrs.get(METADATA_KEY)
    if ours:
        _check_metadata(path, metadata)
    _check_layout(path, root)

    matrix = root["X"]
    n_cells, n_genes = _shape(path, matrix)
    data = _member(path, matrix, "data")
    if is_local(path):
        check_files(path, root, n_genes)
    _check_lengths(path, root, (n_cells, n_genes))
    if ours:
        total_count, largest_count = metadata["total_count"], metadata["largest_count"]
    else:
        total_count, largest_count = _scan_counts(path, data)
    return CountStore(
        path=str(path),
        n_cells=n_cells,
        n_genes=n_genes,
        n_entries=int(data.shape[0]),
        total_count=total_count,
        largest_count=largest_count,
        dtype=_counts_dtype(data.dtype),
    )


def read_cells(path: str | Path, start: int, stop: int) -> sparse.csr_array:
    """Read the counts of a run of cells.

    Parameters
    ----------
    path
        Path of a store that `open_count_store` accepts.
    start, stop
        First cell and the one after the last.

    Returns
    -------
    scipy.sparse.csr_array
        Counts of shape (stop - start, n_genes), unsigned integers, genes ascending within each cell.

    Raises
    ------
    ValueError
        If the cells are not in the store, their values are no counts, or the store is damaged where they lie.

    Notes
    -----
    Opens the store itself, once a process, and reads only the chunks that hold these cells, so that a task carries
    nothing but a path.
    """
    stored = _opened(path)
    n_cells, n_genes = stored.shape
    start, stop = operator.index(start), operator.index(stop)
    if not 0 <= start <= stop <= n_cells:
        msg = f"cells {start} to {stop} were asked for, but {path} has cells 0 to {n_cells}"
        raise ValueError(msg)
    offsets = _read_values(path, stored.offsets, slice(start, stop + 1)).astype(np.int64, copy=False)
    if offsets[0] < 0 or (np.diff(offsets) < 0).any() or offsets[-1] > stored.counts.shape[0]:
        raise damaged(path, f"the row offsets of cells {start} to {stop} are not those of its entries")
    entries = slice(int(offsets[0]), int(offsets[-1]))
    indices = _read_values(path, stored.genes, entries)
    if indices.size and not 0 <= indices.min() <= indices.max() < n_genes:
        raise damaged(path, f"cells {start} to {stop} have counts of genes beyond the {n_genes} that there are")
    counts = as_counts(_read_values(path, stored.counts, entries), path=path)
    if not stored.is_canonical or counts.size > np.iinfo(indices.dtype).max:
        block = sparse.csr_array((counts, indices, offsets - offsets[0]), shape=(stop - start, n_genes))
        block.sum_duplicates()  # sorts, too
        return block
    block = sparse.csr_array((stop - start, n_genes), dtype=counts.dtype)
    block.data, block.indices, block.indptr = counts, indices, (offsets - offsets[0]).astype(indices.dtype)
    block.has_canonical_format = True  # the writer saw to it: save scipy its passes over the indices
    return block


def as_counts(values: np.ndarray, *, path: str | Path) -> np.ndarray:
    """Cast stored values to counts, of an unsigned type that depends on the stored type alone.

    Raises
    ------
    ValueError
        If a value is negative, fractional, missing or too large.
    """
    dtype = _counts_dtype(values.dtype)
    if values.dtype == dtype:
        return values
    if values.dtype.kind not in "uif":
        msg = f"X of {path} holds values of type {values.dtype.name}, expected counts: whole numbers from 0 on"
        raise ValueError(msg)
    # written so that NaN fails it
    good = (values >= 0) & (values <= LARGEST_COUNT)
    if values.dtype.kind == "f":
        good &= values == np.trunc(values)
    if not good.all():
        found = values.ravel()[np.argmin(good)]
        msg = f"X of {path} holds {found}, expected counts: whole numbers from 0 to {LARGEST_COUNT}"
        raise ValueError(msg)
    return values.astype(dtype)


def is_store(path: str | Path) -> bool:
    """Whether there is a Zarr group at a path."""
    folder = as_path(path)
    return has_file(folder / METADATA) or has_file(folder / ".zgroup")


def partial_path(path: str | Path) -> Path:
    """Work folder of an unfinished store: beside the store, so that a rename publishes it."""
    target = as_path(path)
    return target.with_name(f"{target.name}.partial")


def _open_group(path: str | Path) -> ZarrGroup:
    """Open a Zarr group for reading; consolidated metadata may be stale and is not used."""
    location = as_path(path)
    with url_errors(path):
        zarr_format: Literal[2, 3] = 3 if has_file(location / METADATA) else 2
        if zarr_format == 2:  # or there is nothing at all
            _check_is_store(location)
    with reading(path, "its metadata"):
        return zarr.open_group(zarr_store(location), mode="r", zarr_format=zarr_format, use_consolidated=False)


class _Stored(NamedTuple):
    """An opened store: numbers of cells and genes, arrays, and whether a writer of ours has sorted the entries."""

    shape: tuple[int, int]
    offsets: ZarrArray
    genes: ZarrArray
    counts: ZarrArray
    is_canonical: bool


def _opened(path: str | Path) -> _Stored:
    """Open a store, or return it as opened before if its metadata have not changed since."""
    try:
        with url_errors(path):
            changed = (as_path(path) / METADATA).stat().st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return _open_arrays(path)
    return _opened_before(str(path), changed)


@lru_cache(maxsize=8)
def _opened_before(path: str, changed: int) -> _Stored:
    del changed  # tells stores apart that have stood at one path
    return _open_arrays(path)


def _open_arrays(path: str | Path) -> _Stored:
    root = _open_group(path)
    matrix = _member(path, root, "X")
    offsets, genes, counts = (as_local_vector(_member(path, matrix, name)) for name in ("indptr", "indices", "data"))
    return _Stored(_shape(path, matrix), offsets, genes, counts, METADATA_KEY in root.attrs)


def _check_is_store(path: Path) -> None:
    """Say what is at a path where no store is."""
    if not path.exists():
        msg = f"there is no count store at {path}"
        if not has_bucket(path):
            msg += ", and no such bucket"
        elif partial_path(path).exists():
            msg += f", only the beginning of one ({partial_path(path)}): run the same ingest again"
        elif is_local(path) and path.parent.is_dir():
            msg += did_you_mean(path.name, (other.name for other in path.parent.iterdir() if is_store(other)))
        raise FileNotFoundError(msg)
    if not is_store(path):
        msg = f"{path} is not a Zarr store; {WAY_OUT}"
        raise ValueError(msg)


def _member(path: str | Path, group: ZarrGroup, name: str) -> Any:
    """Return an array or a group of a group."""
    with reading(path, f"{group.path}/{name}".lstrip("/")):
        return group[name]


def _shape(path: str | Path, matrix: ZarrGroup) -> tuple[int, int]:
    """Numbers of cells and genes."""
    with reading(path, "the shape of X"):
        n_cells, n_genes = (int(length) for length in matrix.attrs["shape"])
    return n_cells, n_genes


def _read_values(path: str | Path, array: ZarrArray, place: slice) -> np.ndarray:
    """Read a part of an array with one dimension."""
    with reading(path, array.path):
        return np.asarray(array[place])


def _read_offsets(path: str | Path, matrix: ZarrGroup, place: slice) -> np.ndarray:
    """Read row offsets, int64."""
    return _read_values(path, _member(path, matrix, "indptr"), place).astype(np.int64, copy=False)


def _check_metadata(path: str | Path, metadata: Any) -> None:
    """Refuse a store of ours that is of another version, was not finished, or does not say what it holds."""
    if not isinstance(metadata, dict):
        raise damaged(path, f"zarr.json holds {metadata!r} for {METADATA_KEY}, expected a table of its metadata")
    if "expression" in metadata:
        msg = f"{path} holds expression made of counts, expected the counts themselves: they are at {path}/counts"
        raise ValueError(msg)
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        msg = f"{path} is a count store of format version {version}, expected {FORMAT_VERSION}; ingest it again"
        raise ValueError(msg)
    if not metadata.get("finished"):
        msg = f"{path} is a half-written count store; ingest it again"
        raise ValueError(msg)
    for name in ("total_count", "largest_count"):
        if not isinstance(metadata.get(name), int):
            raise damaged(path, f"zarr.json holds {metadata.get(name)!r} for {name}, expected a whole number")


def _check_layout(path: str | Path, root: ZarrGroup) -> None:
    """Refuse what is not AnnData with a CSR matrix."""
    if root.attrs.get("encoding-type") != "anndata":
        msg = f"{path} is a Zarr store, but not an AnnData store with X, obs and var"
        raise ValueError(msg)
    for name in ("X", "obs", "var"):
        _member(path, root, name)
    kind = root["X"].attrs.get("encoding-type")
    if kind != "csr_matrix":
        found = {"csc_matrix": "CSC", "array": "dense"}.get(str(kind), repr(kind))
        msg = f"X of {path} is {found}, expected CSR; {WAY_OUT}"
        raise ValueError(msg)


def check_files(path: str | Path, root: ZarrGroup, n_minor: int) -> None:
    """Refuse a store on disk without all files of X and of the names: Zarr takes a missing file for zeros.

    Parameters
    ----------
    path, root
        An AnnData-Zarr store whose X is CSR or CSC.
    n_minor
        Genes where X is CSR, cells where it is CSC.

    Raises
    ------
    ValueError
        Naming the first file that is missing.
    """
    matrix = root["X"]
    for array in (matrix["data"], _names_array(path, root, "obs"), _names_array(path, root, "var")):
        for file, _ in _missing_files(path, array):
            raise damaged(path, f"the file {file} is missing")

    # Zarr writes no file of nothing but zeros either, and here they can be right: offsets of cells before the first
    # entry, and gene 0 in cells with no other.
    offsets_files = _missing_files(path, _member(path, matrix, "indptr"))
    indices_files = _missing_files(path, _member(path, matrix, "indices"))
    if not offsets_files and not indices_files:
        return
    offsets = _read_offsets(path, matrix, slice(None))
    steps = np.diff(offsets)
    for file, _ in offsets_files:
        if offsets[-1] != matrix["data"].shape[0] or ((steps < 0) | (steps > n_minor)).any():
            raise damaged(path, f"the file {file} is missing")
    for file, entries in indices_files:
        if (np.diff(offsets.clip(entries.start, entries.stop)) > 1).any():  # a cell has each gene once
            raise damaged(path, f"the file {file} is missing")


def _missing_files(path: str | Path, array: ZarrArray) -> list[tuple[str, range]]:
    """Files of an array with one dimension that are not there, and the places of the values in them."""
    length = array.shape[0]
    if length == 0:
        return []
    step = (array.shards or array.chunks)[0]
    files = {
        f"{array.path}/{array.metadata.encode_chunk_key((first // step,))}": first for first in range(0, length, step)
    }
    folder = Path(path, next(iter(files))).parent
    present = {file.name for file in folder.iterdir()} if folder.is_dir() else set()
    return [
        (file, range(first, min(first + step, length)))
        for file, first in files.items()
        if Path(file).name not in present
    ]


def _check_lengths(path: str | Path, root: ZarrGroup, shape: tuple[int, int]) -> None:
    """Refuse a store whose parts do not fit together."""
    n_cells, n_genes = shape
    matrix = root["X"]
    n_entries = matrix["data"].shape[0]
    last_offset = _read_offsets(path, matrix, slice(-1, None)).sum()  # 0 where there is none
    expectations = (
        ("X/indptr", matrix["indptr"].shape[0], n_cells + 1),
        ("X/indices", _member(path, matrix, "indices").shape[0], n_entries),
        ("obs", _names_array(path, root, "obs").shape[0], n_cells),
        ("var", _names_array(path, root, "var").shape[0], n_genes),
        ("the last row offset of X", last_offset, n_entries),
    )
    for what, found, expected in expectations:
        if found != expected:
            raise damaged(path, f"expected {expected}, found {found} for {what}")


def _names_array(path: str | Path, root: ZarrGroup, table: str) -> ZarrArray:
    """Return the stored array that is as long as the index of a table."""
    group = _member(path, root, table)
    with reading(path, f"the index of {table}"):
        names = group[group.attrs["_index"]]
        kind = str(names.attrs.get("encoding-type"))
        if kind == "categorical":
            return names["codes"]
        return names["values"] if kind.startswith("nullable-") else names


def _counts_dtype(stored: np.dtype) -> np.dtype:
    """Unsigned type in which stored values are given: it depends on the stored type alone, so all blocks agree."""
    if stored.kind == "u" and stored.itemsize <= 4:
        return np.dtype(stored).newbyteorder("=")
    if stored.kind == "i" and stored.itemsize <= 4:
        return np.dtype(f"u{stored.itemsize}")
    return np.dtype(np.uint32)


def _scan_counts(path: str | Path, data: ZarrArray) -> tuple[int, int]:
    """Sum and maximum of stored values, checking that all are counts."""
    total_count = largest_count = 0
    for first in range(0, data.shape[0], SCAN_ENTRIES):
        counts = as_counts(_read_values(path, data, slice(first, first + SCAN_ENTRIES)), path=path)
        total_count += int(counts.sum(dtype=np.uint64))
        largest_count = max(largest_count, int(counts.max()))
    return total_count, largest_count
