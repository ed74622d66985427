"""What describes the samples of a fit: design matrices, block factors, weights in every shape."""

import warnings
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import patsy
import zarr
from numpy.typing import NDArray

from normalisr_dask.graph.rows import Matrix, RowPasses, as_rows_of_samples
from normalisr_dask.kernels.least_squares import independent_columns
from normalisr_dask.validation import did_you_mean, listing


@dataclass(frozen=True)
class Design:
    """A design matrix.

    Attributes
    ----------
    matrix
        float64 (samples, columns).
    names
        Of the columns, or None.
    pivot, rank
        Estimable columns in their order, then the others; and how many are estimable.
    """

    matrix: NDArray[np.float64]
    names: list[str] | None
    pivot: NDArray[np.int64]
    rank: int

    @property
    def estimable(self) -> NDArray[np.int64]:
        """Columns whose coefficients can be estimated."""
        return self.pivot[: self.rank]

    def warn_of_aliases(self) -> None:
        """Say which coefficients cannot be estimated, if any."""
        aliased = np.sort(self.pivot[self.rank :])
        if aliased.size:
            names = [str(column + 1) for column in aliased] if self.names is None else [self.names[j] for j in aliased]
            message = f"coefficients not estimable: {listing(names)}; they are combinations of the columns before them"
            warnings.warn(message, UserWarning, stacklevel=2)


