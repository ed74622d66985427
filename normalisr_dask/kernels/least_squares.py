r"""Weighted least squares of every row of a block on one design, each row with its own weights and missing values.

Rows of a block are whole here (genes × samples), so each is solved from its own orthonormal basis: that keeps the
digits which products lose, and tells which coefficients a gene with missing values still has. The sums of products of
``normalisation.weighted_products`` are for rows that are cut into chunks of cells.

With blocks of samples that share a correlation ρ, the covariance of a row is :math:`D^{-1/2} C D^{-1/2}`, D the
weights, C one on the diagonal and ρ within blocks. A root of its inverse has a closed form [1]_: with
:math:`s = \sqrt w`, and m usable samples in block b,

.. math:: u^*_i = (1-ρ)^{-1/2} \left(s_i u_i - a_b \sum_{k∈b} s_k u_k\right), \qquad
          a_b = \frac1m \left(1 - \sqrt{\frac{1-ρ}{1-ρ+ρm}}\right).

References
----------
.. [1] Searle, Casella & McCulloch, Variance Components (1992), appendix M, inverses of aI + bJ.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

#: A column whose part outside the columns before it is below this share of its norm is a combination of them.
ALIAS_TOLERANCE = 1e-7
#: Weights below this count as missing where samples come in blocks.
SMALLEST_BLOCKED_WEIGHT = 1e-15
#: Degrees of freedom of a row with data on which every column of the design is zero.
NO_DESIGN = -1.0


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def dot(first: Floats, second: Floats) -> float:
    """Return Σ first·second; additions are reordered, so that they run several at a time."""
    total = 0.0
    for place in range(first.shape[0]):
        total += first[place] * second[place]
    return total


@njit(nogil=True, cache=True)
def remove_projection(vector: Floats, basis: Floats, rank: int, coefficients: Floats) -> None:
    """Take the projection on ``rank`` orthonormal rows out of a vector, twice for full precision; set coefficients."""
    coefficients[:rank] = 0.0
    for _ in range(2):
        for row in range(rank):
            share = dot(basis[row], vector)
            coefficients[row] += share
            for place in range(vector.shape[0]):
                vector[place] -= share * basis[row, place]


@njit(nogil=True, cache=True)
def orthonormal_rows(rows: Floats, basis: Floats, triangle: Floats, pivot: Integers) -> int:
    """Orthonormalise rows in their order, leaving out those that are combinations of the ones before.

    Parameters
    ----------
    rows
        (p, n).
    basis
        Filled: orthonormal rows, as many as the rank (p, n).
    triangle
        Filled: ``rows[pivot[k]] = Σ triangle[l, k] basis[l]`` for l ≤ k (p, p).
    pivot
        Filled: kept rows in their order, then those left out (p,).

    Returns
    -------
    The rank.
    """
    n_rows = rows.shape[0]
    rank = 0
    n_aliased = 0
    aliased = np.empty(n_rows, dtype=np.int64)
    for position in range(n_rows):
        norm_before = np.sqrt(dot(rows[position], rows[position]))
        candidate = basis[rank]
        candidate[:] = rows[position]
        remove_projection(candidate, basis, rank, triangle[:, rank])
        norm = np.sqrt(dot(candidate, candidate))
        if norm > 0.0 and norm >= ALIAS_TOLERANCE * norm_before:
            candidate /= norm
            triangle[rank, rank] = norm
            pivot[rank] = position
            rank += 1
        else:
            aliased[n_aliased] = position
            n_aliased += 1
    pivot[rank:] = aliased[:n_aliased]
    return rank


@njit(nogil=True, cache=True)
def root_weights(row: Floats, weights: Floats, smallest: float, roots: Floats) -> int:
    """Set √weight of the usable samples of a row and 0 of the others; return how many are usable."""
    n_usable = 0
    for sample in range(row.shape[0]):
        weight = weights[sample]
        if np.isfinite(row[sample]) and np.isfinite(weight) and weight > 0.0 and weight >= smallest:
            roots[sample] = np.sqrt(weight)
            n_usable += 1
        else:
            roots[sample] = 0.0
    return n_usable


@njit(nogil=True, cache=True)
def block_factors(roots: Floats, blocks: Integers, correlation: float, factors: Floats) -> bool:
    """Set a_b of every block; return whether the covariance is positive definite."""
    factors[:] = 0.0
    for sample in range(roots.shape[0]):
        if roots[sample] > 0.0:
            factors[blocks[sample]] += 1.0
    for block in range(factors.shape[0]):
        size = factors[block]
        if size > 0.0:
            spread = 1.0 - correlation + correlation * size
            if spread <= 0.0:
                return False
            factors[block] = (1.0 - np.sqrt((1.0 - correlation) / spread)) / size
    return True


@njit(nogil=True, cache=True)
def whiten(
    values: Floats, roots: Floats, blocks: Integers, factors: Floats, correlation: float, sums: Floats, out: Floats
) -> None:
    """Write values × root weights, decorrelated within blocks if there are any; ``sums`` is work space."""
    for sample in range(values.shape[0]):
        # a missing value must not spoil the sums of its block
        out[sample] = roots[sample] * values[sample] if roots[sample] > 0.0 else 0.0
    if blocks.shape[0] == 0:
        return
    sums[:] = 0.0
    for sample in range(values.shape[0]):
        sums[blocks[sample]] += out[sample]
    scale = 1.0 / np.sqrt(1.0 - correlation)
    for sample in range(values.shape[0]):
        if roots[sample] > 0.0:
            out[sample] = scale * (out[sample] - factors[blocks[sample]] * sums[blocks[sample]])


@njit(nogil=True, cache=True)
def _solve(
    triangle: Floats, pivot: Integers, rank: int, effects: Floats, coefficients: Floats, deviations: Floats
) -> None:
    """Set the coefficients, and the square roots of the diagonal of (XᵀV⁻¹X)⁻¹, from the triangular factor."""
    inverse = np.zeros((rank, rank))
    for column in range(rank):
        inverse[column, column] = 1.0 / triangle[column, column]
        for row in range(column - 1, -1, -1):
            total = 0.0
            for between in range(row + 1, column + 1):
                total += triangle[row, between] * inverse[between, column]
            inverse[row, column] = -total / triangle[row, row]
    for row in range(rank):
        deviations[pivot[row]] = np.sqrt(dot(inverse[row], inverse[row]))
    for row in range(rank - 1, -1, -1):
        total = effects[row]
        for column in range(row + 1, rank):
            total -= triangle[row, column] * effects[column]
        effects[row] = total / triangle[row, row]
        coefficients[pivot[row]] = effects[row]


@njit(nogil=True, cache=True)
def _fit_rows(
    expression: Floats,
    weights: Floats,
    design_rows: Floats,
    blocks: Integers,
    n_blocks: int,
    correlation: float,
    fits: Floats,
) -> None:
    n_columns, n_samples = design_rows.shape
    is_blocked = blocks.shape[0] > 0
    smallest = SMALLEST_BLOCKED_WEIGHT if is_blocked else 0.0
    roots = np.empty(n_samples)
    factors = np.empty(n_blocks)
    sums = np.empty(n_blocks)
    row = np.empty(n_samples)
    columns = np.empty((n_columns, n_samples))
    basis = np.empty((n_columns, n_samples))
    triangle = np.zeros((n_columns, n_columns))
    effects = np.empty(n_columns)
    pivot = np.empty(n_columns, dtype=np.int64)
    for gene in range(expression.shape[0]):
        fit = fits[gene]
        fit[:] = np.nan
        fit[-1] = 0.0
        n_usable = root_weights(expression[gene], weights[gene % weights.shape[0]], smallest, roots)
        if n_usable == 0 or (is_blocked and not block_factors(roots, blocks, correlation, factors)):
            continue
        whiten(expression[gene], roots, blocks, factors, correlation, sums, row)
        for column in range(n_columns):
            whiten(design_rows[column], roots, blocks, factors, correlation, sums, columns[column])
        rank = orthonormal_rows(columns, basis, triangle, pivot)
        if rank == 0 and not is_blocked:
            fit[-1] = NO_DESIGN
            continue
        remove_projection(row, basis, rank, effects)
        _solve(triangle, pivot, rank, effects, fit[:n_columns], fit[n_columns : 2 * n_columns])
        fit[-1] = n_usable - rank
        if n_usable > rank:
            fit[-2] = np.sqrt(dot(row, row) / (n_usable - rank))


def fit_rows(
    expression: Floats,
    weights: Floats | None = None,
    *,
    design: Floats,
    blocks: Integers | None = None,
    correlation: float = 0.0,
) -> Floats:
    """Fit the design to every row: coefficients, their deviations over sigma, sigma and residual degrees of freedom.

    Parameters
    ----------
    expression
        float64 (genes, n); a value that is not finite is missing.
    weights
        Relative precisions (genes, n), or (1, n) where all rows share them; not positive or not finite is missing.
    design
        (n, p), of any rank.
    blocks
        Number of the block of every sample (n,), from 0 on.
    correlation
        ρ of the samples of a block; above -1 and below 1.

    Returns
    -------
    float64 (genes, 2 p + 2): p coefficients, p deviations (NaN where not estimable), sigma (NaN without degrees of
    freedom), degrees of freedom; these are `NO_DESIGN` of a row on whose samples the design is zero, without blocks.

    Notes
    -----
    Time O(genes · n · p²), memory O(n p) beside the result.
    """
    n_genes, n_samples = expression.shape
    fits = np.empty((n_genes, 2 * design.shape[1] + 2))
    _fit_rows(
        np.ascontiguousarray(expression, dtype=np.float64),
        np.ones((1, n_samples)) if weights is None else np.ascontiguousarray(weights, dtype=np.float64),
        np.ascontiguousarray(design.T),
        np.empty(0, dtype=np.int64) if blocks is None else blocks,
        0 if blocks is None else int(blocks.max()) + 1,
        correlation,
        fits,
    )
    return fits


def independent_columns(design: Floats) -> tuple[Integers, int]:
    """Return the columns of a design, estimable ones first and each kind in its order, and how many are estimable."""
    pivot = np.empty(design.shape[1], dtype=np.int64)
    rank = orthonormal_rows(
        np.ascontiguousarray(design.T), np.empty(design.T.shape), np.zeros((design.shape[1],) * 2), pivot
    )
    return pivot, rank


def column_space(columns: Floats) -> Floats:
    """Return an orthonormal basis (n, rank) of the space that columns (n, p) span."""
    basis = np.empty(columns.T.shape)
    pivot = np.empty(columns.shape[1], dtype=np.int64)
    rank = orthonormal_rows(np.ascontiguousarray(columns.T), basis, np.zeros((columns.shape[1],) * 2), pivot)
    return np.ascontiguousarray(basis[:rank].T)


def decorrelated(columns: Floats, weights: Floats, blocks: Integers | None, correlation: float) -> Floats:
    """Return columns (n, p) as a fit with these weights (n,) and blocks sees them."""
    roots = np.sqrt(weights)
    codes = np.empty(0, dtype=np.int64) if blocks is None else blocks
    factors = np.zeros(0 if blocks is None else int(codes.max()) + 1)
    if blocks is not None and not block_factors(roots, codes, correlation, factors):
        msg = f"a correlation of {correlation:g} within blocks as large as these is not possible"
        raise ValueError(msg)
    result = np.empty(columns.T.shape)
    for column, out in zip(np.ascontiguousarray(columns.T), result, strict=True):
        whiten(column, roots, codes, factors, correlation, np.empty(factors.size), out)
    return result.T


def unscaled_covariance(columns: Floats) -> tuple[Floats, Integers, int]:
    """Return (XᵀX)⁻¹ with NaN where columns are not estimable (p, p), the pivot (p,) and the rank."""
    n_columns = columns.shape[1]
    basis, triangle = np.empty(columns.T.shape), np.zeros((n_columns, n_columns))
    pivot = np.empty(n_columns, dtype=np.int64)
    rank = orthonormal_rows(np.ascontiguousarray(columns.T), basis, triangle, pivot)
    covariance = np.full((n_columns, n_columns), np.nan)
    inverse = np.linalg.inv(np.triu(triangle[:rank, :rank]))
    covariance[np.ix_(pivot[:rank], pivot[:rank])] = inverse @ inverse.T
    return covariance, pivot, rank
