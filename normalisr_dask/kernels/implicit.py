r"""Normalised expression as an implicit matrix: what the tests ask of it, at a cost proportional to the non-zeros.

Log-CPM is :math:`x_{gc} = s_{gc} + z_c` with :math:`s_{gc} = f(k_{gc}) − f(0)` as sparse as the counts and one number
a cell :math:`z_c`. Normalised expression is :math:`y_{gc} = k_g u_{gc} (s_{gc} + z_c − β_g·C_c)` with
:math:`u_{gc} = e^{t_g L_c}`, :math:`L = \log w`.

Sums over cells that involve s run over the non-zeros. What is dense has the form
:math:`h_{ab}(t) = Σ_c e^{t L_c} a_c b_c` with a, b among z, the rows of C and the caller's rows: a smooth function of
one number, evaluated at Chebyshev nodes of the range of t and interpolated to the genes
(:mod:`normalisr_dask.kernels.chebyshev`).

Letters of the shapes: G genes, q covariates, n cells of a block, r rows, m nodes.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray
from scipy.special import digamma

from normalisr_dask.kernels.blocks import Block, as_sparse, by_columns, dense_float, scatter_entries
from normalisr_dask.kernels.chebyshev import growth_at_nodes, interpolation_matrix, pieces, with_all_nodes
from normalisr_dask.kernels.exponential import powers
from normalisr_dask.kernels.linear_algebra import coefficients as least_squares
from normalisr_dask.kernels.log_cpm import coded, posterior_mean
from normalisr_dask.kernels.normalisation import panels

Floats = NDArray[np.float64]
ZERO_COUNT = np.zeros(1, dtype=np.int64)
#: A residual sum of squares below this share of the sum of squares that it is subtracted from is rounding.
ROUNDING = 1e-13
CANCELLED = 1e-6  # the same, of terms of which too many digits are lost in the difference


class Deviations(NamedTuple):
    """s of a block of counts: entry by entry ``by_count[codes]``, so that no array as long as the entries is made.

    Attributes
    ----------
    offsets, genes
        Of the block as CSC: where the entries of every cell begin (n + 1,), and the entries' genes.
    codes : unsigned or int64
        Counts of the entries, or, where some are too large for a table, positions of the entries.
    by_count : float64
        s of every code.
    shape
        Genes and cells.
    """

    offsets: NDArray[np.integer[Any]]
    genes: NDArray[np.integer[Any]]
    codes: NDArray[np.integer[Any]]
    by_count: Floats
    shape: tuple[int, int]


def coded_deviations(block: Block) -> Deviations:
    """Return s = f(k) − f(0) of a block of counts; the total of all counts cancels. Stored zeros have s = 0."""
    sparse = by_columns(block)
    codes, by_count = coded(sparse.data, lambda k: digamma(k + 1.0) - digamma(1.0))
    return Deviations(sparse.indptr, sparse.indices, codes, by_count, sparse.shape)


def deviations(block: Block) -> scipy.sparse.csc_array:
    """Return s of a block of counts as CSC."""
    own = coded_deviations(block)
    values = own.by_count[own.codes]
    return as_sparse(scipy.sparse.csc_array((values, own.genes, own.offsets), shape=own.shape))


def zero_log_cpm(cell_offset: Floats) -> Floats:
    """Return z, the log-CPM of a zero count of every cell (n,), from what log-CPM subtracts of every cell."""
    return np.asarray(posterior_mean(ZERO_COUNT, 0.0) - cell_offset)


# ---- compute_var


def scaled_products(block: Block, *, covariates: Floats, cell_offset: Floats, cell_scale: Floats) -> Floats:
    """Return Σ_cells of s C/d², s/d, s z/d² and s²/d² with d the cell scale, (G, q + 3)."""
    inverse = 1.0 / cell_scale
    rows = [*(covariates * inverse**2), inverse, zero_log_cpm(cell_offset) * inverse**2, inverse**2]
    own = coded_deviations(block)
    sums = np.zeros((own.shape[0], len(rows)))
    _add_to_genes(own.offsets, own.genes, own.codes, own.by_count, np.column_stack(rows), sums)
    return sums


@njit(nogil=True, cache=True)
def _add_to_genes(offsets, genes, codes, by_count, rows, sums):  # type: ignore[no-untyped-def]
    """Add s times every row's value in the cell to the gene, and s² times that of the last row."""
    last = rows.shape[1] - 1
    for cell in range(rows.shape[0]):
        of_cell = rows[cell]
        for entry in range(offsets[cell], offsets[cell + 1]):
            value = by_count[codes[entry]]
            of_gene = sums[genes[entry]]
            for row in range(last):
                of_gene[row] += value * of_cell[row]
            of_gene[last] += value * value * of_cell[last]


