"""The files of one command: opened as lazy arrays, written together.

A matrix is text, Matrix Market, or a Zarr store: a dense array, counts, or expression made of counts. Text is copied
to a dense Zarr array before a step reads it, and made of one after, so that steps see blocks of cells, whatever the
size of the matrix.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import dask
import dask.array as da
import numpy as np
import pandas as pd
import zarr
from numpy.typing import NDArray

from normalisr_dask.commands.forms import form_of, vectors_of
from normalisr_dask.graph.inputs import is_sparse
from normalisr_dask.steps.expression import LogCpmForm, NormalisedForm, log_cpm_form, normalised_form, with_form
from normalisr_dask.storage.count_files import counts_of_array, counts_of_matrix_market, counts_of_text
from normalisr_dask.storage.count_store import is_store
from normalisr_dask.storage.counts import Counts, open_counts
from normalisr_dask.storage.damage import check_chunks, reading
from normalisr_dask.storage.drafts import Drafts
from normalisr_dask.storage.expression_store import StoredForm, read_expression, write_counts, write_expression
from normalisr_dask.storage.locations import HAS_ALL_CHUNKS
from normalisr_dask.storage.matrix_store import (
    WITH_ALL_CHUNKS,
    by_columns,
    by_rows,
    create_like,
    regular,
    row_blocks,
    store_rows,
)
from normalisr_dask.storage.name_lists import name_lines, read_name_list, write_text
from normalisr_dask.storage.number_text import read_rows, write_rows

logger = logging.getLogger(__name__)

COPY_AGAIN = "copy it or make it again"
Lazy = Any  # what dask.compute takes
Finish = Callable[[Any], None]
Axis = Literal["genes", "cells"]


class Matrix(NamedTuple):
    """A matrix, rows × cells.

    Attributes
    ----------
    values
        Lazy; with its form, where it is made of counts.
    counts
        The counts that it is made of, or is.
    """

    values: da.Array
    counts: Counts | None = None

    @property
    def is_counts(self) -> bool:
        """Whether it is counts, and not made of them."""
        return self.counts is not None and self.form is None

    @property
    def form(self) -> LogCpmForm | NormalisedForm | None:
        """How it is made of counts."""
        return log_cpm_form(self.values) or normalised_form(self.values)

    def dense(self) -> da.Array:
        """Return the values in dense chunks."""
        return self.values.map_blocks(_dense_block, meta=_EMPTY) if is_sparse(self.values) else self.values


class Files:
    """Opens the inputs of a command, and writes its outputs where all has gone well.

    Parameters
    ----------
    outputs
        Names of the files that will be written; None for those that are not asked for.

    Raises
    ------
    OSError, ValueError
        As :class:`normalisr_dask.storage.drafts.Drafts`.
    """

    def __init__(self, *outputs: str | None) -> None:
        self._drafts = Drafts(output for output in outputs if output is not None)
        self._n_scratch = 0

    def __enter__(self) -> Self:
        self._drafts.__enter__()
        self._scratch = self._drafts.scratch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._drafts.__exit__(kind, error, traceback)

    # ---- inputs

    def counts(self, name: str, *, matrix_market: bool = False) -> Counts:
        """Open counts, genes × cells.

        Parameters
        ----------
        name
            Count store, dense Zarr array, Matrix Market or text.
        matrix_market
            Whether a file is Matrix Market, whatever its name.
        """
        if not is_zarr(name):
            path = self._file(name)
            convert = counts_of_matrix_market if matrix_market or is_matrix_market(name) else counts_of_text
            return convert(path, self._folder())
        opened = _open_zarr(name)
        return counts_of_array(opened, self._folder()) if isinstance(opened, zarr.Array) else open_counts(_place(name))

    def matrix(self, name: str, *, finite: bool = True) -> Matrix:
        """Open any matrix as blocks of cells with all rows; refuse text that is not finite unless it may be so."""
        if is_matrix_market(name):
            counts = self.counts(name)
            return Matrix(counts.matrix, counts)
        if is_zarr(name):
            opened = _open_zarr(name)
            if isinstance(opened, zarr.Array) and opened.ndim == 1:  # weights, as a command has written them: a row
                return Matrix(da.from_array(np.asarray(opened[...])[np.newaxis], chunks=-1))
            if isinstance(opened, zarr.Array):
                return Matrix(by_columns(_two_dimensional(opened, name), _place(name)))
            stored = read_expression(_place(name))
            if stored is None:
                counts = open_counts(_place(name))
                return Matrix(counts.matrix, counts)
            return Matrix(with_form(form_of(stored)), stored.counts)
        path = self._folder() / "matrix.zarr"
        return Matrix(by_columns(self._staged(name, path, finite=finite), path))

    def rows(self, name: str) -> da.Array:
        """Open a dense matrix as blocks of whole rows."""
        if not is_zarr(name):
            return by_rows(self._staged(name, self._folder() / "matrix.zarr"))
        opened = _open_zarr(name)
        if not isinstance(opened, zarr.Array):
            msg = f"{name} is a Zarr group, expected an array of rows × columns"
            raise ValueError(msg)
        return by_rows(_two_dimensional(opened, name))

    def table(self, name: str) -> NDArray[np.float64]:
        """Read a matrix of few rows into memory, such as covariates."""
        stored = _open_zarr(name) if is_zarr(name) else self._staged(name, self._folder() / "matrix.zarr")
        if isinstance(stored, zarr.Group):
            msg = f"{name} is a Zarr group, expected an array"
            raise ValueError(msg)
        with reading(name, "a part of it", COPY_AGAIN):
            values = np.atleast_2d(np.asarray(stored[...], dtype=np.float64))
        return next(_finite(iter([values]), name))

    def vector(self, name: str, size: int | None = None, what: str = "") -> NDArray[np.float64]:
        """Read numbers in any shape as a vector; refuse another number of them than ``size``."""
        values = self.table(name).ravel()
        if size is not None and values.size != size:
            msg = f"{name} has {values.size:,} numbers, expected one for each of {size:,} {what}"
            raise ValueError(msg)
        return values

    def names(self, name: str, axis: Axis, size: int | None = None, of: str = "") -> list[str]:
        """Read a list of names, or take those of a count store's genes or cells.

        Parameters
        ----------
        name
            The file or store.
        axis
            Which names of a store.
        size, of
            How many there must be, and of what.
        """
        names = _names_in_store(name, axis) if is_zarr(name) else read_name_list(self._file(name))
        if size is not None and len(names) != size:
            msg = f"{name} has {len(names):,} names, but there are {size:,} {of}"
            raise ValueError(msg)
        return names

    # ---- outputs

    def write(self, outputs: Mapping[str | None, Any]) -> None:
        """Compute all outputs in one go, and write them.

        Parameters
        ----------
        outputs
            By name: :class:`Matrix`, Dask or NumPy array, counts, list of names, or table; what has no name is left
            out.
        """
        planned = [self._planned(name, value) for name, value in outputs.items() if name is not None]
        logger.info("computing")
        computed = dask.compute([lazy for lazy, _ in planned])[0]
        for (_, finish), values, name in zip(planned, computed, filter(None, outputs), strict=True):
            logger.info("writing %s", name)
            finish(values)

    def _planned(self, name: str, value: Any) -> tuple[Lazy, Finish]:
        """Return what to compute for an output, and how to finish it with what was computed."""
        draft = self._drafts[name]
        if isinstance(value, Matrix) and is_zarr(name) and value.counts is not None:
            if value.form is None:
                return None, lambda _: write_counts(draft, value.counts)
            return vectors_of(value.form), partial(_write_form, draft, value)
        if isinstance(value, Matrix):
            value = value.dense()
        if isinstance(value, list | str | pd.DataFrame):
            return None, lambda _: write_text(Path(draft), _as_text(value), gzipped=is_gzip(name))
        if value.ndim == 1:
            return value, partial(_write_vector, name, draft)
        matrix = regular(da.asarray(value))
        target = create_like(draft if is_zarr(name) else self._folder() / "matrix.zarr", matrix)
        finish = _nothing_left if is_zarr(name) else partial(_write_rows, name, draft, target)
        return da.store(matrix, target, lock=False, compute=False), finish

    # ---- helpers

    def _folder(self) -> Path:
        """Make a folder for one matrix."""
        self._n_scratch += 1
        folder = self._scratch / str(self._n_scratch)
        folder.mkdir()
        return folder

    def _file(self, name: str) -> Path:
        """Return the path of a file; what a pipe gives is copied first, since files are read more than once."""
        path = Path(name)
        if not path.exists() or path.is_file() or path.is_dir():
            return path
        copy = self._folder() / "piped"
        with path.open("rb") as source, copy.open("wb") as target:
            while part := source.read(1 << 20):
                target.write(part)
        return copy

    def _staged(self, name: str, store: Path, *, finite: bool = True) -> zarr.Array:
        """Copy text to a dense array."""
        logger.info("reading %s", name)
        with closing(read_rows(self._file(name))) as blocks:
            return store_rows(store, _finite(blocks, name) if finite else blocks)


def is_zarr(name: str) -> bool:
    """Whether a name is that of a Zarr store: it ends so, is a URL, or there is one."""
    return "://" in name or name.rstrip("/").endswith(".zarr") or is_store(name)


def is_gzip(name: str) -> bool:
    """Whether a file of this name is to be compressed."""
    return name.endswith(".gz")


def is_matrix_market(name: str) -> bool:
    """Whether a name is that of a Matrix Market file."""
    return name.endswith((".mtx", ".mtx.gz"))


_EMPTY = np.empty((0, 0))


def _finite(blocks: Iterator[NDArray[np.float64]], name: str) -> Iterator[NDArray[np.float64]]:
    """Pass on rows, and refuse the first that is not finite."""
    n_rows = 0
    for rows in blocks:
        wrong = np.argwhere(~np.isfinite(rows))
        if wrong.size:
            row, column = wrong[0]
            msg = (
                f"{name}, row {n_rows + row + 1:,}, column {column + 1:,}: expected a finite number, "
                f"found {rows[row, column]}"
            )
            raise ValueError(msg)
        n_rows += len(rows)
        yield rows


def _dense_block(block: Any) -> NDArray[Any]:
    return block.toarray()


def _place(name: str) -> str:
    """Return where tasks find a store, whatever folder their process is in."""
    local = name.removeprefix("file://")
    return name if "://" in local else str(Path(local).absolute())


def _open_zarr(name: str) -> zarr.Array | zarr.Group:
    """Open a store for reading."""
    logger.info("opening %s", name)
    try:
        with reading(name, "its metadata", COPY_AGAIN):
            opened = zarr.open(_place(name), mode="r")
    except FileNotFoundError as error:
        msg = f"there is no Zarr store at {name}"
        raise FileNotFoundError(msg) from error
    if isinstance(opened, zarr.Array) and opened.dtype.kind not in "biuf":
        msg = f"{name} holds values of type {opened.dtype.name}, expected real numbers"
        raise ValueError(msg)
    if isinstance(opened, zarr.Array) and HAS_ALL_CHUNKS in opened.attrs:
        check_chunks(opened, name, "", COPY_AGAIN)
    return opened


def _names_in_store(name: str, axis: Axis) -> list[str]:
    """Return the names of genes or cells of a store of counts, or of expression made of counts."""
    stored = read_expression(name)
    counts = open_counts(name) if stored is None else stored.counts
    return list(map(str, counts.genes if axis == "genes" else counts.cells))


def _two_dimensional(array: zarr.Array, name: str) -> zarr.Array:
    if array.ndim != 2:
        msg = f"{name} has {array.ndim} dimensions, expected 2: rows × columns"
        raise ValueError(msg)
    return array


def _as_text(value: list[str] | str | pd.DataFrame) -> str:
    if isinstance(value, pd.DataFrame):
        return value.to_csv(sep="\t", index=False)
    return value if isinstance(value, str) else name_lines(value)


def _nothing_left(stored: Any) -> None:
    """Leave an array as it is that was stored at its place."""


def _write_rows(name: str, draft: Path | str, stored: zarr.Array, _: Any) -> None:
    write_rows(Path(draft), row_blocks(stored), gzipped=is_gzip(name))


def _write_vector(name: str, draft: Path | str, vector: NDArray[Any]) -> None:
    if is_zarr(name):
        zarr.create_array(draft, data=np.asarray(vector), zarr_format=3, **WITH_ALL_CHUNKS)
    else:
        write_rows(Path(draft), [np.asarray(vector)], gzipped=is_gzip(name))


def _write_form(draft: Path | str, matrix: Matrix, computed: tuple[str, dict[str, NDArray[Any]]]) -> None:
    kind, vectors = computed
    if matrix.counts is not None:
        write_expression(draft, StoredForm(kind, matrix.counts, vectors))
