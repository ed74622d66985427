"""Co-expression: the linear association test of all gene pairs, as lazy Dask arrays."""

from typing import NamedTuple

import dask.array as da
import numpy as np
from dask.system import CPU_COUNT

from normalisr_dask.graph.inputs import BLOCK_BYTES, as_rows, in_long_blocks
from normalisr_dask.graph.layout import call_once, map_genes, map_matrix
from normalisr_dask.graph.passes import reader_of
from normalisr_dask.graph.tile_plan import TilePlan, genes_per_tile, plan_tiles
from normalisr_dask.graph.tiles import Tiles, tiles_of_blocks, tiles_of_counts
from normalisr_dask.kernels import association as kernels
from normalisr_dask.kernels import coexpression as tile_kernels
from normalisr_dask.results import Coexpression
from normalisr_dask.steps.association import loss_of_rank
from normalisr_dask.steps.covariates import orthonormal_basis
from normalisr_dask.steps.expression import DenseForm, NormalisedForm, expression_of
from normalisr_dask.validation import check_choice, check_count

#: Share of entries that are stored, where the counts are not at hand to say it: of droplet data, about.
DENSITY = 0.1
#: Cells of a block whose product runs at full speed; shorter blocks of dense expression are put together.
SHORTEST_BLOCK = 512


class Correlations(NamedTuple):
    """Correlations of all gene pairs after covariates, and what their tests need.

    Attributes
    ----------
    tiles : Tiles
        R of the tiles on and above the diagonal.
    variance, degrees : float64 (genes,)
        Variance after covariates, and degrees of freedom, of every gene.
    """

    tiles: Tiles
    variance: da.Array
    degrees: da.Array

    @property
    def by_gene(self) -> dict[str, da.Array]:
        """What the kernels that finish tiles take."""
        return {"variance": self.variance, "degrees": self.degrees}


def coex(
    dt, dc, bs: int = 0, nth: int = 1, *, dimreduce=0, dtype=np.float64, plan: TilePlan | None = None
) -> Coexpression:
    r"""Test all gene pairs for co-expression; lazy.

    The model for genes i and j is x_i = γ x_j + α C + ε. With residuals x̃ on the covariates C of rank ρ over n cells,

    .. math:: R^2 = \frac{(Σ x̃_i x̃_j)^2}{Σ x̃_i^2 Σ x̃_j^2}, \quad P = I_{1−R^2}(ν/2, ½),
              \quad ν = n − 1 − ρ − \mathrm{dimreduce}.

    Parameters
    ----------
    dt : array (genes, cells)
        Normalised expression.
    dc : array (covariates, cells)
        Normalised covariates; none at all is (0, cells).
    bs : int
        Genes per side of a tile; 0 for about 1000.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    dimreduce : int or array (genes,)
        Degrees of freedom that the expression has lost already; a pair loses the larger of its two genes'.
    dtype : float64 or float32
        Precision of the residuals and of their products within a block of cells; blocks are added in float64. float32
        takes half the time and memory, and moves R by some 1e-7: of log10 P that is a relative 1e-5 where P is small.
        Blocks of counts so sparse that residuals are never made (see Notes) are multiplied in float64 in any case.
    plan : TilePlan, optional
        For expression from sparse counts: how the work is shared out, as
        :func:`normalisr_dask.graph.tile_plan.plan_tiles` gives it for a memory limit and a number of workers; without
        it, for 1 GiB a task and a task at a time on each processor. The result is the same to the last bit.

    Returns
    -------
    Coexpression
        pvalue and dot: float64 (genes, genes), symmetric, 0 on the diagonal; var: float64 (genes,). Also log10_pvalue,
        which does not unpack: ``dask.compute(*result)`` leaves it out.

    Raises
    ------
    TypeError
        If dt or dc is no array of real numbers.
    ValueError
        If there are no genes, numbers of cells or genes differ, or ``dtype`` is another one.
        On compute: if no degree of freedom is left, or a value is NaN or infinite or its square is.

    Notes
    -----
    Covariates are removed once a gene, and only tiles on and above the diagonal are computed. A gene without variance
    after covariates has P = 1 and dot = 0 with every other. The bits do not depend on scheduler, workers or plan; they
    do on ``bs`` and on the blocks of cells.

    Cost: genes² · cells / 2 multiplications and genes² / 2 P-values. From counts of which less than a fifth are above
    0, in blocks of some hundred cells or more: a multiplication for each pair of counts of a cell, and some hundred
    for each pair of genes and block. From sparse counts: a pass over the counts for the covariates, and one for each
    group of tiles, with no more in memory than the sums of a group and the residuals of one block. From dense
    expression: two passes over dt before the products, and the residuals (genes · cells), spilled by Dask where they
    do not fit.

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.

    Examples
    --------
    >>> import numpy as np
    >>> expression = np.array([[1.0, 2.0, 3.0, 4.0], [2.1, 3.9, 6.2, 7.8], [1.0, -1.0, -1.0, 1.0]])
    >>> result = coex(expression, np.ones((1, 4)))
    >>> result.pvalue.compute().round(3)
    array([[0.   , 0.002, 1.   ],
           [0.002, 0.   , 0.977],
           [1.   , 0.977, 0.   ]])
    """
    del nth
    found = correlations(dt, dc, bs, dimreduce=dimreduce, dtype=dtype, plan=plan)
    by_gene, meta = found.by_gene, np.empty((0, 0))
    return Coexpression(
        pvalue=found.tiles.map(tile_kernels.tile_p_value, by_gene, meta=meta).array(),
        dot=found.tiles.map(tile_kernels.tile_dot, by_gene, meta=meta).array(),
        var=found.variance,
        log10_pvalue=found.tiles.map(tile_kernels.tile_p_value, by_gene, meta=meta, log10=True).array(),
    )


