"""Small dense linear algebra: pseudo-inverses of Gram matrices with their rank, for one matrix or a stack of them."""

import numpy as np
from numpy.typing import NDArray

#: Eigenvalues below this share of the largest one count as zero (the published default of Normalisr).
TOLERANCE = 1e-8


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
    return np.asarray(rows @ others.T, dtype=np.float64)


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