def scaled_gram(*, covariates: Floats, cell_offset: Floats, cell_scale: Floats) -> Floats:
    """Return the products of the rows C/d, z/d and 1 with each other, (q + 2, q + 2)."""
    rows = np.vstack([covariates / cell_scale, zero_log_cpm(cell_offset) / cell_scale, np.ones(cell_scale.size)])
    return np.asarray(rows @ rows.T)


def residual_fit(products: Floats, gram: Floats, *, n_cells: int) -> Floats:
    """Return coefficients B of x/d on C/d, mean and population standard deviation of the residuals, (G, q + 2).

    Parameters
    ----------
    products
        From :func:`scaled_products` (G, q + 3).
    gram
        From :func:`scaled_gram` (q + 2, q + 2).
    n_cells
        Number of cells.
    """
    q = gram.shape[0] - 2
    with_covariates = products[:, :q] + gram[q, :q]
    fitted = least_squares(with_covariates, gram[:q, :q])
    total = products[:, q] + gram[q, q + 1]
    squares = products[:, q + 2] + 2 * products[:, q + 1] + gram[q, q]
    mean = (total - fitted @ gram[q + 1, :q]) / n_cells
    variance = (squares - np.einsum("gk,gk->g", fitted, with_covariates)) / n_cells - mean**2
    is_left = variance > ROUNDING * squares / n_cells
    return np.column_stack([fitted, mean, np.sqrt(np.where(is_left, variance, 0.0))])


def cell_squares(block: Block, *, fit: Floats, covariates: Floats, cell_offset: Floats, cell_scale: Floats) -> Floats:
    """Return Σ_genes ((r − mean)/deviation)² of every cell, r = (s + z − B C)/d, (1, n).

    Genes without any residual variance say nothing about cells and are left out.
    """
    deviation = fit[:, -1]
    weight = np.where(deviation > 0, 1.0 / np.where(deviation > 0, deviation, 1.0) ** 2, 0.0)
    # r − mean = s/d + p·t with p = (1, B, mean) of the gene and t = (z, −C, −d)/d of the cell.
    per_gene = np.column_stack([np.ones(len(weight)), fit[:, :-1]])
    per_cell = np.vstack(
        [zero_log_cpm(cell_offset) / cell_scale, -covariates / cell_scale, -np.ones((1, cell_scale.size))]
    )
    weighted = per_gene * weight[:, None]
    own = coded_deviations(block)
    sums = np.zeros((own.shape[1], weighted.shape[1] + 1))
    of_genes = np.column_stack([weighted, weight])
    _add_to_cells(own.offsets, own.genes, own.codes, own.by_count, of_genes, sums)
    result = sums[:, -1] / cell_scale**2
    of_zeros = np.einsum("kc,kl,lc->c", per_cell, weighted.T @ per_gene, per_cell, optimize=True)
    terms = result + of_zeros
    result = terms + 2 * np.einsum("ck,kc->c", sums[:, :-1], per_cell) / cell_scale
    # In a cell that a covariate has for itself, all residuals are next to nothing: they are taken one by one.
    for cell in np.flatnonzero(~(result > CANCELLED * terms)):
        entries = slice(own.offsets[cell], own.offsets[cell + 1])
        residual = per_gene @ per_cell[:, cell]
        residual[own.genes[entries]] += own.by_count[own.codes[entries]] / cell_scale[cell]
        result[cell] = weight @ residual**2
    return np.asarray(result)[None]


