"""Covariates of the tests in a form that costs their residuals no digits."""

from typing import NamedTuple

import dask.array as da
import numpy as np

from normalisr_dask.graph.layout import call_once, map_matrix, sum_over_cells
from normalisr_dask.kernels import covariates as kernels
from normalisr_dask.steps.expression import gram


class Basis(NamedTuple):
    """Rows that span the covariates.

    Attributes
    ----------
    rows : float64 (q, cells)
        Orthonormal but for rounding; rows of 0 stand for covariates that others determine.
    gram : float64 (q, q)
        rows × rowsᵀ.
    to_covariates : float64 (q, q)
        What turns coefficients on the rows into coefficients on the covariates.
    """

    rows: da.Array
    gram: da.Array
    to_covariates: da.Array


def orthonormal_basis(covariates: da.Array) -> Basis:
    """Return a basis of the covariates (q, cells), whatever their units, offsets and rank."""
    n_covariates, n_cells = covariates.shape
    products = sum_over_cells(kernels.products_with_ones, covariates, width=n_covariates + 1)
    combinations = call_once(
        kernels.orthonormal_combinations, products, shape=(2 * n_covariates, n_covariates), n_cells=n_cells
    )
    rows = map_matrix(kernels.combined, covariates, shared={"combinations": combinations[:n_covariates]})
    return Basis(rows, gram(rows), combinations[n_covariates:])


def as_they_are(covariates: da.Array) -> Basis:
    """Return the covariates themselves, for tests on their principal components, which depend on their units."""
    n_covariates = covariates.shape[0]
    return Basis(covariates, gram(covariates), da.from_array(np.eye(n_covariates), chunks=-1))
