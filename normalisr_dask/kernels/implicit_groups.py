r"""Moments of groups of cells from the implicit matrix: the counterpart of dense ``residual_group_moments``.

As in :mod:`normalisr_dask.kernels.implicit`, :math:`y_{gc} = k_g u_{gc} (s_{gc} + p_g·b_c)` with b = (C, z̃) and
p = (a − β, 1) where z̃ = z − a C: sums that involve s run over the non-zeros, the others are interpolated between
Chebyshev nodes.

Letters of the shapes: G genes, q covariates of the normalisation, r those of the test, n cells of a block, m nodes,
J groups of cells.
"""

from collections.abc import Iterable

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.blocks import Block, by_columns
from normalisr_dask.kernels.chebyshev import N_NODES, growth_at_nodes, interpolation_matrix, pieces, with_all_nodes
from normalisr_dask.kernels.exclusive import Labels, group_of_cells
from normalisr_dask.kernels.implicit import (
    cell_buffers,
    cell_growth,
    coded_deviations,
    in_zero_residual,
    with_zero_residual,
)
from normalisr_dask.kernels.normalisation import covariate_pairs

Floats = NDArray[np.float64]
#: Most genes whose products with the nodes are formed together.
GENES_AT_A_TIME = 2048
#: Bytes of the products of covariates of cells that are taken together.
PRODUCT_BYTES = 16 << 20


def entry_group_sums(
    block: Block,
    *,
    labels: Labels,
    test_covariates: Floats,
    covariates: Floats,
    cell_offset: Floats,
    zero_fit: Floats,
    weights: Floats,
    gene_scaling: Floats,
    first: int,
    n_groups: int,
    sums: Floats | None = None,
) -> Floats:
    """Return Σ over each group's cells of u s (C of the test, 1), u² s b and u² s², (G, J, r + q + 3).

    Where there are sums of other blocks already, these are added to, in place, and returned. In memory the genes of a
    group lie together, as they come.
    """
    groups = group_of_cells(labels, first=first, n_groups=n_groups)
    chosen = np.flatnonzero(groups >= 0)
    cells = chosen[np.argsort(groups[chosen], kind="stable")]  # one group after the other: its sums stay in the cache
    own = coded_deviations(by_columns(block)[:, cells])
    once = np.vstack([test_covariates, np.ones(labels.size)])[:, cells].T
    twice = with_zero_residual(covariates, cell_offset, zero_fit)[:, cells].T
    if sums is None:
        sums = np.swapaxes(np.zeros((n_groups, own.shape[0], once.shape[1] + twice.shape[1] + 1)), 0, 1)
    _add_entry_sums(
        groups[cells],
        own.offsets,
        own.genes,
        own.codes,
        own.by_count,
        np.ascontiguousarray(once),
        np.ascontiguousarray(twice),
        np.log(weights[cells]),
        gene_scaling,
        np.swapaxes(sums, 0, 1),
    )
    return sums


@njit(nogil=True, cache=True)
def _add_entry_sums(  # type: ignore[no-untyped-def]
    groups, offsets, genes, codes, by_count, once, twice, log_weights, gene_scaling, sums
):
    n_once, n_twice = once.shape[1], twice.shape[1]
    scaling, growth = cell_buffers(offsets)
    for cell in range(groups.size):
        start, stop = offsets[cell], offsets[cell + 1]
        cell_growth(genes[start:stop], gene_scaling, log_weights[cell], scaling, growth)
        group, of_once, of_twice = groups[cell], once[cell], twice[cell]
        for entry in range(start, stop):
            weight = growth[entry - start]
            weighted = weight * by_count[codes[entry]]
            of_group = sums[group, genes[entry]]
            for row in range(n_once):
                of_group[row] += weighted * of_once[row]
            for row in range(n_twice):
                of_group[n_once + row] += weight * weighted * of_twice[row]
            of_group[n_once + n_twice] += weighted * weighted


