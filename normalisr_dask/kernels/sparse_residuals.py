r"""Residuals of a block of counts as entries and factors, and their products at a cost that falls with the density.

On one scale, the residuals of normalised expression on the covariates :math:`\tilde C` of the test are

.. math:: x̃_{gc} = f_g u_{gc} (s_{gc} + z_c − β_g·C_c) − a_g·\tilde C_c = A_{gc} + (E Φ)_{gc}.

A holds :math:`f_g u_{gc} s_{gc}` and is as sparse as the counts. The rest has few rows Φ: :math:`u_{gc} = e^{t_g L_c}`
is interpolated between Chebyshev nodes of t, so that Φ holds :math:`e^{τ L_c}` times C and z at every node τ, and
:math:`\tilde C`. With :math:`H = A Φ^⊤ + ½ E Φ Φ^⊤` the products of genes i and j over the cells of the block are

.. math:: x̃_i x̃_j^⊤ = A_i A_j^⊤ + H_i E_j^⊤ + E_i H_j^⊤.

The first product runs over pairs of entries of a cell; the others have some hundred columns, however many cells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

from normalisr_dask.kernels.chebyshev import interpolation_matrix, nodes, nodes_needed
from normalisr_dask.kernels.linear_algebra import coefficients as least_squares

Floats = NDArray[np.float64]

#: Interpolation error of u, relative to its smallest value.
TOLERANCE = 1e-14
#: Multiplications of a dense product in the time of one of a sparse product.
DENSE_PER_SPARSE = 20


@dataclass(frozen=True)
class SparseResiduals:
    """Residuals of some genes, A + E Φ; slices of genes share the entries.

    Attributes
    ----------
    gene_offsets : int64 (genes + 1,)
        Where each gene's entries begin in ``cells`` and ``positions``.
    cells, positions : int32, int64 (entries,)
        Cell of every entry, gene by gene, and where it lies in ``genes`` and ``values``.
    starts, stops : int64 (cells,)
        Where each cell's entries of these genes begin and end in ``genes`` and ``values``.
    genes, values : uint16 or uint32, float64 (entries,)
        Gene and value of every entry, cell by cell, genes ascending.
    first : int
        Number of the first of these genes in ``genes``.
    left, right : float64 (genes, columns)
        [H, E] and [E, H].
    """

    gene_offsets: NDArray[np.int64]
    cells: NDArray[np.int32]
    positions: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    genes: NDArray[Any]
    values: Floats
    first: int
    left: Floats
    right: Floats

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, chosen: slice) -> "SparseResiduals":
        start, stop, _ = chosen.indices(len(self))
        if (start, stop) == (0, len(self)):
            return self
        starts, stops = _first_at_least(self.starts, self.stops, self.genes, np.array([start, stop]) + self.first)
        return SparseResiduals(
            self.gene_offsets[start : stop + 1],
            self.cells,
            self.positions,
            starts,
            stops,
            self.genes,
            self.values,
            self.first + start,
            self.left[start:stop],
            self.right[start:stop],
        )


@dataclass(frozen=True)
class ResidualFactors:
    """What the residuals of all genes of a block are made of.

    Attributes
    ----------
    deviations
        s (genes, n), CSC.
    log_weights
        L (n,).
    gene_scaling
        t (genes,).
    factor
        f (genes,).
    cell_rows
        Φ (columns, n).
    gene_rows
        E (genes, columns).
    """

    deviations: scipy.sparse.csc_array
    log_weights: Floats
    gene_scaling: Floats
    factor: Floats
    cell_rows: Floats
    gene_rows: Floats

    @property
    def pay(self) -> bool:
        """Whether products of entries take less time than dense ones."""
        n_genes, n_cells = self.deviations.shape
        if n_genes == 0 or n_cells == 0:
            return False
        density = self.deviations.nnz / (n_genes * n_cells)
        return bool(DENSE_PER_SPARSE * density**2 + 2 * len(self.cell_rows) / n_cells < 1)

    def residuals(self, first: int, last: int) -> SparseResiduals:
        """Return the residuals of a run of genes."""
        sparse, run = self.deviations, slice(first, last)
        gene_offsets, cells, positions, starts, stops, genes, values = _sorted_entries(
            sparse.indptr,
            sparse.indices,
            sparse.data,
            self.log_weights,
            self.gene_scaling[run],
            self.factor[run],
            first,
        )
        by_gene = scipy.sparse.csr_array((values[positions], cells, gene_offsets), (last - first, sparse.shape[1]))
        gene_rows = self.gene_rows[run]
        half = by_gene @ self.cell_rows.T
        half += gene_rows @ (0.5 * (self.cell_rows @ self.cell_rows.T))
        return SparseResiduals(
            gene_offsets,
            cells,
            positions,
            starts,
            stops,
            genes.astype(np.uint16 if last - first <= 1 << 16 else np.uint32),
            values,
            0,
            np.hstack([half, gene_rows]),
            np.hstack([gene_rows, half]),
        )


def residual_factors(
    deviations: scipy.sparse.csc_array,
    *,
    covariates: Floats,
    zero_log_cpm: Floats,
    log_weights: Floats,
    normalised_covariates: Floats,
    coefficients: Floats,
    gene_scaling: Floats,
    factor: Floats,
    removed: Floats,
) -> ResidualFactors:
    """Return what the residuals of a block are made of.

    Parameters
    ----------
    deviations
        s (genes, n).
    covariates, zero_log_cpm, log_weights
        C (q, n), z (n,) and L (n,).
    normalised_covariates
        Covariates of the test (r, n).
    coefficients, gene_scaling, factor
        β (genes, q), t (genes,) and f (genes,).
    removed
        a (genes, r).
    """
    bounds = np.array([gene_scaling.min(), gene_scaling.max()])
    # u = e^(t (L − m)) e^(t m): about their middle m, log weights need the fewest nodes.
    middle = 0.5 * (log_weights.max() + log_weights.min()) if log_weights.size else 0.0
    n_nodes = nodes_needed(bounds, np.abs(log_weights - middle).max(initial=0.0), TOLERANCE)
    node_range = np.append(bounds, n_nodes)
    # z = z̃ + aC for any a: the fit of z on C leaves the least to cancel.
    fit = least_squares((covariates @ zero_log_cpm)[None], covariates @ covariates.T)
    cell_basis = np.vstack([covariates, zero_log_cpm - fit[0] @ covariates])
    at_middle = factor * np.exp(gene_scaling * middle)
    gene_basis = np.column_stack([fit - coefficients, np.ones(len(factor))]) * at_middle[:, None]
    growth = np.exp(np.outer(nodes(node_range), log_weights - middle))
    at_genes = interpolation_matrix(gene_scaling, node_range)
    n_rows = n_nodes * len(cell_basis)
    return ResidualFactors(
        deviations,
        log_weights,
        gene_scaling,
        factor,
        np.vstack([(growth[:, None] * cell_basis).reshape(n_rows, log_weights.size), normalised_covariates]),
        np.hstack([(at_genes[:, :, None] * gene_basis[:, None]).reshape(len(factor), n_rows), -removed]),
    )


def sparse_product(left: SparseResiduals, right: SparseResiduals) -> Floats:
    """Return the products of all genes of the one and of the other; symmetric to the last bit if they are the same."""
    product = left.left @ right.right.T
    is_diagonal = left.values is right.values and left.first == right.first and len(left) == len(right)
    _add_products(
        left.gene_offsets,
        left.cells,
        left.positions,
        left.values,
        right.starts,
        right.stops,
        right.genes,
        right.values,
        right.first,
        is_diagonal,
        product,
    )
    return product


@njit(nogil=True, cache=True, error_model="numpy")
def _sorted_entries(offsets, genes, values, log_weights, gene_scaling, factor, first):  # type: ignore[no-untyped-def]
    """Return the entries f u s of a run of genes: offsets, cells and positions by gene; starts, … values by cell."""
    n_genes, n_cells = gene_scaling.size, log_weights.size
    gene_offsets = np.zeros(n_genes + 1, dtype=np.int64)
    starts = np.zeros(n_cells, dtype=np.int64)
    stops = np.zeros(n_cells, dtype=np.int64)
    n_entries = 0
    for cell in range(n_cells):
        starts[cell] = n_entries
        for entry in range(offsets[cell], offsets[cell + 1]):
            gene = genes[entry] - first
            if 0 <= gene < n_genes:
                gene_offsets[gene + 1] += 1
                n_entries += 1
        stops[cell] = n_entries
    for gene in range(n_genes):
        gene_offsets[gene + 1] += gene_offsets[gene]
    places = gene_offsets[:-1].copy()
    cells = np.empty(n_entries, dtype=np.int32)
    by_gene = np.empty(n_entries)
    for cell in range(n_cells):
        for entry in range(offsets[cell], offsets[cell + 1]):
            gene = genes[entry] - first
            if 0 <= gene < n_genes:
                cells[places[gene]] = cell
                by_gene[places[gene]] = factor[gene] * np.exp(gene_scaling[gene] * log_weights[cell]) * values[entry]
                places[gene] += 1
    places = starts.copy()
    positions = np.empty(n_entries, dtype=np.int64)
    sorted_genes = np.empty(n_entries, dtype=np.int64)
    sorted_values = np.empty(n_entries)
    for gene in range(n_genes):
        for entry in range(gene_offsets[gene], gene_offsets[gene + 1]):
            place = places[cells[entry]]
            places[cells[entry]] += 1
            positions[entry] = place
            sorted_genes[place] = gene
            sorted_values[place] = by_gene[entry]
    return gene_offsets, cells, positions, starts, stops, sorted_genes, sorted_values


@njit(nogil=True, cache=True)
def _first_at_least(starts, stops, genes, bounds):  # type: ignore[no-untyped-def]
    """Return where each cell's genes reach the first and the second bound."""
    found = np.empty((2, starts.size), dtype=np.int64)
    for cell in range(starts.size):
        own = genes[starts[cell] : stops[cell]]
        for which in range(2):
            found[which, cell] = starts[cell] + np.searchsorted(own, bounds[which])
    return found


@njit(nogil=True, cache=True, error_model="numpy")
def _add_products(  # type: ignore[no-untyped-def]
    gene_offsets, cells, positions, values, starts, stops, other_genes, other_values, first, is_diagonal, product
):
    """Add A_i A_jᵀ; on the diagonal the products above it, which are then mirrored."""
    base = np.uint64(first)  # unsigned positions need no test for negative ones, which would take as long as the sum
    for gene in range(product.shape[0]):
        sums = product[gene]
        for entry in range(gene_offsets[gene], gene_offsets[gene + 1]):
            cell = cells[entry]
            value = values[positions[entry]]
            start = positions[entry] if is_diagonal else starts[cell]
            genes = other_genes[start : stops[cell]]
            factors = other_values[start : stops[cell]]
            for position in range(genes.size):
                sums[np.uint64(genes[position]) - base] += value * factors[position]
    if is_diagonal:
        for gene in range(product.shape[0]):
            for other in range(gene):
                product[gene, other] = product[other, gene]
