"""Differential expression: the linear association test of every gene with every grouping, as lazy Dask arrays."""

from typing import Literal

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import as_rows, as_vector
from normalisr_dask.graph.layout import call_once, map_genes
from normalisr_dask.kernels import association as kernels
from normalisr_dask.kernels.p_values import log10_p_value, p_value
from normalisr_dask.results import DifferentialExpression
from normalisr_dask.steps.expression import expression_of, gram, remove_covariates
from normalisr_dask.validation import check_choice

GROUPINGS_PER_BLOCK = 500


def de(
    dg,
    dt,
    dc,
    bs: int = 0,
    *,
    single: Literal[0] = 0,
    lowmem: bool = True,
    nth: int = 1,
    dimreduce=0,
) -> DifferentialExpression:
    r"""Test every gene for differential expression in every grouping; lazy.

    The model is y = γ x + α C + ε with expression y, grouping x, covariates C. With residuals x̃, ỹ on C of rank ρ,

    .. math:: γ = \frac{Σ x̃ỹ}{Σ x̃^2}, \quad R^2 = \frac{(Σ x̃ỹ)^2}{Σ x̃^2 Σ ỹ^2}, \quad
              P = I_{1−R^2}(ν/2, ½), \quad ν = n − 1 − ρ − \mathrm{dimreduce}.

    Parameters
    ----------
    dg : array (groupings, cells)
        Groupings, 0 and 1 or any numbers; NumPy, SciPy sparse, Dask (dense or sparse chunks) or Zarr.
    dt : array (genes, cells)
        Normalised expression.
    dc : array (covariates, cells)
        Normalised covariates; none at all is (0, cells).
    bs : int
        Groupings per block; 0 for 500.
    single : {0}
        How a test treats the other groupings. 0: ignores them.
    lowmem : bool
        Whether to leave alpha out (None). It is lazy: asked for, it costs nothing until computed.
    nth : int
        Accepted for Normalisr's sake; Dask's scheduler decides on threads.
    dimreduce : int or array (genes,)
        Degrees of freedom that the expression has lost already.

    Returns
    -------
    DifferentialExpression
        pvalue, gamma, alpha, varg, vart; also se, dof and log10_pvalue, which do not unpack.

    Raises
    ------
    ValueError
        If numbers of cells or genes differ, or ``single`` is unknown.
        On compute: if no degree of freedom is left, or a value is NaN or infinite.

    Notes
    -----
    A grouping with one value in all cells has P = 1 and zeros; one that the covariates determine, or a gene without
    variance after covariates, has P = 1 and γ = 0.

    Cost: two passes over dt, and for the products O(genes · non-zeros of dg), or O(genes · cells · groupings) for
    dense dg. Memory: one block a task and genes × groupings of a block of groupings.

    References
    ----------
    .. [1] L. Wang, Nature Communications 12:6395 (2021), doi:10.1038/s41467-021-26682-1.

    Examples
    --------
    >>> import numpy as np
    >>> expression = np.array([[1.0, 1.2, 0.9, 3.0, 3.1, 2.8], [0.1, 0.3, 0.2, 0.2, 0.1, 0.3]])
    >>> result = de(np.array([[0, 0, 0, 1, 1, 1]]), expression, np.ones((1, 6)))
    >>> result.gamma.compute().round(3)
    array([[1.933, 0.   ]])
    >>> result.pvalue.compute().round(6)
    array([[1.01e-04, 1.00e+00]])
    """
    del nth
    check_choice(single, (0,), "single")
    expression = expression_of(dt, "dt")
    n_genes, n_cells = expression.shape
    covariates = as_rows(dc, "dc", expression).astype(np.float64)
    groupings = as_rows(dg, "dg", expression).rechunk({0: bs or GROUPINGS_PER_BLOCK})

    covariate_gram = gram(covariates)
    genes = expression.residuals(covariates, covariate_gram)
    tested = remove_covariates(groupings, covariates, covariate_gram, "dg")
    gene_variance = map_genes(kernels.residual_variance, genes.squares, n_cells=n_cells)
    has_two_values = map_genes(kernels.varies, tested.squares, dtype=bool)
    grouping_variance = map_genes(kernels.residual_variance, tested.squares, n_cells=n_cells) * has_two_values
    products = expression.products(groupings, tested.fit, covariates, genes)
    degrees = call_once(
        kernels.degrees_of_freedom,
        covariate_gram,
        loss_of_rank(dimreduce, n_genes),
        shape=(n_genes,),
        n_cells=n_cells,
    ).rechunk((expression.chunks[0],))
    variance = da.where(has_two_values[:, None], gene_variance[None, :], 0.0)
    gamma, r_squared = (
        da.map_blocks(kernel, products, grouping_variance[:, None], variance, n_cells=n_cells, dtype=np.float64)
        for kernel in (kernels.gamma, kernels.r_squared)
    )
    dof = da.broadcast_to(degrees, gamma.shape, chunks=gamma.chunks)
    alpha = None
    if not lowmem:
        fitted = genes.fit[None] - gamma[:, :, None] * tested.fit[:, None]
        alpha = da.where(has_two_values[:, None, None], fitted, 0.0)
    return DifferentialExpression(
        da.map_blocks(p_value, r_squared, degrees[None], dtype=np.float64),
        gamma,
        alpha,
        grouping_variance,
        variance,
        se=da.map_blocks(
            kernels.standard_error, r_squared, grouping_variance[:, None], variance, degrees[None], dtype=np.float64
        ),
        dof=dof,
        log10_pvalue=da.map_blocks(log10_p_value, r_squared, degrees[None], dtype=np.float64),
    )


def loss_of_rank(dimreduce, n_genes: int) -> da.Array:
    """Return the degrees of freedom lost by every gene (genes,) from one number or one a gene.

    Raises
    ------
    ValueError
        If there are neither one nor as many as genes.
    """
    if np.ndim(dimreduce) == 0:
        return da.full((n_genes,), float(dimreduce), chunks=-1)
    return as_vector(dimreduce, "dimreduce", n_genes, "genes").astype(np.float64).rechunk(-1)
