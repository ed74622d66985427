r"""Bayesian log-CPM of one block of counts.

With T the total of all counts, the proportion behind a count k has a (shifted) Beta posterior. Its logarithm has
mean and variance

.. math:: f(k) = ψ(k + 1) − ψ(T + 2), \qquad v(k) = ψ_1(k + 1) − ψ_1(T + 2).

Source: Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray
from scipy.special import digamma, ndtri, polygamma

from normalisr_dask.kernels.blocks import Block, as_sparse, by_columns, dense_from_entries
from normalisr_dask.kernels.counts import cell_sums, check_counts

LOG_MILLION = float(np.log(1e6))

#: Counts up to this one are looked up in a table made once a block; beyond it each entry is computed by itself.
TABLE_SIZE = 1 << 14

Function: TypeAlias = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def posterior_proportion(counts: NDArray[np.generic], total: float) -> NDArray[np.float64]:
    """Return exp f(k) of every count; any shape."""
    return _by_count(counts, lambda k: np.exp(digamma(k + 1.0) - digamma(total + 2.0)))


def posterior_mean(counts: NDArray[np.generic], total: float) -> NDArray[np.float64]:
    """Return f(k) = ψ(k + 1) − ψ(T + 2) of every count; any shape."""
    return _by_count(counts, lambda k: digamma(k + 1.0) - digamma(total + 2.0))


def posterior_variance(counts: NDArray[np.generic], total: float) -> NDArray[np.float64]:
    """Return v(k) = ψ₁(k + 1) − ψ₁(T + 2) of every count; any shape.

    Raises
    ------
    ValueError
        If a count is larger than the total, so that the variance would be negative.
    """
    if counts.size and counts.max() > total:
        msg = f"expected a total ntot of at least every count, found {total:g} and a count of {counts.max():g}"
        raise ValueError(msg)
    return _by_count(counts, lambda k: polygamma(1, k + 1.0) - polygamma(1, total + 2.0))


def coded(counts: NDArray[np.generic], function: Function) -> tuple[NDArray[np.integer[Any]], NDArray[np.float64]]:
    """Return codes (as the counts) and values so that ``values[codes]`` is the function of every count.

    The codes are the counts and the values a table of the function, so that it is computed, and held, once a count.
    """
    codes = counts if counts.dtype.kind in "iu" else counts.astype(np.int64)
    largest = int(codes.max()) if codes.size else 0
    if largest <= TABLE_SIZE:
        return np.asarray(codes), function(np.arange(largest + 1.0))
    return np.arange(codes.size).reshape(codes.shape), function(counts.astype(np.float64)).ravel()


def _by_count(counts: NDArray[np.generic], function: Function) -> NDArray[np.float64]:
    codes, values = coded(counts, function)
    return np.asarray(values[codes])


def cell_summary(block: Block, *, cell_index: NDArray[np.int64], gene_index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return of every cell total count, number of non-zero genes, and Σ_genes exp f(k) as if T were 0, (3, cells).

    Normalised posterior means do not depend on T, so they need not wait for a pass over all counts.
    """
    sums = cell_sums(block, cell_index=cell_index, gene_index=gene_index)
    if not scipy.sparse.issparse(block):
        return np.vstack([sums, posterior_proportion(block, 0.0).sum(axis=0)])
    sparse = by_columns(block)
    at_zero = posterior_proportion(np.zeros(1, dtype=np.int64), 0.0)
    codes, values = coded(sparse.data, lambda k: np.exp(digamma(k + 1.0) - digamma(2.0)) - at_zero)
    above_zero = np.empty(sparse.shape[1])
    _sum_by_cell(sparse.indptr, codes, values, above_zero)
    return np.vstack([sums, above_zero + at_zero * sparse.shape[0]])


@njit(nogil=True, cache=True)
def _sum_by_cell(offsets, codes, values, sums):  # type: ignore[no-untyped-def]
    for cell in range(sums.size):
        total = 0.0
        for entry in range(offsets[cell], offsets[cell + 1]):
            total += values[codes[entry]]
        sums[cell] = total


