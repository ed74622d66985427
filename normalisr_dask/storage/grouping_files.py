"""Files of groupings, as `run` reads them: Matrix Market with names beside it, or Parquet."""

import gzip
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import io, sparse

from normalisr_dask.storage.drafts import Drafts

#: Values of a run of cells that Parquet gets together.
BLOCK_VALUES = 4 << 20
SUFFIXES = (".mtx", ".mtx.gz", ".parquet")


def grouping_files(path: Path) -> tuple[Path, ...]:
    """Return the files that groupings of this name take: one, or the matrix, its groupings and its cells.

    Raises
    ------
    ValueError
        If the name ends in none of the suffixes.
    """
    name = path.name
    if name.endswith(".parquet"):
        return (path,)
    for suffix in (".mtx.gz", ".mtx"):
        if name.endswith(suffix):
            stem = name.removesuffix(suffix)
            return path, path.with_name(f"{stem}.groupings.txt"), path.with_name(f"{stem}.cells.txt")
    msg = f"{path}: groupings are written as {', '.join(SUFFIXES)}; give a name that ends so"
    raise ValueError(msg)


def write_groupings(
    path: str | Path,
    groupings: sparse.csc_array,
    names: Sequence[str] | NDArray[np.object_],
    cells: Sequence[str] | NDArray[np.object_],
) -> tuple[Path, ...]:
    """Write groupings so that ``run --groupings`` reads them.

    Parameters
    ----------
    path
        ``.parquet``: cells in the first column, a grouping in each other one. ``.mtx`` or ``.mtx.gz``: Matrix Market,
        groupings × cells, with the names beside it in ``NAME.groupings.txt`` and ``NAME.cells.txt``.
    groupings
        Whole numbers, (groupings, cells).
    names, cells
        Names of groupings and of cells.

    Returns
    -------
    tuple of Path
        The files, as :func:`grouping_files`.

    Raises
    ------
    ValueError
        If the name ends otherwise.

    Notes
    -----
    The files appear together, when all are whole. Memory: some copies of the stored entries for Matrix Market, 4
    million values for Parquet.
    """
    files = grouping_files(Path(path))
    with Drafts(map(str, files)) as drafts:
        matrix, *of_names = (Path(drafts[str(file)]) for file in files)
        if not of_names:
            _write_parquet(matrix, groupings, names, cells)
            return files
        for file, lines in zip(of_names, (names, cells), strict=True):
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        with matrix.open("wb") as raw, _gzipped(raw) if files[0].suffix == ".gz" else nullcontext(raw) as stream:
            io.mmwrite(stream, sparse.coo_array(groupings), field="integer", symmetry="general")
    return files


def _gzipped(file: BinaryIO) -> gzip.GzipFile:
    """Without name and time, so that the same groupings are the same bytes, by which a run knows its inputs again."""
    return gzip.GzipFile("", "wb", fileobj=file, mtime=0)


def _write_parquet(
    path: Path,
    groupings: sparse.csc_array,
    names: Sequence[str] | NDArray[np.object_],
    cells: Sequence[str] | NDArray[np.object_],
) -> None:
    """Write a run of cells at a time."""
    schema = pa.schema([("cell", pa.string()), *((str(name), pa.uint8()) for name in names)])
    height = max(1, BLOCK_VALUES // max(1, len(names)))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, max(1, len(cells)), height):
            columns = groupings[:, start : start + height].toarray()
            arrays = [pa.array(list(cells[start : start + height]), pa.string()), *map(pa.array, columns)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
