"""AnnData as the steps take it: counts, genes × cells, and columns, from objects in memory, on disk, and lazy."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import numpy as np
import pandas as pd
import scipy.sparse
import zarr
from numpy.typing import NDArray

from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.graph.vectors import positions
from normalisr_dask.kernels.counts import check_counts
from normalisr_dask.storage.h5ad_counts import h5ad_counts, is_by_cell
from normalisr_dask.validation import did_you_mean, listing

Positions = NDArray[np.int64]
#: What a table of AnnData is: a DataFrame, or AnnData's lazy stand-in for one.
Table = Any


def check_anndata(adata: Any) -> None:
    """Refuse what is no AnnData.

    Raises
    ------
    TypeError
    """
    if not isinstance(adata, anndata.AnnData):
        msg = f"expected an AnnData object, found {type(adata).__name__}; for arrays there are nd.qc_reads, nd.de, …"
        raise TypeError(msg)


def target(adata: Any, *, copy: bool) -> anndata.AnnData:
    """Return what results are written into: the object, or a copy of it.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If it lies on disk, and is a view or to be copied.
    """
    check_anndata(adata)
    if adata.isbacked and (copy or adata.is_view):
        what = "copied" if copy else "written into through a view"
        msg = f"AnnData whose X lies on disk cannot be {what} ({adata.filename}); give adata.to_memory()"
        raise ValueError(msg)
    return adata.copy() if copy else adata


def is_lazy(adata: anndata.AnnData, layer: str | None) -> bool:
    """Return whether a matrix of the object is not in memory, so that what is as large shall not be, either."""
    return (layer is None and adata.isbacked) or isinstance(_matrix(adata, layer), da.Array | zarr.Array)


def counts_of(
    adata: anndata.AnnData, layer: str | None, *, genes: Positions | None = None, cells: Positions | None = None
) -> da.Array:
    """Return the counts of X, or of a layer, genes × cells, in sparse chunks.

    Parameters
    ----------
    adata
        In memory, backed or lazy.
    layer
        None for X.
    genes, cells
        Positions of those to take, ascending; None for all.

    Raises
    ------
    ValueError
        If there is no such matrix, its file is open for writing, or a value in memory is no count.
        On compute: if a value of a lazy matrix is no count.
    """
    genes = np.arange(adata.n_vars) if genes is None else genes
    cells = np.arange(adata.n_obs) if cells is None else cells
    matrix = _matrix(adata, layer)
    if layer is None and adata.isbacked and not adata.is_view:
        path = Path(adata.filename).absolute()
        if adata.file._filemode != "r":
            msg = f"{path} is open for writing, and tasks cannot read it; open it with anndata.read_h5ad(…, backed='r')"
            raise ValueError(msg)
        if is_by_cell(path):
            return h5ad_counts(path, genes, cells)
        matrix = matrix.to_memory()
    if isinstance(matrix, zarr.Array):
        matrix = da.from_zarr(matrix)
    if cells.size < matrix.shape[0]:
        matrix = matrix[cells]
    if genes.size < matrix.shape[1]:
        matrix = matrix[:, genes]
    if isinstance(matrix, da.Array):
        return _checked(matrix.T)
    counts = scipy.sparse.csc_array(matrix.T if scipy.sparse.issparse(matrix) else np.asarray(matrix).T)
    try:
        check_counts(counts, cells, genes)
    except ValueError as error:
        msg = f"{_name(layer)} of the AnnData object: {error}, from the layer that holds them (layer=…)"
        raise ValueError(msg) from error
    return as_matrix(counts, _name(layer))


def column(table: Table, name: str, what: str) -> pd.Series:
    """Return a column of obs or var.

    Raises
    ------
    ValueError
        If there is none of this name; ``what`` says what it was named for.
    """
    if name not in table.columns:
        msg = f"{what}: there is no column {name!r} in the AnnData object{instead_of(name, table.columns)}"
        raise ValueError(msg)
    values = table[name]
    if isinstance(values, pd.Series):
        return values
    return pd.Series(np.asarray(values), index=pd.Index(table.index), name=name)


def instead_of(name: str, names: Iterable[str]) -> str:
    """Return the end of a message about a name that is not there: what there is, and the closest of it."""
    there = list(names)
    return f"; there is {listing(there)}{did_you_mean(name, there)}" if there else ", which has none"


def groupings_of(adata: Any, key: str) -> list[str]:
    """Return the names of the groupings that were tested.

    Raises
    ------
    TypeError
        If it is no AnnData.
    ValueError
        If none were tested.
    """
    check_anndata(adata)
    if key not in adata.uns or "groupings" not in adata.uns[key]:
        msg = f"there are no tests under {key!r} in the AnnData object; run nd.tl.de first (key names its key_added)"
        raise ValueError(msg)
    return [str(name) for name in np.asarray(adata.uns[key]["groupings"])]


def in_memory(values: Any) -> Any:
    """Return an element of obsm or varm in memory: an array, a sparse matrix or a DataFrame."""
    if isinstance(values, da.Array):
        return values.compute()
    return values.to_memory() if hasattr(values, "to_memory") else values


def spread(values: Any, chosen: Positions, size: int) -> Any:
    """Return an array over all cells or genes (axis 0), NaN (False for bool) where there is no value."""
    values = np.asarray(values)
    of_all = np.full((size, *values.shape[1:]), False if values.dtype.kind == "b" else np.nan)
    of_all[chosen] = values
    return of_all


def _matrix(adata: anndata.AnnData, layer: str | None) -> Any:
    if layer is not None:
        if layer not in adata.layers:
            msg = f"there is no layer {layer!r} in the AnnData object{instead_of(layer, adata.layers)}"
            raise ValueError(msg)
        return adata.layers[layer]
    if adata.X is None:
        way_out = f"; name the layer with counts (layer=…): {listing(list(adata.layers))}" if adata.layers else ""
        msg = f"the AnnData object has {'no X' if way_out else 'neither X nor layers'}{way_out}"
        raise ValueError(msg)
    return adata.X


def _name(layer: str | None) -> str:
    return "X" if layer is None else f"layer {layer!r}"


def _checked(counts: da.Array) -> da.Array:
    """Return lazy counts (genes, cells) in chunks of csc_array, looked at in every pass: X may have been replaced."""
    return da.blockwise(
        _checked_block,
        ("genes", "cells"),
        counts,
        ("genes", "cells"),
        positions(counts.chunks[1]),
        ("cells",),
        positions(counts.chunks[0]),
        ("genes",),
        align_arrays=False,
        dtype=counts.dtype,
        meta=scipy.sparse.csc_array((0, 0), dtype=counts.dtype),
    )


def _checked_block(block: Any, cell_index: Positions, gene_index: Positions) -> scipy.sparse.csc_array:
    return check_counts(scipy.sparse.csc_array(block), cell_index, gene_index)
