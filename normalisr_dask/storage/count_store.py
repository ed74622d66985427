"""The count store: an AnnData-Zarr store whose X is CSR, cells × genes, with unsigned integer counts.

Tasks carry a path and open the store themselves; nothing here keeps matrix data but the block that was asked for.
"""

import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from anndata.io import read_elem
from scipy import sparse

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
        return _read_names(_open_group(self.path)["var"])

    def cells(self) -> np.ndarray:
        """Names of the cells, length n_cells."""
        return _read_names(_open_group(self.path)["obs"])

    def obs(self) -> pd.DataFrame:
        """Table of the cells, indexed by their names."""
        return read_elem(_open_group(self.path)["obs"])

    def var(self) -> pd.DataFrame:
        """Table of the genes, indexed by their names."""
        return read_elem(_open_group(self.path)["var"])

    def row_offsets(self) -> np.ndarray:
        """Where each cell's entries begin, int64, length n_cells + 1."""
        return np.asarray(_open_group(self.path)["X/indptr"][:], dtype=np.int64)


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

    Notes
    -----
    A store of ours is opened from its metadata alone. In any other, the stored values are read once, a few million at
    a time, to check them and to find their sum and maximum.
    """
    root = _open_group(path)
    metadata = root.attrs.get(METADATA_KEY)
    if metadata is not None:
        _check_metadata(path, metadata)
    _check_layout(path, root)

    matrix = root["X"]
    n_cells, n_genes = (int(length) for length in matrix.attrs["shape"])
    data = matrix["data"]
    _check_lengths(path, root, (n_cells, n_genes))
    if metadata is not None:
        total_count, largest_count = int(metadata["total_count"]), int(metadata["largest_count"])
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
        If the cells are not in the store, or their values are no counts.

    Notes
    -----
    Opens the store itself and reads only the chunks that hold these cells, so that a task carries nothing but a path.
    """
    root = _open_group(path)
    matrix = root["X"]
    n_cells, n_genes = (int(length) for length in matrix.attrs["shape"])
    start, stop = operator.index(start), operator.index(stop)
    if not 0 <= start <= stop <= n_cells:
        msg = f"cells {start} to {stop} were asked for, but {path} has cells 0 to {n_cells}"
        raise ValueError(msg)

    offsets = np.asarray(matrix["indptr"][start : stop + 1], dtype=np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    indices = np.asarray(matrix["indices"][first:last])
    counts = as_counts(np.asarray(matrix["data"][first:last]), path=path)
    block = sparse.csr_array((counts, indices, offsets - first), shape=(stop - start, n_genes))
    if METADATA_KEY in root.attrs:
        block.has_canonical_format = True  # the writer saw to it, so save scipy the pass over the indices
    else:
        block.sum_duplicates()  # sorts, too
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
        msg = f"X of {path} holds {values.dtype}, expected counts"
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
    folder = Path(path)
    return (folder / "zarr.json").is_file() or (folder / ".zgroup").is_file()


def partial_path(path: str | Path) -> Path:
    """Work folder of an unfinished store: beside the store, so that a rename publishes it."""
    target = Path(path)
    return target.with_name(f"{target.name}.partial")


def _open_group(path: str | Path) -> ZarrGroup:
    """Open a Zarr group for reading; consolidated metadata may be stale and is not used."""
    if "://" not in str(path):
        if not Path(path).exists():
            msg = f"there is no count store at {path}"
            if partial_path(path).exists():
                msg += f", only the beginning of one ({partial_path(path)}): run the same ingest again"
            raise FileNotFoundError(msg)
        if not is_store(path):
            msg = f"{path} is not a Zarr store; {WAY_OUT}"
            raise ValueError(msg)
    return zarr.open_group(str(path), mode="r", use_consolidated=False)


def _check_metadata(path: str | Path, metadata: dict[str, Any]) -> None:
    """Refuse a store of ours that is of another version or was not finished."""
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        msg = f"{path} is a count store of format version {version}, expected {FORMAT_VERSION}; ingest it again"
        raise ValueError(msg)
    if not metadata.get("finished"):
        msg = f"{path} is a half-written count store; ingest it again"
        raise ValueError(msg)


def _check_layout(path: str | Path, root: ZarrGroup) -> None:
    """Refuse what is not AnnData with a CSR matrix."""
    if root.attrs.get("encoding-type") != "anndata" or not {"X", "obs", "var"} <= set(root.keys()):
        msg = f"{path} is a Zarr store, but not an AnnData store with X, obs and var"
        raise ValueError(msg)
    kind = root["X"].attrs.get("encoding-type")
    if kind != "csr_matrix":
        found = {"csc_matrix": "CSC", "array": "dense"}.get(str(kind), repr(kind))
        msg = f"X of {path} is {found}, expected CSR; {WAY_OUT}"
        raise ValueError(msg)


def _check_lengths(path: str | Path, root: ZarrGroup, shape: tuple[int, int]) -> None:
    """Refuse a store whose parts do not fit together."""
    n_cells, n_genes = shape
    matrix = root["X"]
    n_entries = matrix["data"].shape[0]
    expectations = (
        ("X/indptr", matrix["indptr"].shape[0], n_cells + 1),
        ("X/indices", matrix["indices"].shape[0], n_entries),
        ("obs", _names_array(root["obs"]).shape[0], n_cells),
        ("var", _names_array(root["var"]).shape[0], n_genes),
        ("the last row offset of X", int(matrix["indptr"][-1]), n_entries),
    )
    for what, found, expected in expectations:
        if found != expected:
            msg = f"{path} is damaged: expected {expected}, found {found} for {what}; ingest it again"
            raise ValueError(msg)


def _names_array(table: ZarrGroup) -> ZarrArray:
    """Return the stored array that is as long as the index of a table."""
    names = table[table.attrs["_index"]]
    kind = str(names.attrs.get("encoding-type"))
    if kind == "categorical":
        return names["codes"]
    return names["values"] if kind.startswith("nullable-") else names


def _read_names(table: ZarrGroup) -> np.ndarray:
    """Index of a stored table, as an array of str objects."""
    return np.asarray(read_elem(table[table.attrs["_index"]]), dtype=object)


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
        counts = as_counts(np.asarray(data[first : first + SCAN_ENTRIES]), path=path)
        total_count += int(counts.sum(dtype=np.uint64))
        largest_count = max(largest_count, int(counts.max()))
    return total_count, largest_count
