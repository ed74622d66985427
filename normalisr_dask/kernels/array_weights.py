r"""Weights of samples, gene by gene: a log-linear model of their variance, updated with one gene after another.

Letters: γ log-variances of samples (n,), :math:`a = e^{-γ}` their weights, h one minus the leverages of a gene's fit,
d its squared weighted residuals, s² their mean per degree of freedom, A the information on γ so far. A gene adds
:math:`\mathrm{diag}(h) - hh^T/Σh` to A, and :math:`A^{-1} (d/s² - h)` to γ; A starts as the prior number of genes
times the identity. The result depends on the order of genes.

Source: Ritchie et al., BMC Bioinformatics 7:261 (2006), doi:10.1186/1471-2105-7-261.
"""

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.least_squares import (
    Floats,
    column_space,
    dot,
    orthonormal_rows,
    remove_projection,
    root_weights,
)

#: A gene whose residual variance is below this says nothing about samples.
SMALLEST_VARIANCE = 1e-15
#: Fewer residual degrees of freedom of a gene say nothing about samples.
FEWEST_DEGREES = 2
#: Residual of the conjugate gradients, relative to the right-hand side, at which they stop.
SOLVED = 1e-14
#: Genes whose outer products are kept apart before they are added to the matrix together.
N_RECENT = 16


class FoldState(NamedTuple):
    """What one gene hands on to the next.

    Attributes
    ----------
    log_variances
        γ (n,).
    information
        Where all samples have a variance of their own, Σ hhᵀ/Σh (n, n), the lower triangle; else A in the space of
        the variance design (q, q).
    totals
        Σ h and prior (n,); unused with a variance design.
    """

    log_variances: Floats
    information: Floats
    totals: Floats


def first_state(n_samples: int, prior_n: float, variance_basis: Floats | None) -> FoldState:
    """Return the state before the first gene; without a variance basis every sample has a variance of its own."""
    if variance_basis is None:
        information = np.zeros((n_samples, n_samples))
    else:
        information = prior_n * np.eye(variance_basis.shape[1])
    return FoldState(np.zeros(n_samples), information, np.full(n_samples, float(prior_n)))


def sample_weights_of(state: FoldState) -> Floats:
    """Return a = exp(−γ) (n,)."""
    return np.asarray(np.exp(-state.log_variances))


def check_precisions(weights: Floats) -> None:
    """Refuse weights of which array weights cannot be made.

    Raises
    ------
    ValueError
        If a weight is NaN, negative or infinite.
    """
    for is_bad, what in (
        (np.isnan(weights), "missing (NaN)"),
        (weights < 0, "negative"),
        (np.isinf(weights), "infinite"),
    ):
        if is_bad.any():
            msg = (
                f"expected weights of 0 or more to estimate sample weights, found {what} ones; a gene that lost a "
                "coefficient to missing values, or a trend that reaches zero, gives such weights: leave the gene out"
            )
            raise ValueError(msg)


@njit(nogil=True, cache=True)
def _gene_residuals(
    row: Floats,
    weights: Floats,
    sample_weights: Floats,
    design_rows: Floats,
    roots: Floats,
    columns: Floats,
    basis: Floats,
    triangle: Floats,
    pivot: NDArray[np.int64],
    effects: Floats,
    leftover: Floats,
    squares: Floats,
) -> float:
    """Set h and d of a gene; return s², or 0 where the gene says nothing."""
    n_columns, n_samples = design_rows.shape
    n_usable = root_weights(row, weights, 0.0, roots)
    if n_usable <= FEWEST_DEGREES:
        return 0.0
    for sample in range(n_samples):
        roots[sample] *= np.sqrt(sample_weights[sample])
        squares[sample] = roots[sample] * row[sample] if roots[sample] > 0.0 else 0.0
        leftover[sample] = 1.0 if roots[sample] > 0.0 else 0.0
    for column in range(n_columns):
        for sample in range(n_samples):
            columns[column, sample] = roots[sample] * design_rows[column, sample]
    rank = orthonormal_rows(columns, basis, triangle, pivot)
    if n_usable - rank < FEWEST_DEGREES:
        return 0.0
    remove_projection(squares, basis, rank, effects)
    for column in range(rank):
        for sample in range(n_samples):
            leftover[sample] -= basis[column, sample] ** 2
    for sample in range(n_samples):
        leftover[sample] = max(leftover[sample], 0.0) if roots[sample] > 0.0 else 0.0
        squares[sample] = squares[sample] ** 2 if roots[sample] > 0.0 else 0.0
    variance = squares.sum() / (n_usable - rank)
    return variance if variance >= SMALLEST_VARIANCE else 0.0


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _add_outer(information: Floats, recent: Floats, n_recent: int) -> None:
    """Add the outer products of some vectors to the lower triangle, row by row: the matrix may exceed all caches."""
    for sample in range(information.shape[0]):
        row = information[sample]
        for number in range(n_recent):
            share = recent[number, sample]
            for other in range(sample + 1):
                row[other] += share * recent[number, other]


