"""Ingest: count matrices of any supported format into one count store, streaming."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from normalisr_dask.storage.count_source import CountSource, Entries, ProgressCallback, ProgressEvent, ignore_progress
from normalisr_dask.storage.count_store import CountStore
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.storage.disk_space import disk_full_errors
from normalisr_dask.storage.entry_order import OutOfOrderError, RowBuilder, rows_after_sorting, rows_as_they_come
from normalisr_dask.storage.inputs import open_source
from normalisr_dask.storage.locations import as_path, is_local
from normalisr_dask.storage.names import add_cell_table, join_cells, join_genes, make_genes_unique, storable
from normalisr_dask.storage.outputs import check_outside_stores
from normalisr_dask.storage.url_errors import url_errors

NameFiles = str | Path | Sequence[str | Path] | None


def ingest(
    inputs: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    genes: NameFiles = None,
    cells: NameFiles = None,
    obs: str | Path | None = None,
    transpose: bool = False,
    join: Literal["inner", "outer"] | None = None,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> CountStore:
    """Convert count matrices to one count store.

    Parameters
    ----------
    inputs
        One or more of: Matrix Market (``.mtx``, ``.mtx.gz``), a 10x folder, 10x HDF5, h5ad, an AnnData-Zarr store, a
        dense table of text (``.tsv``, ``.csv``, ``.txt``, gzipped or not) with names of cells in the first line and
        of genes in the first column. Several are put below one another as cells.
    store
        Where the count store is written: a path, or a URL such as ``s3://bucket/counts.zarr``.
    genes, cells
        Files of names, one for all inputs or one for each. Matrix Market finds Cell Ranger's files beside it without
        them; for other inputs they replace the names inside. 10x inputs keep all kinds of feature; column
        ``feature_types`` of `var` tells them apart.
    obs
        Table of cells, text or Parquet, with the names of the cells in its first column.
    transpose
        Whether Matrix Market and text inputs are cells × genes; by default they are genes × cells.
    join
        What to do if inputs differ in their genes: ``"inner"`` keeps those that all have, ``"outer"`` keeps all.
    overwrite
        Whether a store that is already there is replaced.
    progress
        Called with a `ProgressEvent` after each block of some megabytes.

    Returns
    -------
    CountStore

    Raises
    ------
    FileNotFoundError
        If an input, or a file of names, is missing.
    FileExistsError
        If there is a store already and `overwrite` is not set, or something that is no store.
    ValueError
        If an input is damaged, holds no counts, or does not fit its names or the other inputs.
    OSError
        If the disk is full, or object storage refuses or does not answer.

    Warns
    -----
    UserWarning
        For duplicate gene names, which are made unique as anndata does; for duplicate entries, which are added up; for
        rows of `obs` that belong to no cell.

    Notes
    -----
    Memory stays below 700 MB whatever the size of the inputs. Inputs that do not go cell by cell (CSC matrices, dense
    tables, Matrix Market sorted by genes) are sorted through files beside the store, 12 bytes an entry. The store
    appears at its path only when it is finished; a run that was interrupted leaves a work folder ``STORE.partial`` at
    most, which the next run removes.
    """
    inputs = [inputs] if isinstance(inputs, str | Path) else inputs
    if not inputs:
        msg = "expected at least one input, found none"
        raise ValueError(msg)
    for path in inputs:
        if not is_local(path):
            msg = f"an input is read from a file or folder of this machine, not from {path}; copy it here first"
            raise ValueError(msg)
    paths = [Path(path) for path in inputs]
    check_outside_stores(store)
    gene_files = _one_for_each(genes, len(paths), "genes")
    cell_files = _one_for_each(cells, len(paths), "cells")
    sources = [
        open_source(path, genes=gene_file, cells=cell_file, transpose=transpose)
        for path, gene_file, cell_file in zip(paths, gene_files, cell_files, strict=True)
    ]
    gene_tables = [make_genes_unique(source.var, source.path) for source in sources]
    joined_genes = join_genes(gene_tables, paths, join)
    joined_cells = join_cells([source.obs for source in sources], paths)
    if obs is not None:
        joined_cells = add_cell_table(joined_cells, Path(obs))
    gene_maps = [joined_genes.index.get_indexer(table.index).astype(np.int32) for table in gene_tables]

    with url_errors(store), disk_full_errors(as_path(store).absolute().parent, "the unfinished store was removed"):
        while True:
            with CountStoreWriter(
                store,
                obs=storable(joined_cells),
                var=storable(joined_genes),
                provenance=_provenance(sources),
                overwrite=overwrite,
            ) as writer:
                try:
                    n_duplicates = _write_sources(sources, gene_maps, writer, progress or ignore_progress)
                except _RestartError:
                    continue
                written = writer.finalise()
            break
    if n_duplicates:
        msg = f"{n_duplicates} duplicate entries were added to others of the same cell and gene"
        warnings.warn(msg, UserWarning, stacklevel=2)
    return written


class _RestartError(Exception):
    """An input turned out not to go cell by cell; it is marked, and writing begins anew."""


def _write_sources(
    sources: Sequence[CountSource],
    gene_maps: Sequence[np.ndarray],
    writer: CountStoreWriter,
    progress: ProgressCallback,
) -> int:
    """Write all inputs one after another; returns the number of duplicate entries."""
    bytes_total = sum(source.n_bytes for source in sources)
    bytes_before = n_duplicates = n_entries = 0

    def read(blocks: Iterator[Entries]) -> Iterator[Entries]:
        nonlocal n_entries
        for block in blocks:
            n_entries += block.cells.shape[0]
            progress(ProgressEvent("reading", bytes_before + block.bytes_done, bytes_total, n_entries))
            yield block

    def report_sorting(done: int, total: int, n_sorted: int) -> None:
        progress(ProgressEvent("sorting", done, total, n_sorted))

    for number, (source, gene_map) in enumerate(zip(sources, gene_maps, strict=True)):
        builder = RowBuilder(source.path, gene_map, writer.n_genes)
        n_cells = len(source.obs)
        with closing(source.entries()) as entries:
            if source.by_cell:
                rows = rows_as_they_come(read(entries), builder, n_cells)
            else:
                folder = writer.scratch / str(number)
                rows = rows_after_sorting(read(entries), builder, n_cells, source.n_entries, folder, report_sorting)
            try:
                for block in rows:
                    n_duplicates += block.n_duplicates
                    writer.append(block.entries_per_cell, block.indices, block.counts)
            except OutOfOrderError as error:
                source.by_cell = False
                raise _RestartError from error
        bytes_before += source.n_bytes
    return n_duplicates


def _one_for_each(files: NameFiles, n_inputs: int, option: str) -> list[Path | None]:
    """Files of names for each input."""
    if files is None:
        return [None] * n_inputs
    if isinstance(files, str | Path):
        files = [files]
    if option == "genes" and len(files) == 1:
        files = list(files) * n_inputs
    if len(files) != n_inputs:
        msg = f"expected a file of {option} (--{option}) for each of {n_inputs} inputs, found {len(files)}"
        raise ValueError(msg)
    return [Path(file) for file in files]


def _provenance(sources: Sequence[CountSource]) -> dict[str, Any]:
    """Where the counts come from."""
    return {
        "inputs": [{"path": str(source.path), "bytes": source.n_bytes} for source in sources],
        "created": pd.Timestamp.now("UTC").isoformat(timespec="seconds"),
        "normalisr_dask": version("normalisr-dask"),
    }