def sum_of_draws(
    block: Block,
    *,
    total: NDArray[np.float64],
    cell_index: NDArray[np.int64],
    gene_index: NDArray[np.int64],
    varscale: float,
    seed: int,
) -> NDArray[np.float64]:
    """Return Σ_genes exp(x) of every cell, float64 (1, cells), where x is drawn from the posterior."""
    block = check_counts(block, cell_index, gene_index)
    drawn = _drawn(block, float(total), cell_index, gene_index, varscale, seed)
    return np.asarray(np.exp(drawn).sum(axis=0))[None]


def log_cpm(
    block: Block,
    *,
    total: NDArray[np.float64],
    cell_offset: NDArray[np.float64],
    cell_index: NDArray[np.int64],
    gene_index: NDArray[np.int64],
    varscale: float,
    seed: int,
) -> NDArray[np.float64]:
    """Return x − offset, genes × cells: x = f(k), or drawn from the posterior where ``varscale`` > 0."""
    if varscale > 0:
        expression = _drawn(
            check_counts(block, cell_index, gene_index), float(total), cell_index, gene_index, varscale, seed
        )
        return expression - cell_offset
    return mean_log_cpm(check_counts(block, cell_index, gene_index), total=total, cell_offset=cell_offset)


def mean_log_cpm(block: Block, *, total: NDArray[np.float64], cell_offset: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return f(k) − offset, genes × cells."""
    return _dense_by_count(block, posterior_mean, float(total), cell_offset)


def variance_log_cpm(block: Block, *, total: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return v(k), genes × cells."""
    return _dense_by_count(block, posterior_variance, float(total), np.zeros(block.shape[1]))


def summary_covariates(
    cell_sums: NDArray[np.float64], *, cell_index: NDArray[np.int64], n_genes: int
) -> NDArray[np.float64]:
    """Return log total count, number of zero-count genes, and (log total)², float64 (3, cells).

    Parameters
    ----------
    cell_sums
        Total count and number of non-zero genes of every cell (2, cells).
    cell_index
        Positions of the cells in the whole matrix (cells,).
    n_genes
        Number of genes.

    Raises
    ------
    ValueError
        If a cell has no counts; names the first one by its position.
    """
    totals, n_nonzero = cell_sums
    if np.any(totals == 0):
        first = int(cell_index[np.argmax(totals == 0)])
        msg = f"expected counts in every cell, found none in cell {first} (counted from 0); remove it, as qc_reads does"
        raise ValueError(msg)
    log_totals = np.log(totals)
    return np.stack([log_totals, n_genes - n_nonzero, log_totals**2])


def _dense_by_count(  # type: ignore[no-untyped-def]
    block: Block, function, total: float, cell_offset: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return a function of every count less its cell's offset, genes × cells."""
    if not scipy.sparse.issparse(block):
        values = np.asarray(function(np.asarray(block), total))
        values -= cell_offset
        return values
    sparse = as_sparse(block)
    at_zero = function(np.zeros(1, dtype=np.int64), total)[0]
    return dense_from_entries(sparse, function(sparse.data, total), at_zero, cell_offset)


def _drawn(
    block: Block,
    total: float,
    cell_index: NDArray[np.int64],
    gene_index: NDArray[np.int64],
    varscale: float,
    seed: int,
) -> NDArray[np.float64]:
    noise = standard_normal(seed, cell_index, gene_index)
    no_offset = np.zeros(block.shape[1])
    variance = varscale * _dense_by_count(block, posterior_variance, total, no_offset)
    return _dense_by_count(block, posterior_mean, total, no_offset) + noise * np.sqrt(variance)


def standard_normal(seed: int, cell_index: NDArray[np.int64], gene_index: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return standard normal numbers, genes × cells, that depend on seed, gene and cell alone.

    Counter-based (Philox) with the seed as key and the cell in the counter; the gene is the position in the cell's
    stream. So every chunking, scheduler and number of workers draws the same numbers. ``gene_index`` is contiguous.
    """
    n_genes, n_cells = gene_index.size, cell_index.size
    noise = np.empty((n_cells, n_genes))
    if noise.size == 0:
        return noise.T
    words_per_step = 4  # Philox-4x64 makes four 64-bit words a counter step
    step, skipped = divmod(int(gene_index[0]), words_per_step)
    for row, cell in enumerate(cell_index):
        generator = np.random.Philox(key=seed, counter=[step, 0, int(cell), 0])
        words = generator.random_raw(skipped + n_genes)[skipped:]
        noise[row] = (words >> np.uint64(11)) + 0.5
    return np.asarray(ndtri(noise * 2.0**-53)).T
