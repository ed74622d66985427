"""10x HDF5 files, of Cell Ranger 2 and 3, as streams of entries; finding the matrix of a 10x folder."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from normalisr_dask.storage.anndata_input import Container, open_container
from normalisr_dask.storage.background import in_background
from normalisr_dask.storage.compressed_matrix import CompressedMatrix, compressed_entries
from normalisr_dask.storage.count_source import Entries

MATRIX_PARTS = {"barcodes", "data", "indices", "indptr", "shape"}
# where the names of genes and the columns of var are
VERSION_3 = {"names": "features/name", "gene_ids": "features/id", "feature_types": "features/feature_type"}
VERSION_2 = {"names": "gene_names", "gene_ids": "genes"}


class TenXFileSource:
    """A 10x HDF5 file, filtered or raw; all kinds of feature are kept, `var` tells them apart.

    Raises
    ------
    ValueError
        If it has no matrix, matrices of several genomes, or names that do not fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.by_cell = True
        self.n_bytes = path.stat().st_size
        with open_container(path) as root:
            self._group = _matrix_group(root, path)
            matrix = root[self._group]
            places = dict(VERSION_3 if "features" in matrix else VERSION_2)
            shape = tuple(int(length) for length in matrix["shape"][:])
            cells = _strings(matrix["barcodes"])
            columns = {column: _strings(matrix[place]) for column, place in places.items()}
            self.n_entries = int(matrix["data"].shape[0])
        for column, values in columns.items():
            if (len(values), len(cells)) != shape:
                msg = (
                    f"{path} is damaged: its matrix has {' × '.join(map(str, shape))} genes × cells, but there are"
                    f" {len(values)} gene {column} and {len(cells)} cell names"
                )
                raise ValueError(msg)
        names = columns.pop("names")
        self.obs, self.var = pd.DataFrame(index=pd.Index(cells)), pd.DataFrame(columns, index=pd.Index(names))

    def entries(self) -> Generator[Entries, None, None]:
        """Read the entries.

        Raises
        ------
        ValueError
            If the file is damaged or holds something else than counts.
        """
        return in_background(self._read())

    def _read(self) -> Iterator[Entries]:
        """Read in the background; CSC of genes × cells, so cell by cell."""
        with open_container(self.path) as root:
            matrix = root[self._group]
            compressed = CompressedMatrix(
                offsets=matrix["indptr"],
                indices=matrix["indices"],
                data=matrix["data"],
                n_cells=len(self.obs),
                n_genes=len(self.var),
                by_cell=True,
            )
            yield from compressed_entries(compressed, path=self.path, n_bytes=self.n_bytes)


def is_ten_x_file(path: Path) -> bool:
    """Whether an HDF5 file holds a 10x matrix."""
    with open_container(path) as root:
        return bool(_matrix_groups(root))


def find_matrix(folder: Path) -> Path:
    """Find the Matrix Market file of a 10x folder; a prefix may stand before its name, as in GEO.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If there are several.
    """
    found = sorted(path for path in folder.iterdir() if path.name.endswith(("matrix.mtx", "matrix.mtx.gz")))
    if not found:
        inside = sorted(path.parent for path in folder.glob("*/matrix.mtx*"))
        hint = f"; did you mean {inside[0]}?" if inside else ""
        msg = f"{folder} is neither a store nor a 10x folder: it has no matrix.mtx or matrix.mtx.gz{hint}"
        raise FileNotFoundError(msg)
    if len(found) > 1:
        msg = f"{folder} has {len(found)} matrices, {found[0].name} and {found[1].name} among them; name one of them"
        raise ValueError(msg)
    return found[0]


def _matrix_groups(root: Container) -> list[str]:
    """Names of the groups that hold a 10x matrix."""
    return [name for name, group in root.items() if hasattr(group, "keys") and set(group.keys()) >= MATRIX_PARTS]


def _matrix_group(root: Container, path: Path) -> str:
    """Name of the group that holds the 10x matrix."""
    names = _matrix_groups(root)
    if len(names) != 1:
        msg = f"{path} has {len(names)} genomes, {', '.join(names)}; expected the matrix of one"
        raise ValueError(msg)
    return names[0]


def _strings(names: Any) -> np.ndarray:
    """Decode stored bytes to str objects."""
    return np.array([name.decode() for name in names[:].tolist()], dtype=object)