@njit(nogil=True, cache=True)
def _add_to_cells(offsets, genes, codes, by_count, columns, sums):  # type: ignore[no-untyped-def]
    """Add s times every column's value of the gene to the cell, and s² times that of the last column."""
    last = columns.shape[1] - 1
    for cell in range(sums.shape[0]):
        of_cell = sums[cell]
        for entry in range(offsets[cell], offsets[cell + 1]):
            value = by_count[codes[entry]]
            of_gene = columns[genes[entry]]
            for column in range(last):
                of_cell[column] += value * of_gene[column]
            of_cell[last] += value * value * of_gene[last]


# ---- normvar


def zero_products(*, covariates: Floats, cell_offset: Floats) -> Floats:
    """Return Σ_cells of z C, (1, q)."""
    return zero_log_cpm(cell_offset)[None] @ covariates.T


def with_zero_residual(covariates: Floats, cell_offset: Floats, zero_fit: Floats) -> Floats:
    """Return the rows C and z̃ = z − a C, (q + 1, n).

    A gene that is zero almost everywhere is z almost everywhere, which the covariates all but determine. Sums of z̃
    instead of z leave the residual sum of squares of such a gene with its digits.
    """
    return np.vstack([covariates, zero_log_cpm(cell_offset) - zero_fit @ covariates])


def in_zero_residual(fit: Floats, zero_fit: Floats) -> Floats:
    """Return p with z − β C = p·(C, z̃) for every gene, (G, q + 1), from its fit (G, q + 2) and a (1, q)."""
    return np.column_stack([zero_fit - fit[:, :-2], np.ones(len(fit))])


def node_products(
    rows: Block, *, covariates: Floats, cell_offset: Floats, zero_fit: Floats, weights: Floats, scaling_range: Floats
) -> Floats:
    """Return Σ_cells e^(τ L) b row for every row, node τ and row b of C and z̃, (r, m · (q + 1)).

    Parameters
    ----------
    rows
        (r, n), dense or sparse.
    covariates, cell_offset, zero_fit, weights, scaling_range
        As for :func:`normalisr_dask.kernels.implicit_fit.node_moments`.
    """
    basis = with_zero_residual(covariates, cell_offset, zero_fit)
    values = rows if scipy.sparse.issparse(rows) else dense_float(rows)
    products = [values @ (basis * growth).T for growth in growth_at_nodes(weights, scaling_range)]
    return with_all_nodes(np.column_stack(products), len(products), axis=1)


@njit(nogil=True, cache=True)
def cell_buffers(offsets):  # type: ignore[no-untyped-def]
    """Return two arrays with room for the entries of any cell."""
    most = 0
    for cell in range(offsets.size - 1):
        most = max(most, offsets[cell + 1] - offsets[cell])
    return np.empty(most), np.empty(most)


@njit(nogil=True, cache=True)
def cell_growth(genes, gene_scaling, log_weight, scaling, growth):  # type: ignore[no-untyped-def]
    """Write u of the entries of a cell to the first places of ``growth``; ``scaling`` is room for their t."""
    for entry in range(genes.size):
        scaling[entry] = gene_scaling[genes[entry]]
    powers(scaling[: genes.size], log_weight, growth[: genes.size])


# ---- moments for the tests


def entry_products(
    block: Block, rows: Block, *, weights: Floats, gene_scaling: Floats, sums: Floats | None = None
) -> Floats:
    """Return Σ_cells u s row for every row and gene, (r, G), added in place to the sums of other blocks, if given."""
    own, log_weights = coded_deviations(block), np.log(weights)
    if not scipy.sparse.issparse(rows):
        by_gene = np.zeros((own.shape[0], len(rows)))
        of_cells = np.ascontiguousarray(dense_float(rows).T)
        _add_dense_products(*own[:4], of_cells, log_weights, gene_scaling, by_gene)
        return np.ascontiguousarray(by_gene.T) if sums is None else np.add(sums, by_gene.T, out=sums)
    by_cell = by_columns(rows)
    sums = np.zeros((rows.shape[0], own.shape[0])) if sums is None else sums
    of_rows = (by_cell.indptr, by_cell.indices, dense_float(by_cell.data))
    _add_row_products(*own[:4], *of_rows, log_weights, gene_scaling, sums)
    return sums


