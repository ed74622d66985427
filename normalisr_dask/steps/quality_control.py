"""Quality control: which genes and cells to keep by their counts, and which cells have an outlying variance."""

import logging
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.graph.layout import sum_both_ways, sum_over_cells, sum_over_genes
from normalisr_dask.graph.vectors import in_memory, positions
from normalisr_dask.kernels.counts import both_sums, cell_sums, gene_sums
from normalisr_dask.kernels.outliers import variance_outliers
from normalisr_dask.validation import check_fraction, check_not_negative

logger = logging.getLogger(__name__)


class ChosenByCounts(NamedTuple):
    """Genes and cells that have enough counts.

    Attributes
    ----------
    gene_kept, cell_kept : bool (genes,), bool (cells,)
        Whether each is kept.
    gene_sums, cell_sums : float64 (genes, 3), float64 (2, cells)
        What :func:`count_sums` says of what is kept.
    """

    gene_kept: NDArray[np.bool_]
    cell_kept: NDArray[np.bool_]
    gene_sums: NDArray[np.float64]
    cell_sums: NDArray[np.float64]


def qc_reads(
    reads,
    n_gene: float,
    nc_gene: float,
    ncp_gene: float,
    n_cell: float,
    nt_cell: float,
    ntp_cell: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose genes and cells by their counts; computes, since its answer decides shapes.

    Genes and cells are judged on the same matrix, removed together, and again on what is left, until nothing changes.
    A criterion of 0 is off.

    Parameters
    ----------
    reads : array (genes, cells) of whole numbers
        UMI counts: NumPy, SciPy sparse, Dask (dense or sparse chunks) or Zarr.
    n_gene : int
        Smallest total count of a gene.
    nc_gene : int
        Smallest number of cells that express a gene.
    ncp_gene : float
        Smallest share of the current cells that express a gene, 0 to 1.
    n_cell : int
        Smallest total count of a cell.
    nt_cell : int
        Smallest number of genes expressed in a cell.
    ntp_cell : float
        Smallest share of the current genes expressed in a cell, 0 to 1.

    Returns
    -------
    genes, cells : int64 (genes kept,), int64 (cells kept,)
        Positions of what is kept, ascending.

    Raises
    ------
    ValueError
        If a bound is negative, a share is above 1, a count is negative or fractional, or nothing is left.

    Notes
    -----
    Cost: one pass over the counts for each round (3 to 6 on real data), O(non-zeros); brings back vectors of length
    genes and cells. Memory: one block a task.

    Examples
    --------
    >>> import numpy as np
    >>> genes, cells = qc_reads(np.array([[5, 0, 0], [3, 4, 0], [2, 1, 0]]), 0, 2, 0, 1, 0, 0)
    >>> genes, cells
    (array([1, 2]), array([0, 1]))
    """
    chosen = choose_by_counts(reads, n_gene, nc_gene, ncp_gene, n_cell, nt_cell, ntp_cell)
    return np.flatnonzero(chosen.gene_kept), np.flatnonzero(chosen.cell_kept)


def choose_by_counts(
    reads, n_gene: float, nc_gene: float, ncp_gene: float, n_cell: float, nt_cell: float, ntp_cell: float
) -> ChosenByCounts:
    """Choose genes and cells as :func:`qc_reads`, and keep the sums by which the last round has judged them."""
    for name, bound in (("n_gene", n_gene), ("nc_gene", nc_gene), ("n_cell", n_cell), ("nt_cell", nt_cell)):
        check_not_negative(bound, name)
    check_fraction(ncp_gene, "ncp_gene")
    check_fraction(ntp_cell, "ntp_cell")
    counts = as_matrix(reads, "reads")
    genes_kept, cells_kept = (np.ones(size, dtype=bool) for size in counts.shape)
    while True:
        by_gene, by_cell = dask.compute(*count_sums(counts, genes_kept, cells_kept))
        gene_total, gene_cells = by_gene[:, 0], by_gene[:, 1]
        cell_total, cell_genes = by_cell
        # Whole numbers are compared with share × size as Normalisr does, in floating point.
        good_genes = genes_kept & (gene_total >= n_gene) & (gene_cells >= nc_gene)
        good_genes &= gene_cells >= ncp_gene * cells_kept.sum()
        good_cells = cells_kept & (cell_total >= n_cell) & (cell_genes >= nt_cell)
        good_cells &= cell_genes >= ntp_cell * genes_kept.sum()
        for name, kept in (("genes", good_genes), ("cells", good_cells)):
            if not kept.any():
                msg = f"expected some {name} to pass quality control, found none of {kept.size}; lower the bounds"
                raise ValueError(msg)
        changed = good_genes.sum() < genes_kept.sum() or good_cells.sum() < cells_kept.sum()
        genes_kept, cells_kept = good_genes, good_cells
        if not changed:
            break
    logger.info(
        "kept %d of %d genes, %d of %d cells", genes_kept.sum(), genes_kept.size, cells_kept.sum(), cells_kept.size
    )
    return ChosenByCounts(genes_kept, cells_kept, by_gene, by_cell)


def count_sums(
    counts: da.Array, genes_kept: NDArray[np.bool_], cells_kept: NDArray[np.bool_]
) -> tuple[da.Array, da.Array]:
    """Return what the kept cells say of every gene (genes, 3) and the kept genes of every cell (2, cells); lazy."""
    cell_index = {"cell_index": positions(counts.chunks[1])}
    gene_index = {"gene_index": positions(counts.chunks[0])}
    by_cell = {"cells_kept": in_memory(cells_kept, counts.chunks[1]), **cell_index}
    by_gene = {"genes_kept": da.from_array(genes_kept, chunks=(counts.chunks[0],)), **gene_index}
    if counts.numblocks[0] == 1:
        return sum_both_ways(both_sums, counts, width=3, height=2, by_cell=by_cell, by_gene=by_gene)
    return (
        sum_over_cells(gene_sums, counts, width=3, by_cell=by_cell, by_gene=gene_index),
        sum_over_genes(cell_sums, counts, width=2, by_cell=cell_index, by_gene=by_gene),
    )


def qc_outlier(dw, pcut: float = 1e-10, outrate: float = 0.02) -> NDArray[np.bool_]:
    """Choose cells whose fitted variance is no outlier; computes, since its answer decides shapes.

    Fits a normal distribution to the weights of the kept cells, keeps the cells with two-sided P ≥ pcut/cells, and
    again, until a choice has come up in at least 3 and at least 10 % of the rounds.

    Parameters
    ----------
    dw : array (cells,)
        Inverse square root of every cell's fitted variance, as from :func:`normalisr_dask.compute_var`; positive.
    pcut : float
        Bonferroni cut of the P-value, between 0 and 1.
    outrate : float
        Largest share of outliers on either side, between 0 and 0.5: where the fit starts, and its final check.

    Returns
    -------
    bool (cells,)
        Whether each cell passed.

    Raises
    ------
    ValueError
        If a bound is out of range, a weight is not positive, or more than 2·outrate of the cells are outliers.

    Examples
    --------
    >>> import numpy as np
    >>> weights = np.append(np.random.default_rng(0).normal(2, 0.1, size=200), 9.0)
    >>> np.flatnonzero(~qc_outlier(weights))
    array([200])
    """
    (weights,) = dask.compute(dw)
    return variance_outliers(np.asarray(weights, dtype=np.float64), pcut=pcut, outrate=outrate)