def parse_design(design: Any, n_samples: int, samples: pd.DataFrame | None = None, *, name: str = "design") -> Design:
    """Make a design matrix of an array, a data frame, a formula, or None for a column of ones; messages name it.

    Raises
    ------
    ValueError
        If it is a formula without a table of samples, has another number of samples, or holds NaN or infinity.
    TypeError
        If it is no matrix of numbers.
    """
    names: list[str] | None = None
    if design is None:
        design = np.ones((n_samples, 1))
    if isinstance(design, str):
        design = _of_formula(design, samples)
    if isinstance(design, patsy.DesignMatrix):
        names = list(design.design_info.column_names)
    elif isinstance(design, pd.DataFrame):
        names = [str(name) for name in design.columns]
    try:
        matrix = np.asarray(design, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"expected a {name} of numbers, samples × columns, found {type(design).__name__} of other values"
        raise TypeError(msg) from error
    matrix = matrix.reshape(-1, 1) if matrix.ndim < 2 else matrix
    if matrix.ndim != 2 or matrix.shape[0] != n_samples:
        msg = f"expected a {name} with a row for each of {n_samples} samples, found shape {matrix.shape}"
        raise ValueError(msg)
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        msg = f"expected a finite {name}, found NaN or infinity in row {row}; leave the sample out or fill it in"
        raise ValueError(msg)
    pivot, rank = independent_columns(matrix)
    return Design(matrix, names, pivot, rank)


def _of_formula(formula: str, samples: pd.DataFrame | None) -> patsy.DesignMatrix:
    if samples is None:
        msg = f"the formula {formula!r} needs a table of samples: give AnnData, or a design matrix"
        raise ValueError(msg)
    try:
        return patsy.dmatrix(formula, samples, NA_action="raise")
    except patsy.PatsyError as error:
        hint = did_you_mean(error.__cause__.name, samples.columns) if isinstance(error.__cause__, NameError) else ""
        msg = f"the formula {formula!r} does not fit the table of samples: {' '.join(str(error).split())}{hint}"
        raise ValueError(msg) from error


def labels_of(labels: Any, n_samples: int, name: str) -> NDArray[Any]:
    """Return labels of samples (samples,), of any kind that can be hashed; also of a column.

    Raises
    ------
    ValueError
        If there is not one for each sample, or one is missing.
    TypeError
        If one cannot be hashed.
    """
    if isinstance(labels, pd.Series | pd.DataFrame | pd.Categorical | pd.Index):
        labels = labels.to_numpy()
    if isinstance(labels, list | tuple) and any(isinstance(label, tuple) for label in labels):
        values = np.empty(len(labels), dtype=object)  # an array of tuples would have them as rows
        values[:] = labels
    else:
        values = np.asarray(labels)
    if values.shape == (n_samples, 1):
        values = values[:, 0]
    if values.shape != (n_samples,):
        found = f"{values.size}" if values.ndim == 1 else f"shape {values.shape}"
        msg = f"expected {name} with a label for each of {n_samples} samples, found {found}"
        raise ValueError(msg)
    is_missing = pd.isna(pd.Series(values, dtype=object))
    if is_missing.any():
        msg = f"expected {name} with a label for each sample, found none for sample {int(np.argmax(is_missing))}"
        raise ValueError(msg)
    if not all(isinstance(label, Hashable) for label in values):
        msg = f"expected {name} with labels such as words or numbers, found {type(values[0]).__name__}"
        raise TypeError(msg)
    return values


def codes_of(labels: NDArray[Any]) -> NDArray[np.int64]:
    """Return numbers of the labels of samples, from 0 on, in the order of the sorted labels."""
    series = pd.Series(labels, dtype=object)
    try:
        codes, _ = pd.factorize(series, sort=True)
    except TypeError:  # labels that cannot be sorted, such as numbers and words
        codes, _ = pd.factorize(series.astype(str), sort=True)
    return np.asarray(codes, dtype=np.int64)


def weights_of(weights: Any, shape: tuple[int, int], *, is_lazy: bool) -> Matrix | None:
    """Bring weights of any shape to (genes, samples), or (1, samples) where all genes share them.

    A scalar or one weight a gene is repeated over samples. A vector as long as both is one of genes.

    Raises
    ------
    ValueError
        If the shape is none of these.
    TypeError
        If they are no numbers.
    """
    if weights is None:
        return None
    n_genes, n_samples = shape
    if isinstance(weights, zarr.Array):
        weights = da.from_zarr(weights)
    if isinstance(weights, da.Array) and weights.shape == shape:
        lazy = as_rows_of_samples(weights)
        return lazy if is_lazy else RowPasses(lazy).values(_as_given, width=n_samples, by_gene={"values": lazy})
    values = _numbers(weights, "weights")
    if values.shape == shape:
        return values
    if values.size == n_samples and values.shape == (1, n_samples) and n_samples > 1:
        return values
    if values.size == 1 or (values.size == n_genes and values.ndim < 2) or values.shape == (n_genes, 1):
        return np.broadcast_to(values.reshape(-1, 1), shape)
    if values.shape == (n_samples,):
        return values[None, :]
    hint = "; transpose them" if values.shape == (n_samples, n_genes) else ""
    msg = (
        f"expected weights for {n_genes} genes × {n_samples} samples, one for each gene, each sample or all, "
        f"found shape {values.shape}{hint}"
    )
    raise ValueError(msg)


def _numbers(values: Any, name: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = f"expected {name} of numbers, found {type(values).__name__} of other values"
        raise TypeError(msg) from error


def _as_given(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values


def predictor_of(predictor: Any, shape: tuple[int, int]) -> Matrix | None:
    """Bring a predictor to (genes, samples) or (genes, 1).

    Raises
    ------
    ValueError
        If the shape is another one.
    TypeError
        If it is no numbers.
    """
    if predictor is None:
        return None
    if isinstance(predictor, zarr.Array):
        predictor = da.from_zarr(predictor)
    if isinstance(predictor, da.Array) and predictor.shape == shape:
        return as_rows_of_samples(predictor)
    values = _numbers(predictor, "a predictor")
    values = values.reshape(-1, 1) if values.ndim == 1 else values
    if values.shape not in {shape, (shape[0], 1)}:
        msg = f"expected a predictor of shape {shape} or ({shape[0]},), found {np.shape(predictor)}"
        raise ValueError(msg)
    return values


def gene_name(genes: Any, position: int) -> str:
    """Return what to call a gene in a message."""
    if isinstance(genes, pd.DataFrame):
        return f"{genes.iloc[position, 0]!s} (row {position})"
    return f"{position} (counted from 0)" if genes is None else f"{list(genes)[position]} (row {position})"