@njit(nogil=True, cache=True, fastmath={"contract", "reassoc"})
def _multiply(
    information: Floats, recent: Floats, n_recent: int, totals: Floats, direction: Floats, product: Floats
) -> None:
    """Set product = A direction, from the lower triangle and the vectors not added yet; one pass over the matrix."""
    product[:] = totals * direction
    for sample in range(information.shape[0]):
        row = information[sample]
        here = direction[sample]
        total = row[sample] * here
        for other in range(sample):
            total += row[other] * direction[other]
            product[other] -= row[other] * here
        product[sample] -= total
    for number in range(n_recent):
        share = dot(recent[number], direction)
        product -= share * recent[number]


@njit(nogil=True, cache=True, error_model="numpy")
def _centred_solution(
    information: Floats, recent: Floats, n_recent: int, totals: Floats, target: Floats, step: Floats
) -> None:
    """Solve A step = target, both of sum 0, by conjugate gradients; A = diag(totals) − information − recent.

    The matrix is a diagonal minus nearly a multiple of the ones matrix, which vanishes on vectors of sum 0: with the
    diagonal as preconditioner two or three steps do.
    """
    n_samples = target.shape[0]
    inverse = 1.0 / totals
    inverse_total = inverse.sum()
    residual = target.copy()
    step[:] = 0.0
    direction = np.zeros(n_samples)
    product = np.empty(n_samples)
    enough = SOLVED * np.sqrt(dot(target, target))
    product_before = 1.0
    for iteration in range(n_samples + 10):
        if np.sqrt(dot(residual, residual)) <= enough:
            break
        scaled = inverse * residual
        scaled -= inverse * (scaled.sum() / inverse_total)
        product_now = dot(residual, scaled)
        ratio = product_now / product_before if iteration > 0 else 0.0
        product_before = product_now
        direction *= ratio
        direction += scaled
        _multiply(information, recent, n_recent, totals, direction, product)
        product -= product.mean()
        curvature = dot(direction, product)
        if not curvature > 0.0:  # singular without prior genes: no update, as where a solver fails
            step[:] = 0.0
            break
        length = product_now / curvature
        step += length * direction
        residual -= length * product


@njit(nogil=True, cache=True)
def _fold_free(
    expression: Floats,
    weights: Floats,
    design_rows: Floats,
    log_variances: Floats,
    information: Floats,
    totals: Floats,
) -> None:
    """Update every sample's own variance with the genes of a block, in place."""
    n_columns, n_samples = design_rows.shape
    roots, leftover, squares, step = np.empty((4, n_samples))
    columns, basis = np.empty((n_columns, n_samples)), np.empty((n_columns, n_samples))
    triangle, effects = np.zeros((n_columns, n_columns)), np.empty(n_columns)
    pivot = np.empty(n_columns, dtype=np.int64)
    recent = np.empty((N_RECENT, n_samples))
    n_recent = 0
    for gene in range(expression.shape[0]):
        variance = _gene_residuals(
            expression[gene],
            weights[gene % weights.shape[0]],
            np.exp(-log_variances),
            design_rows,
            roots,
            columns,
            basis,
            triangle,
            pivot,
            effects,
            leftover,
            squares,
        )
        if variance == 0.0:
            continue
        totals += leftover
        recent[n_recent] = leftover / np.sqrt(leftover.sum())
        n_recent += 1
        squares /= variance
        squares -= leftover
        squares -= squares.mean()
        _centred_solution(information, recent, n_recent, totals, squares, step)
        log_variances += step
        log_variances -= log_variances.mean()
        if n_recent == N_RECENT:
            _add_outer(information, recent, n_recent)
            n_recent = 0
    _add_outer(information, recent, n_recent)