@njit(nogil=True, cache=True)
def _add_dense_products(offsets, genes, codes, by_count, rows, log_weights, gene_scaling, sums):  # type: ignore[no-untyped-def]
    scaling, growth = cell_buffers(offsets)
    for cell in range(rows.shape[0]):
        start, stop = offsets[cell], offsets[cell + 1]
        cell_growth(genes[start:stop], gene_scaling, log_weights[cell], scaling, growth)
        of_cell = rows[cell]
        for entry in range(start, stop):
            weighted = growth[entry - start] * by_count[codes[entry]]
            of_gene = sums[genes[entry]]
            for row in range(of_cell.size):
                of_gene[row] += weighted * of_cell[row]


@njit(nogil=True, cache=True)
def _add_row_products(  # type: ignore[no-untyped-def]
    offsets, genes, codes, by_count, row_offsets, rows, row_values, log_weights, gene_scaling, products
):
    scaling, growth = cell_buffers(offsets)
    for cell in range(offsets.size - 1):
        if row_offsets[cell] == row_offsets[cell + 1]:
            continue
        start, stop = offsets[cell], offsets[cell + 1]
        cell_growth(genes[start:stop], gene_scaling, log_weights[cell], scaling, growth)
        for entry in range(start, stop):
            growth[entry - start] *= by_count[codes[entry]]
        for position in range(row_offsets[cell], row_offsets[cell + 1]):
            row_value = row_values[position]
            sums = products[rows[position]]
            for entry in range(start, stop):
                sums[genes[entry]] += row_value * growth[entry - start]


def complete_products(
    entries: Floats, node_sums: Floats, fit: Floats, gene_scaling: Floats, scaling_range: Floats, zero_fit: Floats
) -> Floats:
    """Return Σ_cells y row for every row and gene, (r, G).

    Parameters
    ----------
    entries
        From :func:`entry_products` (r, G).
    node_sums
        :func:`node_products` of the rows (r, m · (q + 1)).
    fit
        From :func:`normalisr_dask.kernels.implicit_fit.gene_fit` (G, q + 2).
    gene_scaling
        t (G,).
    scaling_range
        From :func:`chebyshev.check_range` (3,).
    zero_fit
        a of z̃ = z − a C (1, q).
    """
    products = np.empty_like(entries)
    for genes in pieces(len(fit), entries.itemsize * node_sums.shape[1]):
        at_genes = interpolation_matrix(gene_scaling[genes], scaling_range)
        in_basis = in_zero_residual(fit[genes], zero_fit)
        weights = (at_genes[:, :, None] * in_basis[:, None, :]).reshape(len(in_basis), -1)
        products[:, genes] = fit[genes, -2] * (entries[:, genes] + node_sums[:, : weights.shape[1]] @ weights.T)
    return products


def dense_normalised(
    block: Block,
    *,
    cell_offset: Floats,
    fit: Floats,
    covariates: Floats,
    weights: Floats,
    gene_scaling: Floats,
) -> Floats:
    """Return normalised expression of a block of counts, genes × cells; cell by cell, as the counts lie."""
    sparse = as_sparse(block)
    values = posterior_mean(sparse.data, 0.0)
    at_zero = posterior_mean(ZERO_COUNT, 0.0)[0]
    result = np.empty(sparse.shape[::-1])
    log_weights = np.log(weights)
    for cells, growth, fitted in panels(*result.shape):
        expression = result[cells]
        scatter_entries(
            sparse.indptr[cells.start : cells.stop + 1], sparse.indices, values, at_zero, cell_offset[cells], expression
        )
        np.matmul(covariates.T[cells], fit[:, :-2].T, out=fitted)
        expression -= fitted
        np.multiply.outer(log_weights[cells], gene_scaling, out=growth)
        np.exp(growth, out=growth)
        growth *= fit[:, -2]
        expression *= growth
    return result.T
