r"""Each grouping by itself: its own cells against the cells of no grouping, all groupings in one pass over the data.

Cell c has label 0 if it is in no grouping (a control), k + 1 if it is in grouping k alone, and −1 if it is in several
and thus in no test. The cells of test k are the controls and those of label k + 1, so that every moment of test k is
the sum of two of the moments below, which one pass gives for all labels at once.

Letters of the shapes: G genes, q covariates, n cells of a block, K groupings, J groups of cells, those of J labels that
follow each other. Tests take the groups of the controls and then of K groupings, K + 1.
"""

import math

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.association import ROUNDING, check_squares, more_than_rounding
from normalisr_dask.kernels.blocks import Block, dense_float
from normalisr_dask.kernels.linear_algebra import symmetric_pinv

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

CONTROL = 0
IN_SEVERAL = -1


def exclusive_labels(rows: Block) -> Labels:
    """Return the label of every cell, (1, n), from all groupings.

    Raises
    ------
    ValueError
        If a value is neither 0 nor 1.
    """
    memberships = scipy.sparse.csc_array(rows)
    memberships.eliminate_zeros()
    is_other = memberships.data != 1
    if is_other.any():
        first = int(np.flatnonzero(is_other)[0])
        msg = (
            f"expected 0 and 1 in dg for single=1 (-m single), found {memberships.data[first]} in grouping "
            f"{memberships.indices[first]}; single=0 and single=4 take any numbers"
        )
        raise ValueError(msg)
    n_groupings = np.diff(memberships.indptr)
    labels = np.full(memberships.shape[1], CONTROL, dtype=np.int64)
    labels[n_groupings > 1] = IN_SEVERAL
    labels[n_groupings == 1] = memberships.indices[memberships.indptr[:-1][n_groupings == 1]] + 1
    return labels[None]


def group_of_cells(labels: Labels, *, first: int, n_groups: int) -> Labels:
    """Return every cell's group, that of label ``first`` being 0, and −1 where its label is none of the groups'."""
    groups = labels - first
    return np.where((labels >= CONTROL) & (groups >= 0) & (groups < n_groups), groups, -1)


def group_counts(*, labels: Labels, covariates: Floats, first: int, n_groups: int) -> Floats:
    """Return Σ over each group's cells of (C, 1)(C, 1)ᵀ, flat, (J, (q + 1)²)."""
    groups = group_of_cells(labels, first=first, n_groups=n_groups)
    rows = np.vstack([covariates, np.ones(labels.size)])
    sums = np.zeros((n_groups, len(rows) ** 2))
    chosen = groups >= 0
    by_group = scipy.sparse.csr_array(
        (np.ones(np.count_nonzero(chosen)), (groups[chosen], np.flatnonzero(chosen))), shape=(len(sums), labels.size)
    )
    sums += by_group @ (rows[:, None] * rows).reshape(len(rows) ** 2, labels.size).T
    return sums


def residual_group_moments(
    block: Block, *, labels: Labels, covariates: Floats, coefficients: Floats, first: int, n_groups: int
) -> Floats:
    """Return Σ over each group's cells of ỹ C, ỹ and ỹ², flat, (G, J (q + 2)), of the residuals ỹ = y − α C."""
    expression = dense_float(block)
    groups = group_of_cells(labels, first=first, n_groups=n_groups)
    by_group = np.argsort(groups, kind="stable")[np.count_nonzero(groups < 0) :]
    offsets = np.searchsorted(groups[by_group], np.arange(n_groups + 1))
    sums = np.empty((len(expression), n_groups, len(covariates) + 2))
    _sum_groups(expression, by_group, offsets, np.ascontiguousarray(covariates[:, by_group]), coefficients, sums)
    return sums.reshape(len(sums), math.prod(sums.shape[1:]))


# Slices, and sums in any order: without them the compiler adds up a value at a time.
@njit(nogil=True, cache=True, fastmath={"reassoc", "nsz", "contract"})
def _sum_groups(expression, by_group, offsets, covariates, coefficients, sums):  # type: ignore[no-untyped-def]
    """Sum over runs of cells; the covariates are in the order of ``by_group``."""
    n_covariates, n_cells = covariates.shape
    residual = np.empty(n_cells)
    for gene in range(expression.shape[0]):
        values = expression[gene]
        for position in range(n_cells):
            residual[position] = values[by_group[position]]
        for row in range(n_covariates):
            coefficient = coefficients[gene, row]
            for position in range(n_cells):
                residual[position] -= coefficient * covariates[row, position]
        for group in range(offsets.size - 1):
            start, stop = offsets[group], offsets[group + 1]
            of_group = residual[start:stop]
            for row in range(n_covariates):
                covariate = covariates[row, start:stop]
                product = 0.0
                for cell in range(of_group.size):
                    product += of_group[cell] * covariate[cell]
                sums[gene, group, row] = product
            total, squares = 0.0, 0.0
            for cell in range(of_group.size):
                total += of_group[cell]
                squares += of_group[cell] * of_group[cell]
            sums[gene, group, n_covariates] = total
            sums[gene, group, n_covariates + 1] = squares