@njit(nogil=True, cache=True)
def _solve_positive(matrix: Floats, target: Floats) -> bool:
    """Replace the target by the solution of a symmetric system; return False if it is not positive definite."""
    size = target.shape[0]
    factor = np.zeros((size, size))
    for row in range(size):
        for column in range(row + 1):
            rest = matrix[row, column] - dot(factor[row, :column], factor[column, :column])
            if column < row:
                factor[row, column] = rest / factor[column, column]
            elif rest <= 0.0:
                return False
            else:
                factor[row, row] = np.sqrt(rest)
    for row in range(size):
        target[row] = (target[row] - dot(factor[row, :row], target[:row])) / factor[row, row]
    for row in range(size - 1, -1, -1):
        target[row] = (target[row] - dot(factor[row + 1 :, row], target[row + 1 :])) / factor[row, row]
    return True


@njit(nogil=True, cache=True)
def _fold_designed(
    expression: Floats,
    weights: Floats,
    design_rows: Floats,
    variance_rows: Floats,
    log_variances: Floats,
    information: Floats,
) -> None:
    """Update variances that follow a design with the genes of a block, in place; the design's rows are orthonormal."""
    n_columns, n_samples = design_rows.shape
    n_terms = variance_rows.shape[0]
    roots, leftover, squares = np.empty((3, n_samples))
    columns, basis = np.empty((n_columns, n_samples)), np.empty((n_columns, n_samples))
    triangle, effects = np.zeros((n_columns, n_columns)), np.empty(n_columns)
    pivot = np.empty(n_columns, dtype=np.int64)
    step, projected = np.empty(n_terms), np.empty(n_terms)
    weighted = np.empty(n_samples)
    for gene in range(expression.shape[0]):
        variance = _gene_residuals(
            expression[gene],
            weights[gene % weights.shape[0]],
            np.exp(-log_variances),
            design_rows,
            roots,
            columns,
            basis,
            triangle,
            pivot,
            effects,
            leftover,
            squares,
        )
        if variance == 0.0:
            continue
        squares /= variance
        squares -= leftover
        total = leftover.sum()
        for term in range(n_terms):
            projected[term] = dot(variance_rows[term], leftover)
            step[term] = dot(variance_rows[term], squares)
        for term in range(n_terms):
            weighted[:] = variance_rows[term] * leftover
            for other in range(n_terms):
                information[term, other] += (
                    dot(weighted, variance_rows[other]) - projected[term] * projected[other] / total
                )
        if _solve_positive(information, step):
            for term in range(n_terms):
                log_variances += step[term] * variance_rows[term]


def fold_genes(
    state: FoldState,
    expression: Floats,
    weights: Floats,
    *,
    design: Floats,
    variance_basis: Floats | None = None,
) -> FoldState:
    """Update the state with the genes of a block, one after another.

    Parameters
    ----------
    state
        From :func:`first_state`, or of the block before; not changed.
    expression
        float64 (genes, n), in the order of the genes.
    weights
        Precisions (genes, n), or (1, n) where all genes share them; a value of weight 0 is missing.
    design
        (n, p), of full rank.
    variance_basis
        Orthonormal basis (n, q) of the centred variance design; every sample on its own where None.

    Returns
    -------
    FoldState

    Raises
    ------
    ValueError
        If a weight is NaN, negative or infinite.

    Notes
    -----
    Time O(genes · n · (p² + q²)), or O(genes · n²) without a variance basis; memory n² beside the block.
    """
    check_precisions(weights)
    log_variances, information, totals = (part.copy() for part in state)
    rows = np.ascontiguousarray(expression, dtype=np.float64)
    precisions = np.ascontiguousarray(weights, dtype=np.float64)
    design_rows = np.ascontiguousarray(design.T)
    if variance_basis is None:
        _fold_free(rows, precisions, design_rows, log_variances, information, totals)
    else:
        _fold_designed(
            rows, precisions, design_rows, np.ascontiguousarray(variance_basis.T), log_variances, information
        )
    return FoldState(log_variances, information, totals)


def centred_space(variance_design: Floats) -> Floats:
    """Return an orthonormal basis (n, q) of the columns (n, k) after their means."""
    centred = variance_design - variance_design.mean(axis=0)
    # what is left of a constant column is rounding
    is_left = np.abs(centred).max(axis=0, initial=0.0) > 1e-12 * np.abs(variance_design).max(axis=0, initial=0.0)
    return column_space(centred[:, is_left])
