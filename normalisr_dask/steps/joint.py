"""All groupings in one model (``single=4``): each is tested with all others as covariates; one pass over the data."""

import dask.array as da
import numpy as np

from normalisr_dask.graph.layout import call_once, map_genes
from normalisr_dask.kernels import association
from normalisr_dask.kernels import joint as kernels
from normalisr_dask.steps.association import AssociationInputs, Moments
from normalisr_dask.steps.expression import Residuals, remove_covariates

#: Bytes of groupings × genes that one task makes.
PRODUCT_BYTES = 8 << 20
#: Groupings that one task tests when each needs principal components of its own.
GROUPINGS_A_TASK = 16
UNTESTABLE = "it has one value in all cells, or covariates and other groupings determine it"


def joint_moments(inputs: AssociationInputs, *, tolerance: float, with_alpha: bool) -> Moments:
    """Return the moments of the joint model of all groupings."""
    n_cells, genes = inputs.n_cells, inputs.genes
    tested, gram, variance, products = _joint_products(inputs)
    n_groupings, n_genes = products.shape
    inverse = call_once(
        kernels.estimable_inverse, gram, variance, shape=(n_groupings, n_groupings + 2), tolerance=tolerance
    )
    grouping_variance = call_once(kernels.joint_variance, inverse, shape=(n_groupings,), n_cells=n_cells)
    squares = genes.squares.rechunk((products.chunks[1], -1))
    fit = map_genes(
        kernels.joint_fit,
        products.T,
        squares,
        shared=(inverse, variance),
        shape=(n_groupings + 1,),
        n_cells=n_cells,
        rounding=inputs.expression.rounding,
    ).T
    is_estimable = (grouping_variance > 0)[:, None]
    gamma, unexplained = fit[:-1] * is_estimable, fit[-1] / n_cells
    degrees = call_once(
        association.degrees_of_freedom,
        inputs.basis.gram,
        inputs.loss_of_rank,
        inverse[:1, -1],
        shape=(n_genes,),
        n_cells=n_cells,
    )
    covariance = gamma * grouping_variance[:, None]
    alpha = None
    if with_alpha:
        of_covariates = genes.fit.rechunk((products.chunks[1], -1)) - fit[:-1].T @ tested.fit.rechunk(-1)
        alpha = da.broadcast_to(of_covariates, (n_groupings, *of_covariates.shape)) * is_estimable[:, :, None]
        alpha = alpha @ inputs.basis.to_covariates
    return Moments(
        covariance, grouping_variance, unexplained[None] + gamma * covariance, degrees[None], alpha, UNTESTABLE
    )


def component_moments(inputs: AssociationInputs, *, n_components: int, tolerance: float, with_alpha: bool) -> Moments:
    """Return the moments of each grouping with the top principal components of covariates and others as covariates."""
    n_cells, genes, covariate_gram = inputs.n_cells, inputs.genes, inputs.basis.gram
    tested, gram, _, products = _joint_products(inputs)
    n_groupings, n_genes = products.shape
    n_covariates = covariate_gram.shape[0]
    with_covariates = tested.fit.rechunk(-1) @ covariate_gram
    whole_gram = da.block(
        [[gram + with_covariates @ tested.fit.rechunk(-1).T, with_covariates], [with_covariates.T, covariate_gram]]
    ).rechunk(-1)
    gene_products = covariate_gram @ genes.fit.rechunk(-1).T
    whole_products = da.concatenate([products + tested.fit.rechunk(-1) @ gene_products, gene_products]).rechunk(-1)
    n_coefficients = n_covariates if with_alpha else 0
    results = da.concatenate(
        [
            call_once(
                kernels.component_tests,
                whole_gram,
                whole_products,
                genes.squares.rechunk(-1),
                shape=(min(GROUPINGS_A_TASK, n_groupings - first), (2 + n_coefficients) * n_genes + 2),
                first=first,
                n_tests=min(GROUPINGS_A_TASK, n_groupings - first),
                n_components=n_components,
                tolerance=tolerance,
                n_coefficients=n_coefficients,
            )
            for first in range(0, n_groupings, GROUPINGS_A_TASK)
        ]
    )
    grouping_variance, rank = results[:, -2] / n_cells, results[:, -1]
    covariance, gene_variance = (results[:, part * n_genes : (part + 1) * n_genes] / n_cells for part in (0, 1))
    degrees = da.map_blocks(
        association.remaining_degrees,
        da.broadcast_to(rank[:, None], covariance.shape, chunks=covariance.chunks),
        da.broadcast_to(inputs.loss_of_rank, covariance.shape, chunks=covariance.chunks),
        n_cells=n_cells,
        dtype=np.float64,
    )
    alpha = None
    if with_alpha:
        alpha = results[:, 2 * n_genes : -2].reshape((n_groupings, n_covariates, n_genes)).transpose((0, 2, 1))
    return Moments(covariance, grouping_variance, gene_variance, degrees, alpha, UNTESTABLE)


def _joint_products(inputs: AssociationInputs) -> tuple[Residuals, da.Array, da.Array, da.Array]:
    """Return fit and squares of the groupings, their Gram matrix, their variance, and their products with the genes."""
    groupings, basis = inputs.groupings.rechunk({0: -1}), inputs.basis
    tested = remove_covariates(groupings, basis.rows, basis.gram, "dg")
    n_groupings, n_genes = groupings.shape[0], inputs.expression.shape[0]
    square = (n_groupings, n_groupings)
    gram = da.zeros(square, chunks=-1)
    for block in range(groupings.numblocks[1]):  # one after the other: groupings × groupings can be large
        gram = call_once(kernels.with_products, gram, groupings.blocks[:, block], shape=square)
    gram = call_once(kernels.residual_gram, gram, tested.squares, tested.fit, basis.gram, shape=square)
    has_two_values = map_genes(association.varies, tested.squares, dtype=bool)
    variance = map_genes(association.residual_variance, tested.squares, n_cells=inputs.n_cells) * has_two_values
    in_blocks = inputs.groupings
    fit_in_blocks = tested.fit.rechunk((in_blocks.chunks[0], -1))
    products = inputs.expression.products(in_blocks, fit_in_blocks, basis.rows, inputs.genes)
    genes_per_block = max(1, PRODUCT_BYTES // (8 * max(1, n_groupings)))
    return tested, gram, variance, products.rechunk((-1, min(genes_per_block, max(1, n_genes))))