# ---- the tests, from the moments of controls and groupings


def _of_tests(by_group: Floats) -> Floats:
    """Add the controls to every grouping: (K + 1, …) to (K, …)."""
    return by_group[1:] + by_group[:1]


def exclusive_groupings(counts: Floats) -> Floats:
    """Return of every test its varx, ν without the genes' loss of rank, and coefficients of x on C, (K, q + 2).

    Parameters
    ----------
    counts
        From :func:`group_counts`, (K + 1, (q + 1)²).

    Returns
    -------
    A test without cells of its own, without controls, whose covariates determine its grouping, or without a degree of
    freedom, has varx = 0.
    """
    grams, own, inverse, rank = _designs(counts)
    n_cells, n_own = grams[:, -1, -1], own[:, -1, -1]
    with_covariates = own[:, -1, :-1]
    fitted = np.einsum("kij,kj->ki", inverse, with_covariates)
    squares = n_own - np.einsum("ki,ki->k", fitted, with_covariates)
    degrees = n_cells - 1 - rank
    is_testable = (n_own > 0) & (n_own < n_cells) & (squares > ROUNDING * n_own) & (degrees > 0)
    variance = np.where(is_testable, squares / np.where(n_cells > 0, n_cells, 1), 0.0)
    return np.column_stack([variance, np.maximum(degrees, 0), fitted])


def exclusive_products(moments: Floats, global_coefficients: Floats, counts: Floats, *, rounding: float) -> Floats:
    """Return mean(x̃ỹ) and mean(ỹ²) of every test over its own cells, (G, 2, K).

    Parameters
    ----------
    moments
        From :func:`residual_group_moments` (G, (K + 1)(q + 2)).
    global_coefficients
        α of ỹ = y − α C (G, q).
    counts
        From :func:`group_counts` (K + 1, (q + 1)²).
    rounding
        Share of Σ y² over the cells of a test that rounding may leave in Σ ỹ².

    Raises
    ------
    ValueError
        If values are too large to be squared.
    """
    grams, own, inverse, _ = _designs(counts)
    by_group = _by_group(moments, counts)
    of_tests = _of_tests(by_group)
    n_cells = np.maximum(grams[:, -1, -1], 1.0)
    with_covariates = of_tests[:, :, :-2]
    fitted = np.einsum("kij,kj->ki", inverse, own[:, -1, :-1])
    products = by_group[1:, :, -2] - np.einsum("kgi,ki->kg", with_covariates, fitted)
    of_residuals = of_tests[:, :, -1]
    check_squares(of_residuals, "dt")
    removed = global_coefficients @ grams[:, :-1, :-1] + 2 * with_covariates
    raw = of_residuals + np.einsum("gi,kgi->kg", global_coefficients, removed)
    squares = of_residuals - np.einsum("kgi,kgi->kg", with_covariates @ inverse, with_covariates)
    squares = more_than_rounding(squares, ROUNDING * of_residuals + rounding * np.maximum(raw, 0.0))
    return np.stack([(part / n_cells[:, None]).T for part in (products, squares)], axis=1)


def exclusive_coefficients(moments: Floats, global_coefficients: Floats, counts: Floats) -> Floats:
    """Return the coefficients of y on C over the cells of every test, (G, K, q).

    Parameters
    ----------
    moments
        From :func:`residual_group_moments` (G, (K + 1)(q + 2)).
    global_coefficients
        α of ỹ = y − α C (G, q).
    counts
        From :func:`group_counts` (K + 1, (q + 1)²).
    """
    grams, _, inverse, _ = _designs(counts)
    with_covariates = _of_tests(_by_group(moments, counts))[:, :, :-2] + global_coefficients @ grams[:, :-1, :-1]
    return np.asarray(np.swapaxes(with_covariates @ inverse, 0, 1))


def _by_group(moments: Floats, counts: Floats) -> Floats:
    return np.swapaxes(moments.reshape(len(moments), len(counts), moments.shape[1] // len(counts)), 0, 1)


def _designs(counts: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
    """Return Gram matrices of (C, 1) of the tests and of the groupings alone, pseudo-inverses of C's, and ranks."""
    side = round(counts.shape[1] ** 0.5)
    by_group = counts.reshape(-1, side, side)
    grams = _of_tests(by_group)
    inverse, rank = symmetric_pinv(grams[:, :-1, :-1])
    return grams, by_group[1:], inverse, rank
