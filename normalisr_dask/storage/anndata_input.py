"""AnnData files, h5ad and Zarr, as streams of entries."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import zarr
from anndata.io import read_elem

from normalisr_dask.storage.background import in_background
from normalisr_dask.storage.compressed_matrix import (
    CompressedMatrix,
    compressed_entries,
    dense_entries,
)
from normalisr_dask.storage.count_source import Entries
from normalisr_dask.storage.count_store import check_files

LAYOUTS = {"csr_matrix": True, "csc_matrix": False}

Container = Any  # h5py.File or zarr.Group: both are mappings with attrs


class AnnDataSource:
    """An h5ad file or AnnData-Zarr store whose X holds counts; obs and var are carried over.

    Raises
    ------
    ValueError
        If it is not AnnData, or X is missing or of an unknown layout.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_container(path) as root:
            if not {"X", "obs", "var"} <= set(root.keys()):
                msg = f"{path} is neither AnnData (it lacks X, obs or var) nor a 10x matrix"
                raise ValueError(msg)
            if "encoding-type" not in root["obs"].attrs:
                msg = f"{path} was written by an old anndata; read it with anndata and write it again"
                raise ValueError(msg)
            self.obs, self.var = read_elem(root["obs"]), read_elem(root["var"])
            for table in (self.obs, self.var):
                table.index = table.index.astype(str)
                table.index.name = None
            layout = root["X"].attrs.get("encoding-type", "array")
            if layout not in {*LAYOUTS, "array"}:
                msg = f"X of {path} is {layout!r}, expected a CSR, CSC or dense matrix of counts"
                raise ValueError(msg)
            stored_shape = root["X"].attrs["shape"] if layout in LAYOUTS else root["X"].shape
            shape = tuple(int(length) for length in stored_shape)
            if shape != (len(self.obs), len(self.var)):
                msg = f"{path} is damaged: X is {shape}, but obs has {len(self.obs)} rows and var {len(self.var)}"
                raise ValueError(msg)
            self.by_cell = LAYOUTS.get(layout, True)
            if path.is_dir() and layout in LAYOUTS:
                check_files(path, root, shape[1] if self.by_cell else shape[0])
            self.n_entries = int(root["X/data"].shape[0]) if layout in LAYOUTS else shape[0] * shape[1]
        self.n_bytes = _size(path)

    def entries(self) -> Generator[Entries, None, None]:
        """Read the entries of X.

        Raises
        ------
        ValueError
            If X holds something else than counts.
        """
        return in_background(self._read())

    def _read(self) -> Iterator[Entries]:
        """Read in the background."""
        with open_container(self.path) as root:
            matrix = root["X"]
            layout = matrix.attrs.get("encoding-type", "array")
            if layout not in LAYOUTS:
                yield from dense_entries(matrix, path=self.path, n_bytes=self.n_bytes)
                return
            compressed = CompressedMatrix(
                offsets=matrix["indptr"],
                indices=matrix["indices"],
                data=matrix["data"],
                n_cells=len(self.obs),
                n_genes=len(self.var),
                by_cell=LAYOUTS[layout],
            )
            yield from compressed_entries(compressed, path=self.path, n_bytes=self.n_bytes)


@contextmanager
def open_container(path: Path) -> Iterator[Container]:
    """Open an HDF5 file or a Zarr store for reading.

    Raises
    ------
    ValueError
        If the HDF5 file is damaged.
    """
    if path.is_dir():
        yield zarr.open_group(path, mode="r", use_consolidated=False)
        return
    try:
        file = h5py.File(path, mode="r")
    except OSError as error:
        msg = f"{path} is truncated or damaged: HDF5 cannot open it ({error})"
        raise ValueError(msg) from error
    with file:
        try:
            yield file
        except (KeyError, OSError) as error:
            msg = f"{path} is damaged or incompletely copied: a part of it cannot be read ({error.args[0]})"
            raise ValueError(msg) from error


def _size(path: Path) -> int:
    """Size on disk, in bytes."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
