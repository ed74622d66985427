"""Co-expression: the linear association test of all gene pairs, as lazy Dask arrays."""

import numpy as np

from normalisr_dask.graph.inputs import BLOCK_BYTES, as_rows
from normalisr_dask.graph.layout import call_once, map_genes
from normalisr_dask.graph.products import symmetric_tiles
from normalisr_dask.kernels import association as kernels
from normalisr_dask.results import Coexpression
from normalisr_dask.steps.differential import loss_of_rank
from normalisr_dask.steps.expression import expression_of, gram

GENES_PER_TILE = 1000


def coex(dt, dc, *, bs: int = 0, nth: int = 1, dimreduce=0) -> Coexpression:
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
        Genes per side of a tile; 0 for 1000.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    dimreduce : int or array (genes,)
        Degrees of freedom that the expression has lost already; a pair loses the larger of its two genes'.

    Returns
    -------
    Coexpression
        pvalue and dot: float64 (genes, genes), symmetric, 0 on the diagonal; var: float64 (genes,).

    Raises
    ------
    ValueError
        If numbers of cells or genes differ.
        On compute: if no degree of freedom is left, or a value is NaN or infinite.

    Notes
    -----
    Covariates are removed once a gene, and only tiles on and above the diagonal are computed. A gene without variance
    after covariates has P = 1 and dot = 0 with every other.

    Cost: two passes over dt, then genes² · cells / 2 multiplications and genes² / 2 P-values. Memory: the residuals
    (genes · cells), spilled by Dask where they do not fit, and a few tiles a task.

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
    expression = expression_of(dt, "dt")
    n_genes, n_cells = expression.shape
    genes_per_tile = bs or GENES_PER_TILE
    cells_per_chunk = max(
        max(expression.chunks[1], default=1), BLOCK_BYTES // (8 * min(genes_per_tile, max(1, n_genes)))
    )
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    covariate_gram = gram(covariates)
    genes = expression.residuals(covariates, covariate_gram)
    variance = map_genes(kernels.residual_variance, genes.squares, n_cells=n_cells)
    degrees = call_once(
        kernels.degrees_of_freedom, covariate_gram, loss_of_rank(dimreduce, n_genes), shape=(n_genes,), n_cells=n_cells
    )
    residual = expression.residual_array(covariates, genes).rechunk((genes_per_tile, cells_per_chunk))
    pvalue, dot = symmetric_tiles(
        kernels.tile_sum,
        residual,
        finish=kernels.finish_tile,
        by_gene={"variance": variance, "degrees": degrees},
        n_cells=n_cells,
    )
    return Coexpression(pvalue, dot, variance)
