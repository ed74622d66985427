r"""A well-conditioned basis of covariates: neither units nor offsets nor collinearity cost what is removed its digits.

Rows about 100 with a standard deviation of 1, or a number beside its square, leave a Gram matrix of which products with
genes lose most of their digits. Combinations T of the rows C that are orthonormal but for rounding do not: residuals
on :math:`Q = TC` are those on C, and coefficients on Q times T are coefficients on C.

Letters of the shapes: q covariates, n cells of a block.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from normalisr_dask.kernels.linear_algebra import TOLERANCE

Floats = NDArray[np.float64]

#: A row is constant, or a multiple of a constant one, if no more than this share of its squares is left about the mean.
SAME = 1e-12


def products_with_ones(block: Floats) -> Floats:
    """Return Σ_cells C (C, 1)ᵀ, (q, q + 1)."""
    rows = np.asarray(block, dtype=np.float64)
    return np.asarray(rows @ np.vstack([rows, np.ones(rows.shape[1])]).T)


def orthonormal_combinations(products: Floats, *, n_cells: int) -> Floats:
    """Return T, and what turns coefficients on TC into those of smallest norm on C, (2q, q).

    A constant row comes first, so that others are judged about their means; then, each time, the row of which most is
    left. A row is left out (0 in T) if less than :data:`TOLERANCE` of its squares is left after those before it.

    Parameters
    ----------
    products
        From :func:`products_with_ones`, of all cells (q, q + 1).
    n_cells
        Number of cells.

    Raises
    ------
    ValueError
        If a value is not finite, as that of covariates with NaN or infinity.
    """
    if not np.isfinite(products).all():
        msg = "expected finite covariates, weights and scaling factors, found NaN or infinity in their products"
        raise ValueError(msg)
    gram, sums = products[:, :-1], products[:, -1]
    squares = np.diagonal(gram)
    n_rows = len(gram)
    combinations = np.zeros((n_rows, n_rows))
    centring = np.eye(n_rows)
    constant = _constant_row(squares, sums, n_cells)
    if constant is not None:
        combinations[constant, constant] = 1.0 / np.sqrt(squares[constant])
        centring[:, constant] -= gram[:, constant] / squares[constant]
    left = centring @ gram @ centring.T
    candidates = np.flatnonzero(np.diagonal(left) > SAME * squares)
    candidates = candidates[candidates != (-1 if constant is None else constant)]
    if candidates.size:
        scale = np.sqrt(np.diagonal(left)[candidates])
        scaled = left[np.ix_(candidates, candidates)] / np.outer(scale, scale)
        factor, pivots, rank, _ = lapack.dpstrf(np.asfortranarray(scaled), tol=TOLERANCE)
        taken = pivots[:rank] - 1
        inverse, _ = lapack.dtrtri(factor[:rank, :rank])
        combinations[candidates[taken]] = np.triu(inverse).T @ (centring[candidates[taken]] / scale[taken, None])
    return np.vstack([combinations, combinations @ _onto_smallest_norm(combinations, gram)])


def _constant_row(squares: Floats, sums: Floats, n_cells: int) -> int | None:
    """Return the position of the row that varies least, if it is constant."""
    about_mean = np.where(squares > 0, 1.0 - sums**2 / np.where(squares > 0, n_cells * squares, 1.0), np.inf)
    if not (about_mean <= SAME).any():
        return None
    return int(np.argmin(about_mean))


def _onto_smallest_norm(combinations: Floats, gram: Floats) -> Floats:
    """Return the projector of coefficients onto those without a part that collinear rows cancel, (q, q)."""
    left_out = np.flatnonzero(~combinations.any(axis=1))
    cancelling = gram[left_out] @ combinations.T @ combinations - np.eye(len(gram))[left_out]
    return np.asarray(np.eye(len(gram)) - np.linalg.pinv(cancelling) @ cancelling)


def combined(block: Floats, *, combinations: Floats) -> Floats:
    """Return T C of a block, (q, n)."""
    return np.asarray(combinations @ np.asarray(block, dtype=np.float64))
