"""Weights of samples from all genes at once: scoring steps of restricted maximum likelihood.

Every step needs sums over genes only, so blocks of genes give theirs and the steps add them up. Letters as in
:mod:`normalisr_dask.kernels.array_weights`; G genes.

Source: Ritchie et al., BMC Bioinformatics 7:261 (2006), doi:10.1186/1471-2105-7-261; Smyth, Journal of Computational
and Graphical Statistics 11:836 (2002), doi:10.1198/106186002871.
"""

import numpy as np
from numba import njit

from normalisr_dask.kernels.array_weights import SMALLEST_VARIANCE
from normalisr_dask.kernels.least_squares import Floats, column_space, orthonormal_rows, remove_projection

#: Weights of samples beyond its exponential, or below its inverse, have no end.
LARGEST_LOG_VARIANCE = 12.0 * float(np.log(10.0))


def scaled_squares(expression: Floats, *, design: Floats, sample_weights: Floats) -> Floats:
    """Return squared weighted residuals over s², and s², of every gene without missing values, (genes, n + 1)."""
    roots = np.sqrt(sample_weights)
    basis = column_space(design * roots[:, None])
    residuals = expression * roots
    for _ in range(2):
        residuals -= (residuals @ basis) @ basis.T
    squares = residuals**2
    variance = squares.sum(axis=1, keepdims=True) / (design.shape[0] - basis.shape[1])
    is_left = variance >= SMALLEST_VARIANCE
    return np.hstack([np.where(is_left, squares / np.where(is_left, variance, 1.0), 0.0), variance])


def shared_information(design: Floats, sample_weights: Floats) -> tuple[Floats, Floats]:
    """Return what one gene adds to the information (n, n), and the leverages (n,), where genes share their weights."""
    basis = column_space(design * np.sqrt(sample_weights)[:, None])
    leverages = (basis**2).sum(axis=1)
    return _information(basis @ basis.T, leverages), leverages


def _information(hat: Floats, leverages: Floats) -> Floats:
    information = hat**2 + np.diag(1.0 - 2.0 * leverages)
    leftover = 1.0 - leverages
    return np.asarray(information - np.outer(leftover, leftover) / leftover.sum())


@njit(nogil=True, cache=True)
def _weighted_sums(
    expression: Floats,
    weights: Floats,
    design_rows: Floats,
    sample_weights: Floats,
    information: Floats,
    scores: Floats,
    rank_needed: int,
) -> None:
    n_columns, n_samples = design_rows.shape
    columns, basis = np.empty((n_columns, n_samples)), np.empty((n_columns, n_samples))
    triangle, effects = np.zeros((n_columns, n_columns)), np.empty(n_columns)
    pivot = np.empty(n_columns, dtype=np.int64)
    for gene in range(expression.shape[0]):
        roots = np.sqrt(sample_weights * weights[gene])
        residual = roots * expression[gene]
        for column in range(n_columns):
            columns[column] = roots * design_rows[column]
        rank = orthonormal_rows(columns, basis, triangle, pivot)
        if rank < rank_needed:
            continue
        remove_projection(residual, basis, rank, effects)
        leftover = np.ones(n_samples)
        for row in range(rank):
            leftover -= basis[row] ** 2
        for sample in range(n_samples):
            for other in range(n_samples):
                hat = 0.0
                for row in range(rank):
                    hat += basis[row, sample] * basis[row, other]
                information[sample, other] += hat * hat - leftover[sample] * leftover[other] / (n_samples - rank)
            information[sample, sample] += 2.0 * leftover[sample] - 1.0
        variance = (residual * residual).sum() / (n_samples - rank)
        if variance > SMALLEST_VARIANCE:
            scores += residual * residual / variance - leftover


def weighted_sums(expression: Floats, weights: Floats, *, design: Floats, sample_weights: Floats) -> Floats:
    """Return Σ over genes of their information (n, n) and, as last row, of their scores, (n + 1, n).

    Parameters
    ----------
    expression, weights
        (genes, n), without missing values; a gene whose weights leave too few samples for the design is left out.
    design
        (n, p), of full rank.
    sample_weights
        a (n,).
    """
    n_samples = design.shape[0]
    sums = np.zeros((n_samples + 1, n_samples))
    _weighted_sums(
        np.ascontiguousarray(expression, dtype=np.float64),
        np.ascontiguousarray(weights, dtype=np.float64),
        np.ascontiguousarray(design.T),
        sample_weights,
        sums[:n_samples],
        sums[n_samples],
        design.shape[1],
    )
    return sums


def check_convergence(log_variances: Floats) -> None:
    """Refuse weights that run away, as they do where the genes cannot tell the variances of samples apart.

    Raises
    ------
    ValueError
        If a log-variance is NaN or beyond `LARGEST_LOG_VARIANCE`.
    """
    if not (np.abs(log_variances) <= LARGEST_LOG_VARIANCE).all():
        msg = (
            "the weights of samples do not converge: there are too few genes without missing values for as many "
            "variances; set prior_n above 0, or take method='genebygene'"
        )
        raise ValueError(msg)


def scoring_step(information: Floats, scores: Floats, variance_basis: Floats | None) -> tuple[Floats, float, int]:
    """Return the step of the log-variances (n,), scores times step, and the number of free variances.

    Parameters
    ----------
    information
        (n, n), the prior's on the diagonal included.
    scores
        (n,).
    variance_basis
        Orthonormal basis (n, q) of the centred variance design; all log-variances of sum 0 where None.
    """
    n_samples = scores.size
    if variance_basis is None:
        centre = np.eye(n_samples) - 1.0 / n_samples
        step = _solved(centre @ information @ centre + 1.0 / n_samples, scores - scores.mean())
        return step, float(step @ scores), n_samples - 1
    inner = _solved(variance_basis.T @ information @ variance_basis, variance_basis.T @ scores)
    step = variance_basis @ inner
    return step, float(step @ scores), variance_basis.shape[1]


def _solved(matrix: Floats, values: Floats) -> Floats:
    """Return the solution, NaN where the matrix is singular."""
    try:
        return np.asarray(np.linalg.solve(matrix, values), dtype=np.float64)
    except np.linalg.LinAlgError:
        return np.full(values.shape, np.nan)
