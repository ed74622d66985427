"""Log-expression of samples from every container that carries it: arrays, tables, mappings, AnnData, Zarr."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import dask.array as da
import h5py
import numpy as np
import pandas as pd
import scipy.sparse
import zarr
from anndata.experimental import read_elem_lazy

from normalisr_dask.graph.rows import Matrix, RowPasses, as_rows_of_samples
from normalisr_dask.validation import did_you_mean

# what read_elem_lazy takes and gives is typed as a union of everything that a store can hold
Stored = Any

SUFFIX = "_E"


@dataclass(frozen=True)
class ExpressionInput:
    """A matrix of log-expression and what came with it.

    Attributes
    ----------
    expression
        float64 (genes, samples), in memory or lazy.
    genes
        Names, a table of annotation, or None.
    weights, design
        What the container carries, or None.
    samples
        Table of the samples, for formulae; None unless the container is AnnData.
    adata
        The AnnData object to write into, or None.
    """

    expression: Matrix
    genes: Any = None
    weights: Any = None
    design: Any = None
    samples: pd.DataFrame | None = None
    adata: anndata.AnnData | None = None

    @property
    def passes(self) -> RowPasses:
        """Passes over the rows of the matrix."""
        return RowPasses(self.expression)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and samples."""
        return self.passes.shape


def read_expression(values: Any, layer: str | None = None, weights_layer: str | None = None) -> ExpressionInput:
    """Take a matrix, genes × samples, out of a container.

    Parameters
    ----------
    values
        Array of NumPy, SciPy, Dask or Zarr; data frame; mapping with "E" or "exprs"; AnnData, in memory, backed or
        lazy; Zarr group, or path of one, with AnnData or "E"; path of an h5ad file.
    layer, weights_layer
        Of AnnData: the layer to read in place of X, and one with weights.

    Raises
    ------
    FileNotFoundError
        If there is nothing at the path.
    TypeError
        If there is no matrix of numbers in it, or a layer was named and it is no AnnData.
    KeyError
        If AnnData lacks the layer with weights.
    ValueError
        If AnnData lacks the layer, or the file cannot be opened as what its name says.
    """
    if isinstance(values, anndata.AnnData):
        return _of_anndata(values, layer, weights_layer)
    if isinstance(values, str | Path) and Path(values).suffix == ".h5ad":
        with _h5ad(values) as file:
            return _of_stored_anndata(file, layer, weights_layer)
    group = _stored_group(values)
    if group is not None and group.attrs.get("encoding-type") == "anndata":
        return _of_stored_anndata(group, layer, weights_layer)
    if layer is not None or weights_layer is not None:
        msg = f"a layer can be named for AnnData only, found {type(values).__name__}"
        raise TypeError(msg)
    if group is not None:
        return _of_mapping(dict(group.arrays()))
    if isinstance(values, str | Path):
        return ExpressionInput(_matrix(zarr.open_array(str(values), mode="r")))
    if isinstance(values, pd.DataFrame):
        return _of_frame(values)
    if isinstance(values, Mapping):
        return _of_mapping(values)
    return ExpressionInput(_matrix(values))


def read_target(values: Any, layer: str | None = None, weights_layer: str | None = None) -> ExpressionInput:
    """Read as :func:`read_expression` does what results are written into, where it is AnnData.

    Raises
    ------
    ValueError
        If it is a view of AnnData that lies on disk: nothing can be written into that.
    """
    if isinstance(values, anndata.AnnData) and values.isbacked and values.is_view:
        msg = (
            f"expected AnnData that results can be written into, found a view of {values.filename} on disk; "
            "give view.to_memory()"
        )
        raise ValueError(msg)
    return read_expression(values, layer, weights_layer)


def _of_anndata(adata: anndata.AnnData, layer: str | None, weights_layer: str | None) -> ExpressionInput:
    stem = layer.removesuffix(SUFFIX) if layer is not None and layer.endswith(SUFFIX) else None
    _check_layers(adata.layers, layer, weights_layer)
    if layer is not None:
        stored = adata.layers[layer]
    elif adata.isbacked and not adata.is_view:
        stored = _backed(adata)
    else:
        stored = adata.X
    name = weights_layer
    if name is None and stem is not None and f"{stem}_weights" in adata.layers:
        name = f"{stem}_weights"
    return ExpressionInput(
        _matrix(_transposed(stored)),
        genes=[str(gene) for gene in adata.var_names],
        weights=None if name is None else _matrix(_transposed(adata.layers[name])),
        design=None if stem is None else dict(adata.uns.get(stem, {})).get("design"),
        samples=adata.obs,
        adata=adata,
    )


def _check_layers(layers: Collection[str], layer: str | None, weights_layer: str | None) -> None:
    """Refuse names of layers that are not there."""
    if layer is not None and layer not in layers:
        msg = f"there is no layer {layer!r} in the AnnData object; it has {sorted(layers)}{did_you_mean(layer, layers)}"
        raise ValueError(msg)
    if weights_layer is not None and weights_layer not in layers:
        msg = f"there is no layer {weights_layer!r} with weights in the AnnData object; it has {sorted(layers)}"
        raise KeyError(msg)


def _backed(adata: anndata.AnnData) -> Stored:
    """Return X of a backed object as a Dask array whose tasks open the file themselves."""
    with h5py.File(adata.filename, "r") as file:
        return _lazy_element(file["X"], adata.shape)