def node_group_sums(
    *,
    labels: Labels,
    test_covariates: Floats,
    covariates: Floats,
    cell_offset: Floats,
    zero_fit: Floats,
    weights: Floats,
    scaling_range: Floats,
    first: int,
    n_groups: int,
) -> Floats:
    """Return Σ over each group's cells, at every node τ, of e^(τL) b (C of the test, 1) and e^(2τL) of pairs of b.

    Flat, (J, m (q + 1)(r + 1) + m pairs).
    """
    groups = group_of_cells(labels, first=first, n_groups=n_groups)
    basis = with_zero_residual(covariates, cell_offset, zero_fit)
    tested = np.vstack([test_covariates, np.ones(groups.size)])
    bytes_of_cell = basis.itemsize * len(basis) * (len(tested) + len(basis))
    at_a_time = max(1, PRODUCT_BYTES // bytes_of_cell)
    chosen = np.flatnonzero(groups >= 0)
    total = None
    for cells in np.split(chosen, range(at_a_time, chosen.size, at_a_time)):  # products of all cells would take room
        part = _node_sums_of_groups(
            groups[cells], n_groups, basis[:, cells], tested[:, cells], growth_at_nodes(weights[cells], scaling_range)
        )
        total = part if total is None else total + part
    return np.asarray(total)


def _node_sums_of_groups(
    groups: NDArray[np.int64], n_groups: int, basis: Floats, tested: Floats, growths: Iterable[Floats]
) -> Floats:
    """Return what :func:`node_group_sums` does, of cells that are all in groups, from their growth at every node."""
    by_group = scipy.sparse.csr_array(
        (np.ones(groups.size), (groups, np.arange(groups.size))), shape=(n_groups, groups.size)
    )
    first_row, second_row = covariate_pairs(len(basis))
    once = (basis[:, None] * tested).reshape(len(basis) * len(tested), groups.size)
    twice = basis[first_row] * basis[second_row]
    with_tested, of_pairs = [], []
    for growth in growths:
        with_tested.append(by_group @ (once * growth).T)
        of_pairs.append(by_group @ (twice * growth**2).T)
    parts = (with_tested, of_pairs)
    return np.column_stack([with_all_nodes(np.column_stack(part), len(part), axis=1) for part in parts])


def complete_group_moments(
    entries: Floats,
    fit: Floats,
    gene_scaling: Floats,
    coefficients: Floats,
    node_sums: Floats,
    counts: Floats,
    scaling_range: Floats,
    zero_fit: Floats,
) -> Floats:
    """Return Σ over each group's cells of ỹ C, ỹ and ỹ², flat, (G, J (r + 2)), of the residuals ỹ = y − α C.

    Parameters
    ----------
    entries
        From :func:`entry_group_sums` (G, J, r + q + 3).
    fit
        β, k and Σ y² of every gene (G, q + 2).
    gene_scaling
        t (G,).
    coefficients
        α of the genes on the covariates of the test (G, r).
    node_sums
        From :func:`node_group_sums`.
    counts
        Σ (C, 1)(C, 1)ᵀ of every group (J, (r + 1)²), C of the test.
    scaling_range
        From :func:`chebyshev.check_range` (3,).
    zero_fit
        a of z̃ = z − a C (1, q).
    """
    moments = np.empty((len(entries), len(counts) * (coefficients.shape[1] + 2)))
    bytes_of_gene = entries.itemsize * N_NODES * len(covariate_pairs(fit.shape[1] - 1)[0])
    for genes in pieces(len(entries), bytes_of_gene, GENES_AT_A_TIME):
        at_genes = interpolation_matrix(gene_scaling[genes], scaling_range)
        in_basis, factor = in_zero_residual(fit[genes], zero_fit), fit[genes, -2, None]
        moments[genes] = _complete(
            entries[genes], in_basis, factor, at_genes, coefficients[genes], node_sums=node_sums, counts=counts
        )
    return moments


def _complete(
    entries: Floats,
    in_basis: Floats,
    factor: Floats,
    at_genes: Floats,
    coefficients: Floats,
    *,
    node_sums: Floats,
    counts: Floats,
) -> Floats:
    n_genes, n_groups, n_tested = len(entries), len(counts), coefficients.shape[1] + 1
    n_basis = in_basis.shape[1]

    n_with_tested = at_genes.shape[1] * n_basis * n_tested
    with_tested = node_sums[:, :n_with_tested].reshape(n_groups, -1, n_tested)
    of_pairs = node_sums[:, N_NODES * n_basis * n_tested :]
    dense = (at_genes[:, :, None] * in_basis[:, None]).reshape(n_genes, -1)
    raw = factor[:, None] * (entries[:, :, :n_tested] + np.einsum("gb,jbr->gjr", dense, with_tested, optimize=True))

    first, second = covariate_pairs(n_basis)
    pairs = in_basis[:, first] * in_basis[:, second] * np.where(first == second, 1.0, 2.0)
    dense = (at_genes[:, :, None] * pairs[:, None]).reshape(n_genes, -1)
    squares = entries[:, :, -1] + dense @ of_pairs[:, : dense.shape[1]].T
    squares += 2 * np.einsum("gjb,gb->gj", entries[:, :, n_tested:-1], in_basis)
    squares *= factor**2

    grams = counts.reshape(n_groups, n_tested, n_tested)[:, :-1]
    removed = np.einsum("gi,jir->gjr", coefficients, grams, optimize=True)
    squares += np.einsum("gi,gji->gj", coefficients, removed[:, :, :-1] - 2 * raw[:, :, :-1])
    moments = np.concatenate([raw - removed, np.maximum(squares, 0.0)[:, :, None]], axis=2)
    return np.asarray(moments.reshape(n_genes, -1))
