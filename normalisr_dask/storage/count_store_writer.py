"""Writing a count store: cells are appended in order, and the store is published whole or not at all."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from zarr.codecs import BloscCodec

from normalisr_dask.storage.count_store import (
    FORMAT_VERSION,
    METADATA_KEY,
    CountStore,
    ZarrArray,
    ZarrGroup,
    is_store,
    open_count_store,
    partial_path,
)
from normalisr_dask.storage.leases import leased
from normalisr_dask.storage.locations import (
    as_path,
    has_file,
    is_local,
    publish_folder,
    remove_folder,
    zarr_store,
)
from normalisr_dask.storage.processes import identity, is_running, number_of

CHUNK_ENTRIES = 1 << 18  # what a reader decompresses at least
SHARD_ENTRIES = 16 * CHUNK_ENTRIES  # what becomes one file
OFFSETS_CHUNK = 1 << 17
EMPTY_GROUPS = ("layers", "obsm", "obsp", "uns", "varm", "varp")


class CountStoreWriter:
    """Writes a count store cell by cell, in bounded memory: init, `append` blocks of cells in order, `finalise`.

    Parameters
    ----------
    path
        Where the store will be, a path or a URL; until `finalise` it grows in ``PATH.partial``.
    obs, var
        Tables of cells and genes, indexed by unique names; as many rows as there will be cells and genes.
    provenance
        Where the counts come from: anything that fits in JSON.
    overwrite
        Whether a store that is already at `path` is replaced, once the new one is finished.

    Raises
    ------
    FileExistsError
        If there is a store at `path` and `overwrite` is not set, or something that is no store, or if another process
        is writing the same store.
    FileNotFoundError
        If there is no folder for the store, or no bucket.
    ValueError
        If `path` is a URL, and another process is writing there.

    Notes
    -----
    Holds two shards of entries in memory (about 50 MB) and writes one while the other fills. Used as a context
    manager, it removes its work folder unless `finalise` was reached; a work folder left by a killed process is
    removed by the next writer. At a URL `finalise` copies the store into place inside the storage, its root metadata
    last; a store that is replaced is removed just before.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        obs: pd.DataFrame,
        var: pd.DataFrame,
        provenance: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path = as_path(path)
        self.n_cells, self.n_genes = len(obs), len(var)
        self.n_entries = self.total_count = self.largest_count = 0
        self._work_path = partial_path(path)
        self._replaced_path = self.path.with_name(f"{self.path.name}.replaced")
        self._provenance = dict(provenance or {})
        self._entries_per_cell: list[np.ndarray] = []
        self._n_written = self._n_buffered = 0
        self._buffers = self._new_buffers(np.dtype(np.uint16))
        self._pending: Future[None] | None = None
        self._scratch = self._work_path / "scratch"

        with ExitStack() as held:
            if not is_local(self.path):
                held.enter_context(leased(self.path.with_name(f"{self.path.name}.lock")))
                self._scratch = Path(held.enter_context(TemporaryDirectory(prefix="normalisr-dask-")))
            _claim_target(self.path, self._work_path, self._replaced_path, overwrite=overwrite)
            self._held = held.pop_all()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="count-store-writer")
        try:
            _claim_file(self._work_path).write_text(identity())
            self._root: ZarrGroup = self._create_store(obs, var)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()

    @property
    def scratch(self) -> Path:
        """Folder for files that are needed until the store is finished."""
        self._scratch.mkdir(exist_ok=True)
        return self._scratch

    def append(self, entries_per_cell: np.ndarray, indices: np.ndarray, counts: np.ndarray) -> None:
        """Append the next cells.

        Parameters
        ----------
        entries_per_cell
            Number of entries of each of these cells.
        indices
            Gene of each entry, ascending within a cell, without duplicates; shape (sum of `entries_per_cell`,).
        counts
            Count of each entry, unsigned integers up to 32 bits, not 0; same shape.
        """
        if not int(entries_per_cell.sum()) == indices.shape[0] == counts.shape[0]:
            msg = f"cells with {entries_per_cell.sum()} entries, but {indices.shape[0]} genes, {counts.shape[0]} counts"
            raise ValueError(msg)
        self._entries_per_cell.append(np.array(entries_per_cell, dtype=np.int64))
        if counts.shape[0] == 0:
            return
        self.n_entries += counts.shape[0]
        self.total_count += int(counts.sum(dtype=np.uint64))
        self.largest_count = max(self.largest_count, int(counts.max()))
        if self.largest_count > np.iinfo(self._buffers[1].dtype).max:
            self._widen_counts()

        taken = 0
        while taken < counts.shape[0]:
            n_taken = min(counts.shape[0] - taken, SHARD_ENTRIES - self._n_buffered)
            place = slice(self._n_buffered, self._n_buffered + n_taken)
            self._buffers[0][place] = indices[taken : taken + n_taken]
            self._buffers[1][place] = counts[taken : taken + n_taken]
            taken += n_taken
            self._n_buffered += n_taken
            if self._n_buffered == SHARD_ENTRIES:
                self._flush()

    def finalise(self) -> CountStore:
        """Write what is left and publish the store.

        Returns
        -------
        CountStore

        Raises
        ------
        ValueError
            If not all cells were appended.
        """
        entries_per_cell = np.concatenate([np.zeros(1, dtype=np.int64), *self._entries_per_cell])
        if entries_per_cell.shape[0] != self.n_cells + 1:
            msg = f"expected {self.n_cells} cells, but {entries_per_cell.shape[0] - 1} were appended"
            raise ValueError(msg)
        self._flush()
        self._wait()
        matrix = self._root["X"]
        matrix["indptr"].resize((self.n_cells + 1,))
        matrix["indptr"][:] = np.cumsum(entries_per_cell)
        self._root.attrs[METADATA_KEY] = {
            "format_version": FORMAT_VERSION,
            "finished": True,
            "n_entries": self.n_entries,
            "total_count": self.total_count,
            "largest_count": self.largest_count,
            "provenance": self._provenance,
        }
        remove_folder(self._scratch)
        _claim_file(self._work_path).unlink()
        if not is_local(self.path):
            remove_folder(self.path)
        elif self.path.exists():
            self.path.rename(self._replaced_path)
        publish_folder(self._work_path, self.path)
        if is_local(self.path):
            remove_folder(self._replaced_path)
        return open_count_store(self.path)

    def discard(self) -> None:
        """Stop and remove the work folder; does nothing after `finalise`."""
        self._executor.shutdown(wait=True, cancel_futures=True)
        with self._held:
            remove_folder(self._work_path)

    def _create_store(self, obs: pd.DataFrame, var: pd.DataFrame) -> ZarrGroup:
        """Lay out an empty AnnData store with the names in it."""
        root: ZarrGroup = zarr.open_group(zarr_store(self._work_path), mode="a", zarr_format=3)
        root.attrs.update(
            {
                "encoding-type": "anndata",
                "encoding-version": "0.1.0",
                METADATA_KEY: {"format_version": FORMAT_VERSION, "finished": False},
            }
        )
        for name in EMPTY_GROUPS:
            write_elem(root, name, {})
        for name, table in (("obs", obs), ("var", var)):
            write_elem(root, name, table, dataset_kwargs={"shards": None})  # said so that anndata does not warn
        matrix = root.create_group(
            "X",
            attributes={
                "encoding-type": "csr_matrix",
                "encoding-version": "0.1.0",
                "shape": [self.n_cells, self.n_genes],
            },
        )
        _create_entries_array(matrix, "indices", np.dtype(np.int32))
        _create_entries_array(matrix, "data", self._buffers[1].dtype)
        matrix.create_array(
            "indptr", shape=(0,), dtype=np.int64, chunks=(OFFSETS_CHUNK,), compressors=_compressor(np.dtype(np.int64))
        )
        # Zarr and anndata know a store by this file. `finalise` writes it again, with all attributes, as the last.
        (self._work_path / "zarr.json").unlink()
        return root

    def _flush(self) -> None:
        """Hand the full buffers to the writing thread and go on with new ones."""
        self._wait()
        if self._n_buffered == 0:
            return
        indices, counts = (buffer[: self._n_buffered] for buffer in self._buffers)
        self._pending = self._executor.submit(self._write, self._n_written, indices, counts)
        self._n_written += self._n_buffered
        self._n_buffered = 0
        self._buffers = self._new_buffers(counts.dtype)

    def _write(self, first: int, indices: np.ndarray, counts: np.ndarray) -> None:
        """Write one shard; runs in the writing thread."""
        for name, values in (("indices", indices), ("data", counts)):
            array = self._root[f"X/{name}"]
            array.resize((first + values.shape[0],))
            array[first:] = values

    def _wait(self) -> None:
        """Wait for the writing thread and raise what it raised."""
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def _widen_counts(self) -> None:
        """Change the counts, those already written too, to 32 bits, because a count needs them."""
        self._wait()
        dtype = np.dtype(np.uint32)
        self._buffers = (self._buffers[0], self._buffers[1].astype(dtype))
        matrix = self._root["X"]
        narrow = matrix["data"]
        wide = _create_entries_array(matrix, "data_wide", dtype)
        for first in range(0, self._n_written, SHARD_ENTRIES):
            values = narrow[first : first + SHARD_ENTRIES]
            wide.resize((first + values.shape[0],))
            wide[first:] = values
        del matrix["data"]
        publish_folder(self._work_path / "X" / "data_wide", self._work_path / "X" / "data")

    @staticmethod
    def _new_buffers(counts_dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Room for the genes and the counts of one shard."""
        return np.empty(SHARD_ENTRIES, dtype=np.int32), np.empty(SHARD_ENTRIES, dtype=counts_dtype)


def _compressor(dtype: np.dtype) -> BloscCodec:
    """Zstandard on shuffled bytes: the high bytes of indices and counts all but vanish."""
    return BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=dtype.itemsize)


def _create_entries_array(matrix: ZarrGroup, name: str, dtype: np.dtype) -> ZarrArray:
    """Create an empty array that grows with the entries."""
    return matrix.create_array(
        name,
        shape=(0,),
        dtype=dtype,
        chunks=(CHUNK_ENTRIES,),
        shards=(SHARD_ENTRIES,),
        compressors=_compressor(dtype),
    )


def _claim_file(work_path: Path) -> Path:
    """File that says which process is writing a store."""
    return work_path / "writer"


def _claim_target(path: Path, work_path: Path, replaced_path: Path, *, overwrite: bool) -> None:
    """Check that a store may be written, clear what a killed writer left, and make the work folder."""
    if is_local(path) and is_store(
        replaced_path
    ):  # killed in `finalise`: between its two renames, or while it removed the old store
        if path.exists():
            remove_folder(replaced_path)
        else:
            replaced_path.rename(path)
    if path.exists() or path.is_symlink():
        if not is_store(path):
            msg = f"{path} exists and is not a store; choose another path or remove it yourself"
            raise FileExistsError(msg)
        if not overwrite:
            msg = f"there is already a store at {path}; choose another path or overwrite it (--overwrite)"
            raise FileExistsError(msg)
    if is_local(path) and not path.parent.is_dir():
        msg = f"the folder {path.parent} for the store {path.name} does not exist"
        raise FileNotFoundError(msg)
    if work_path.exists():
        _check_abandoned(path, work_path)
        remove_folder(work_path)
    if is_local(path):
        work_path.mkdir()


def _check_abandoned(path: Path, work_path: Path) -> None:
    """Refuse to touch the work folder of a process that is still running on this machine, or what is none."""
    claim = _claim_file(work_path)
    if not (work_path.is_dir() and (has_file(claim) or is_store(work_path) or not any(work_path.iterdir()))):
        msg = f"{work_path} is in the way and is no unfinished store; move it, or choose another name than {path.name}"
        raise FileExistsError(msg)
    holder = claim.read_text() if has_file(claim) else ""
    if is_running(holder):
        msg = f"process {number_of(holder)} is writing {path}; wait for it or stop it"
        raise FileExistsError(msg)