def _lazy_element(element: Stored, shape: tuple[int, int]) -> Stored:
    n_samples, n_genes = shape
    kind = element.attrs.get("encoding-type")
    if kind in {"csr_matrix", "csc_matrix"}:
        return read_elem_lazy(element)
    genes = max(1, (16 << 20) // (8 * max(1, n_samples)))
    return read_elem_lazy(element, chunks=(n_samples, min(genes, max(1, n_genes))))


def _of_stored_anndata(group: zarr.Group | h5py.File, layer: str | None, weights_layer: str | None) -> ExpressionInput:
    """Read a stored AnnData object lazily; there is no object to write into."""
    members: Stored = group
    if not {"obs", "var"} <= set(group.keys()):
        where = group.filename if isinstance(group, h5py.File) else group.store_path
        msg = f"{where} is not AnnData: it lacks obs or var, the tables of samples and genes"
        raise ValueError(msg)
    obs, var = anndata.io.read_elem(members["obs"]), anndata.io.read_elem(members["var"])
    shape = (len(obs), len(var))
    layers = {name: members[f"layers/{name}"] for name in members["layers"]} if "layers" in group else {}
    _check_layers(layers, layer, weights_layer)  # what is made below has only the layers asked for
    adata = anndata.AnnData(
        X=_lazy_element(members["X"], shape) if layer is None and "X" in group else None,
        obs=obs,
        var=var,
        layers={
            name: _lazy_element(layers[name], shape)
            for name in layers
            if name in {layer, weights_layer, f"{(layer or '').removesuffix(SUFFIX)}_weights"}
        },
        uns=anndata.io.read_elem(members["uns"]) if "uns" in group else {},
    )
    return replace(_of_anndata(adata, layer, weights_layer), adata=None)


def _stored_group(values: Any) -> zarr.Group | None:
    if isinstance(values, zarr.Group):
        return values
    if isinstance(values, str | Path):
        if not isinstance(_opened_zarr(values), zarr.Group):
            return None
        return zarr.open_group(str(values), mode="r", use_consolidated=False)  # consolidated metadata may be stale
    return None


def _h5ad(path: str | Path) -> h5py.File:
    if not Path(path).is_file():
        msg = f"there is no file {path}"
        raise FileNotFoundError(msg)
    try:
        return h5py.File(Path(path).absolute(), "r")  # tasks open it by its name, in other folders
    except OSError as error:
        msg = f"{path} is no h5ad file, or a damaged one: HDF5 cannot open it ({error})"
        raise ValueError(msg) from error


def _opened_zarr(path: str | Path) -> zarr.Group | zarr.Array:
    try:
        return zarr.open(str(path), mode="r")
    except (FileNotFoundError, ValueError) as error:
        if not Path(path).exists():
            msg = f"there is no file or store at {path}"
            raise FileNotFoundError(msg) from error
        msg = (
            f"{path} is neither an .h5ad file nor a Zarr store, or a damaged one; "
            "a table of text can be read with pandas and given as a data frame"
        )
        raise ValueError(msg) from error


def _of_frame(frame: pd.DataFrame) -> ExpressionInput:
    is_number = np.array([_is_number(kind) for kind in frame.dtypes], dtype=bool)
    if is_number.all():
        return ExpressionInput(_matrix(_frame_values(frame)), genes=[str(name) for name in frame.index])
    if is_number.size > 1 and not is_number[0] and is_number[1:].all():
        return ExpressionInput(_matrix(_frame_values(frame.iloc[:, 1:])), genes=frame.iloc[:, :1])
    others = [str(name) for name, numeric in zip(frame.columns, is_number, strict=True) if not numeric]
    msg = (
        "expected a data frame of numbers, of which the first column alone may annotate the genes; "
        f"found no numbers in {others[:5]}"
    )
    raise TypeError(msg)


def _is_number(kind: Any) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)


def _frame_values(frame: pd.DataFrame) -> np.ndarray:
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _of_mapping(values: Mapping[str, Any]) -> ExpressionInput:
    name = next((name for name in ("E", "exprs") if name in values), None)
    if name is None:
        msg = f"expected a mapping with the expression as 'E' or 'exprs', found {sorted(map(str, values))}"
        raise TypeError(msg)
    inner = read_expression(values[name])
    genes = values.get("genes" if name == "E" else "probes")
    return replace(
        inner,
        genes=inner.genes if genes is None else genes,
        weights=values.get("weights"),
        design=values.get("design"),
    )


def _transposed(matrix: Stored) -> Any:
    """Return samples × genes as genes × samples."""
    if matrix is None:
        msg = "the AnnData object has no X; name a layer"
        raise TypeError(msg)
    return matrix.T if hasattr(matrix, "T") else np.asarray(matrix).T


def _matrix(values: Any) -> Matrix:
    """Return float64 (genes, samples), lazy for Dask and Zarr arrays."""
    if values is None:
        msg = "expected a matrix of log-expression, genes × samples, found None"
        raise TypeError(msg)
    if isinstance(values, zarr.Array):
        values = da.from_zarr(values)
    if scipy.sparse.issparse(values):
        values = values.toarray()
    if not isinstance(values, da.Array):
        values = np.asarray(values)
    if values.dtype.kind not in "iuf" or values.ndim not in {1, 2}:
        msg = (
            "expected a matrix of numbers, genes × samples, found "
            f"{values.ndim} dimensions of type {values.dtype}; EList, AnnData and data frames are fine, too"
        )
        raise TypeError(msg)
    values = values.reshape(1, -1) if values.ndim == 1 else values
    if isinstance(values, da.Array):
        return as_rows_of_samples(values)
    return np.ascontiguousarray(values, dtype=np.float64)
