r"""Correlation within blocks of samples, gene by gene: variance components by restricted maximum likelihood.

A gene's model is :math:`y = Xβ + Zu + e`, Z the indicators of blocks. Its residual contrasts, rotated so that ZZᵀ is
diagonal, have squares q with expectation :math:`θ_e + θ_b d` and a gamma distribution of shape ½; θ is fitted by a
generalised linear model with identity link, and :math:`ρ = θ_b/(θ_e + θ_b)`. Contrasts of the same d enter as one
*class*: their number and the sum of their squares are all that counts, so that the eigenproblem has at most as many
dimensions as the design has columns, times the number of different block sizes.

Sources: Smyth, Michaud & Scott, Bioinformatics 21:2067 (2005), doi:10.1093/bioinformatics/bti270; Smyth & Verbyla,
Journal of the Royal Statistical Society B 58:565 (1996).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.least_squares import Floats, Integers, dot, orthonormal_rows, remove_projection

#: Steps of Fisher scoring at most; a few genes in a hundred reach them, and depend on this number.
SCORING_STEPS = 20
#: Stop when a step would change the fit by less.
SCORING_TOLERANCE = 1e-6
#: Give up when damping exceeds this multiple of the information.
LARGEST_DAMPING = 1e15
#: Eigenvalues below this are those of contrasts without block variance.
SMALLEST_EIGENVALUE = 1e-10
#: A kept direction below this share of its length is a combination of the others.
DIRECTION_TOLERANCE = 1e-13
#: Residual sum of squares below this share of the raw one is rounding: there is no correlation to estimate.
ROUNDING = 1e-26


@njit(nogil=True, cache=True, error_model="numpy")
def _deviance(eigenvalues: Floats, sizes: Floats, squares: Floats, within: float, between: float) -> float:
    """Return the deviance but for a constant; infinite where an expectation is negative."""
    total = 0.0
    for term in range(eigenvalues.shape[0]):
        mean = within + between * eigenvalues[term]
        if mean < 0.0:
            return np.inf
        if squares[term] < 1e-15 and mean < 1e-15:
            continue
        total += squares[term] / mean - sizes[term] + sizes[term] * np.log(mean)
    return 2.0 * total


@njit(nogil=True, cache=True, error_model="numpy")
def _score(eigenvalues: Floats, sizes: Floats, squares: Floats, within: float, between: float) -> tuple[float, ...]:
    """Return the three entries of the information and the two of the score."""
    largest = 0.0
    for eigenvalue in eigenvalues:
        largest = max(largest, (within + between * eigenvalue) ** 2)
    first, mixed, second, score_within, score_between = 0.0, 0.0, 0.0, 0.0, 0.0
    for term in range(eigenvalues.shape[0]):
        eigenvalue = eigenvalues[term]
        mean = within + between * eigenvalue
        variance = max(mean * mean, largest / 1000.0)
        weight = sizes[term] / variance
        first += weight
        mixed += weight * eigenvalue
        second += weight * eigenvalue * eigenvalue
        residual = (squares[term] - sizes[term] * mean) / variance
        score_within += residual
        score_between += residual * eigenvalue
    return first, mixed, second, score_within, score_between


@njit(nogil=True, cache=True, error_model="numpy")
def _gamma_fit(
    eigenvalues: Floats, sizes: Floats, squares: Floats, within: float, between: float
) -> tuple[float, float]:
    """Return θ_e and θ_b by damped Fisher scoring from the given start."""
    if squares.max() <= 0.0:
        return 0.0, 0.0
    deviance = _deviance(eigenvalues, sizes, squares, within, between)
    damping = 0.0
    for iteration in range(SCORING_STEPS):
        first, mixed, second, score_within, score_between = _score(eigenvalues, sizes, squares, within, between)
        largest = max(first, second)
        if iteration == 0:
            damping = (first + second) / 4.0
        n_tries = 0
        while True:
            n_tries += 1
            determinant = (first + damping) * (second + damping) - mixed * mixed
            step_within = ((second + damping) * score_within - mixed * score_between) / determinant
            step_between = ((first + damping) * score_between - mixed * score_within) / determinant
            trial = _deviance(eigenvalues, sizes, squares, within + step_within, between + step_between)
            if trial <= deviance:
                break
            if damping / largest > LARGEST_DAMPING:
                return within, between
            damping *= 2.0
        within += step_within
        between += step_between
        deviance = trial
        if n_tries == 1:
            damping /= 10.0
        if score_within * step_within + score_between * step_between < SCORING_TOLERANCE:
            break
    return within, between


@njit(nogil=True, cache=True, error_model="numpy")
def _components(eigenvalues: Floats, sizes: Floats, squares: Floats) -> tuple[float, float]:
    """Return θ_e and θ_b: least squares, then the gamma model where there is more than two contrasts to fit."""
    n_contrasts = sizes.sum()
    mean_eigenvalue = dot(sizes, eigenvalues) / n_contrasts
    mean_square = squares.sum() / n_contrasts
    spread = 0.0
    product = 0.0
    n_between = 0.0
    for term in range(eigenvalues.shape[0]):
        offset = eigenvalues[term] - mean_eigenvalue
        spread += sizes[term] * offset * offset
        product += offset * (squares[term] - sizes[term] * mean_square)
        if eigenvalues[term] > 0.0:
            n_between += sizes[term]
    if spread <= 1e-15 * n_contrasts * max(1.0, mean_eigenvalue**2):
        # one distinct eigenvalue: the shortest of all solutions
        norm = 1.0 + mean_eigenvalue**2
        return mean_square / norm, mean_square * mean_eigenvalue / norm
    between = product / spread
    within = mean_square - between * mean_eigenvalue
    if n_contrasts <= 2 or n_between <= 1:
        return within, between
    for eigenvalue in eigenvalues:
        if within + between * eigenvalue < 0.0:
            within, between = mean_square, 0.0
            break
    within, between = _gamma_fit(eigenvalues, sizes, squares, within, between)
    return within, between


@njit(nogil=True, cache=True)
def _block_sums(vector: Floats, blocks: Integers, is_usable: NDArray[np.bool_], sums: Floats) -> None:
    sums[:] = 0.0
    for sample in range(vector.shape[0]):
        if is_usable[sample]:
            sums[blocks[sample]] += vector[sample]


@njit(nogil=True, cache=True)
def _eigen_classes(basis_sums: Floats, residual_sums: Floats, block_sizes: Integers) -> tuple[Floats, Floats, Floats]:
    """Return eigenvalues, multiplicities and sums of squares of the contrasts that blocks tell apart.

    Parameters
    ----------
    basis_sums
        Block sums of the orthonormal basis of the design (rank, blocks).
    residual_sums
        Block sums of the residuals (blocks,).
    block_sizes
        Usable samples of each block (blocks,); 0 for none.
    """
    rank, n_blocks = basis_sums.shape
    blocks_of_size = np.zeros(block_sizes.max() + 1, dtype=np.int64)
    for block in range(n_blocks):
        blocks_of_size[block_sizes[block]] += 1
    n_sizes = (blocks_of_size[1:] > 0).sum()
    kept = np.zeros((rank * n_sizes, n_blocks))  # orthonormal directions, those of a size only in its blocks
    kept_size = np.empty(rank * n_sizes)
    n_kept = 0
    plain_eigenvalues, plain_sizes, plain_squares = np.empty((3, n_sizes))
    n_plain = 0
    direction = np.empty(n_blocks)
    shares = np.empty(rank * n_sizes)
    for size in range(1, blocks_of_size.shape[0]):
        n_of_size = blocks_of_size[size]
        if n_of_size == 0:
            continue
        squares = 0.0
        for block in range(n_blocks):
            if block_sizes[block] == size:
                squares += residual_sums[block] ** 2
        first = n_kept
        for row in range(rank):
            for block in range(n_blocks):
                direction[block] = basis_sums[row, block] if block_sizes[block] == size else 0.0
            before = np.sqrt(dot(direction, direction))
            remove_projection(direction, kept[first:n_kept], n_kept - first, shares)
            after = np.sqrt(dot(direction, direction))
            if n_kept - first < n_of_size and after > DIRECTION_TOLERANCE * before and after > 0.0:
                kept[n_kept] = direction / after
                kept_size[n_kept] = size
                squares -= dot(kept[n_kept], residual_sums) ** 2
                n_kept += 1
        n_rest = n_of_size - (n_kept - first)
        if n_rest > 0:
            plain_eigenvalues[n_plain] = size
            plain_sizes[n_plain] = n_rest
            plain_squares[n_plain] = max(squares, 0.0) / size
            n_plain += 1
    matrix = np.zeros((n_kept, n_kept))
    for row in range(n_kept):
        matrix[row, row] = kept_size[row]
    for vector in range(rank):
        for row in range(n_kept):
            shares[row] = dot(kept[row], basis_sums[vector])
        for row in range(n_kept):
            for column in range(n_kept):
                matrix[row, column] -= shares[row] * shares[column]
    values, vectors = np.linalg.eigh(matrix)
    eigenvalues = np.empty(n_plain + n_kept + 1)
    sizes = np.empty(n_plain + n_kept + 1)
    sums = np.empty(n_plain + n_kept + 1)
    eigenvalues[:n_plain] = plain_eigenvalues[:n_plain]
    sizes[:n_plain] = plain_sizes[:n_plain]
    sums[:n_plain] = plain_squares[:n_plain]
    n_terms = n_plain
    for term in range(n_kept):
        if values[term] > SMALLEST_EIGENVALUE:
            product = 0.0
            for row in range(n_kept):
                product += vectors[row, term] * dot(kept[row], residual_sums)
            eigenvalues[n_terms] = values[term]
            sizes[n_terms] = 1.0
            sums[n_terms] = product**2 / values[term]
            n_terms += 1
    return eigenvalues[: n_terms + 1], sizes[: n_terms + 1], sums[: n_terms + 1]


@njit(nogil=True, cache=True, error_model="numpy")
def _correlations(
    expression: Floats, weights: Floats, design_rows: Floats, blocks: Integers, n_blocks: int, correlations: Floats
) -> None:
    n_columns, n_samples = design_rows.shape
    is_usable = np.empty(n_samples, dtype=np.bool_)
    columns, basis = np.empty((n_columns, n_samples)), np.empty((n_columns, n_samples))
    triangle, effects = np.zeros((n_columns, n_columns)), np.empty(n_columns)
    pivot = np.empty(n_columns, dtype=np.int64)
    residual = np.empty(n_samples)
    residual_sums = np.empty(n_blocks)
    basis_sums = np.empty((n_columns, n_blocks))
    block_sizes = np.empty(n_blocks, dtype=np.int64)
    for gene in range(expression.shape[0]):
        correlations[gene] = np.nan
        row, row_weights = expression[gene], weights[gene % weights.shape[0]]
        block_sizes[:] = 0
        n_usable = 0
        for sample in range(n_samples):
            weight = row_weights[sample]
            is_usable[sample] = np.isfinite(row[sample]) and np.isfinite(weight) and weight > 0.0
            root = np.sqrt(weight) if is_usable[sample] else 0.0
            residual[sample] = root * row[sample] if is_usable[sample] else 0.0
            for column in range(n_columns):
                columns[column, sample] = root * design_rows[column, sample]
            if is_usable[sample]:
                block_sizes[blocks[sample]] += 1
                n_usable += 1
        n_used = (block_sizes > 0).sum()
        if n_usable <= n_columns + 2 or not 1 < n_used < n_usable - 1:
            continue
        rank = orthonormal_rows(columns, basis, triangle, pivot)
        raw = dot(residual, residual)
        remove_projection(residual, basis, rank, effects)
        left = dot(residual, residual)
        if left <= ROUNDING * raw:
            continue
        _block_sums(residual, blocks, is_usable, residual_sums)
        for column in range(rank):
            _block_sums(basis[column], blocks, is_usable, basis_sums[column])
        eigenvalues, sizes, squares = _eigen_classes(basis_sums[:rank], residual_sums, block_sizes)
        eigenvalues[-1] = 0.0
        sizes[-1] = max(n_usable - rank - sizes[:-1].sum(), 0.0)
        squares[-1] = max(left - squares[:-1].sum(), 0.0) if sizes[-1] > 0.0 else 0.0
        n_terms = eigenvalues.shape[0] if sizes[-1] > 0.0 else eigenvalues.shape[0] - 1
        within, between = _components(eigenvalues[:n_terms], sizes[:n_terms], squares[:n_terms])
        if within + between > 0.0:
            correlations[gene] = between / (within + between)


def block_correlations(
    expression: Floats, weights: Floats | None = None, *, design: Floats, blocks: Integers
) -> Floats:
    """Return every gene's correlation of the samples of a block, NaN where there are too few samples or blocks.

    Parameters
    ----------
    expression
        float64 (genes, n); a value that is not finite is missing.
    weights
        Precisions (genes, n), or (1, n) where all genes share them; not positive or not finite is missing.
    design
        (n, p), of any rank.
    blocks
        Number of the block of every sample (n,), from 0 on.

    Returns
    -------
    float64 (genes,).

    Notes
    -----
    Time O(genes · (n p² + b p³)) for b blocks, memory O(n p).
    """
    correlations = np.empty(expression.shape[0])
    _correlations(
        np.ascontiguousarray(expression, dtype=np.float64),
        np.ones((1, expression.shape[1])) if weights is None else np.ascontiguousarray(weights, dtype=np.float64),
        np.ascontiguousarray(design.T),
        blocks,
        int(blocks.max()) + 1,
        correlations,
    )
    return correlations


def consensus(correlations: Floats, *, largest_block: int, trim: float) -> tuple[float, Floats]:
    """Return the trimmed mean correlation on the scale of atanh, and the atanh of all, bounded (genes,).

    Parameters
    ----------
    correlations
        Of every gene (genes,), NaN where there is none.
    largest_block
        Samples of the largest block: a correlation below -1/(samples - 1) is not possible.
    trim
        Share of the genes to leave out at either end.
    """
    lower = 1.0 / (1 - largest_block) + 0.01 if largest_block > 1 else -0.99
    transformed = np.arctanh(np.clip(correlations, lower, 0.99))
    known = np.sort(transformed[~np.isnan(transformed)])
    n_cut = int(np.floor(trim * known.size))
    kept = known[n_cut : known.size - n_cut]
    return (float(np.tanh(kept.mean())) if kept.size else 0.0), transformed


def is_spanned(blocks: Integers, design: Floats) -> bool:
    """Return whether the differences between blocks are already in the design's column space."""
    indicators = np.equal.outer(blocks, np.arange(1, blocks.max() + 1)).astype(np.float64)
    basis = np.empty(design.T.shape)
    pivot = np.empty(design.shape[1], dtype=np.int64)
    rank = orthonormal_rows(np.ascontiguousarray(design.T), basis, np.zeros((design.shape[1],) * 2), pivot)
    outside = indicators - basis[:rank].T @ (basis[:rank] @ indicators)
    return bool(np.linalg.norm(outside, axis=0).max(initial=0.0) < 1e-8)