def correlations(dt, dc, bs: int = 0, *, dimreduce=0, dtype=np.float64, plan: TilePlan | None = None) -> Correlations:
    """Return the correlations of all gene pairs after covariates; lazy. Parameters and errors as of :func:`coex`."""
    precision = np.dtype(dtype)
    check_choice(precision.name, ("float64", "float32"), "dtype")
    check_count(bs, "bs")
    dt = in_long_blocks(dt, "dt")
    expression = expression_of(dt, "dt")
    n_genes, n_cells = expression.shape
    if n_genes == 0:
        msg = "expected genes in dt to make pairs of, found none"
        raise ValueError(msg)
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    basis = orthonormal_basis(covariates)
    genes = expression.residuals(basis.rows, basis.gram)
    variance = map_genes(kernels.residual_variance, genes.squares, n_cells=n_cells)
    degrees = call_once(
        kernels.degrees_of_freedom, basis.gram, loss_of_rank(dimreduce, n_genes), shape=(n_genes,), n_cells=n_cells
    )
    by_gene = {
        "coefficients": genes.fit,
        "inverse_norm": map_genes(tile_kernels.inverse_norm, variance, n_cells=n_cells),
    }
    if isinstance(expression, NormalisedForm):
        plan = plan or default_plan(expression, covariates.shape[0], bs, precision)
        tiles = _tiles_of_counts(expression, basis.rows, by_gene, plan, precision)
    elif reader_of(expression.array) is not None:
        plan = plan or default_plan(expression, covariates.shape[0], bs, precision, density=1.0)
        tiles = _tiles_of_stored(expression.array, basis.rows, by_gene, plan, precision)
    else:
        tiles = _tiles_of_dense(expression.array, basis.rows, by_gene, bs, precision)
    return Correlations(tiles, variance, degrees)


def default_plan(
    expression: NormalisedForm | DenseForm,
    n_covariates: int,
    side: int,
    precision: np.dtype,
    *,
    density: float = DENSITY,
) -> TilePlan:
    """Return the plan for counts, or stored expression, of which only the shape is known."""
    n_genes, n_cells = expression.shape
    return plan_tiles(
        n_genes,
        n_cells,
        n_entries=int(density * n_genes * n_cells),
        cells_per_block=max(expression.chunks[1], default=1),
        rows_of_cells=2 * n_covariates + 4,
        side=side,
        workers=CPU_COUNT,
        itemsize=precision.itemsize,
    )


def _tiles_of_counts(
    expression: NormalisedForm, covariates: da.Array, by_gene: dict[str, da.Array], plan: TilePlan, precision: np.dtype
) -> Tiles:
    """Return the correlations from sparse counts, which tasks read block by block."""
    return tiles_of_counts(
        expression.log_cpm.counts,
        plan,
        residuals=tile_kernels.count_residuals,
        add_product=tile_kernels.add_product,
        by_cell={
            "covariates": expression.covariates,
            "cell_offset": expression.log_cpm.cell_offset,
            "weights": expression.weights,
            "normalised_covariates": covariates,
        },
        by_gene={**by_gene, "fit": expression.fit, "gene_scaling": expression.gene_scaling},
        precision=precision,
    )


def _tiles_of_stored(
    expression: da.Array, covariates: da.Array, by_gene: dict[str, da.Array], plan: TilePlan, precision: np.dtype
) -> Tiles:
    """Return the correlations from dense expression that tasks read block by block."""
    return tiles_of_counts(
        expression,
        plan,
        residuals=tile_kernels.stored_residuals,
        add_product=tile_kernels.add_product,
        by_cell={"normalised_covariates": covariates},
        by_gene=by_gene,
        precision=precision,
    )


def _tiles_of_dense(
    expression: da.Array, covariates: da.Array, by_gene: dict[str, da.Array], side: int, precision: np.dtype
) -> Tiles:
    """Return the correlations from dense expression; the residuals are a Dask array."""
    n_genes = expression.shape[0]
    side = genes_per_tile(n_genes, side)
    sizes = expression.chunks[1]
    short = min(sizes, default=0) < SHORTEST_BLOCK < expression.shape[1]
    cells_per_chunk = max(*sizes, BLOCK_BYTES // (8 * side)) if short else sizes
    residuals = map_matrix(
        tile_kernels.dense_residuals,
        expression,
        by_cell={"covariates": covariates},
        by_gene=by_gene,
        dtype=precision,
        precision=precision,
    ).rechunk((side, cells_per_chunk))
    return tiles_of_blocks(tile_kernels.tile_sum, residuals)
