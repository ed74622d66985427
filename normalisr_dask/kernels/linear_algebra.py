"""Small dense linear algebra: pseudo-inverses of Gram matrices with their rank, for one matrix or a stack of them."""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Eigenvalues below this share of the largest one count as zero (the published default of Normalisr).
TOLERANCE = 1e-8
#: Pivots above this share of the largest diagonal entry leave no eigenvalue near the tolerance.
WELL_CONDITIONED = 1e-3


def symmetric_pinv(
    gram: NDArray[np.float64], tolerance: float = TOLERANCE
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the pseudo-inverse and the rank of symmetric positive semi-definite matrices.

    Parameters
    ----------
    gram
        float64 (..., q, q).
    tolerance
        Eigenvalues below ``tolerance`` × the largest eigenvalue count as zero.

    Returns
    -------
    Pseudo-inverses float64 (..., q, q) and ranks int64 (...).

    Raises
    ------
    ValueError
        If a matrix holds NaN or infinity, as that of covariates with such values does.
    """
    if not np.isfinite(gram).all():
        msg = "expected finite covariates, weights and scaling factors, found NaN or infinity in their products"
        raise ValueError(msg)
    if gram.shape[-1] == 0:
        return gram, np.zeros(gram.shape[:-2], dtype=np.int64)
    eigenvalues, eigenvectors = np.linalg.eigh(gram)
    largest = eigenvalues[..., -1:]
    kept = (eigenvalues > 0) & (eigenvalues >= tolerance * largest)
    inverse = np.where(kept, 1.0 / np.where(kept, eigenvalues, 1.0), 0.0)
    pinv = (eigenvectors * inverse[..., None, :]) @ np.swapaxes(eigenvectors, -1, -2)
    return pinv, kept.sum(axis=-1)


def cross_product(rows: NDArray[np.float64], *, others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows × othersᵀ of one chunk of cells: (r, cells) and (s, cells) to (r, s)."""
    return np.asarray(times_transposed(rows, others), dtype=np.float64)


def times_transposed(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Return left × rightᵀ, with bits that depend on nothing but the values.

    NumPy lets another function of BLAS multiply an array with itself, and takes two arrays for one where they lie at
    one place in memory. Equal ones do or do not, as messages bring them to a worker.
    """
    are_equal = left.shape == right.shape and np.array_equal(left[:, :1], right[:, :1]) and np.array_equal(left, right)
    return np.asarray(left @ (left if are_equal else right).T)


def coefficients(products: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return least-squares coefficients (n, q) of n rows on q covariates.

    Parameters
    ----------
    products
        Rows times covariates, float64 (n, q).
    gram
        Covariates times covariates, float64 (q, q); of any rank, the solution is that of smallest norm.
    """
    return np.asarray(products @ symmetric_pinv(gram)[0])


def stacked_coefficients(products: NDArray[np.float64], grams: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return least-squares coefficients (n, q) of n rows, each of which has a Gram matrix of its own.

    Parameters
    ----------
    products
        Rows times covariates, float64 (n, q).
    grams
        Covariates times covariates as every row weights them, float64 (n, q, q); of any rank, as for
        :func:`coefficients`.
    """
    fitted = np.empty_like(products)
    is_solved = np.empty(len(products), dtype=np.bool_)
    _solve_well_conditioned(grams, products, fitted, is_solved)
    if not is_solved.all():  # eigenvectors take ten times as long
        others = ~is_solved
        fitted[others] = np.einsum("gkl,gl->gk", symmetric_pinv(grams[others])[0], products[others])
    return fitted


@njit(nogil=True, cache=True)
def _solve_well_conditioned(grams, products, fitted, is_solved):  # type: ignore[no-untyped-def]
    """Solve by Cholesky factors where all pivots are large; a matrix with NaN or infinity has none such."""
    size = products.shape[1]
    factor = np.empty((size, size))
    for number in range(products.shape[0]):
        gram, solution = grams[number], fitted[number]
        largest = 0.0
        for row in range(size):
            largest = max(largest, gram[row, row])
        is_solved[number] = np.isfinite(largest)
        for row in range(size):
            for column in range(row + 1):
                value = gram[row, column]
                for before in range(column):
                    value -= factor[row, before] * factor[column, before]
                if column < row:
                    factor[row, column] = value / factor[column, column]
                elif value > WELL_CONDITIONED * largest:
                    factor[row, row] = np.sqrt(value)
                else:
                    is_solved[number] = False
            if not is_solved[number]:
                break
        if not is_solved[number]:
            continue
        for row in range(size):
            value = products[number, row]
            for before in range(row):
                value -= factor[row, before] * solution[before]
            solution[row] = value / factor[row, row]
        for row in range(size - 1, -1, -1):
            value = solution[row]
            for after in range(row + 1, size):
                value -= factor[after, row] * solution[after]
            solution[row] = value / factor[row, row]
