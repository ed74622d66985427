"""Every grouping alone, against the cells of no grouping (``single=1``): one pass a block of groupings."""

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import even_size
from normalisr_dask.graph.layout import call_once, map_columns, map_genes, sum_of_vectors
from normalisr_dask.kernels import exclusive as kernels
from normalisr_dask.kernels.association import possible_loss
from normalisr_dask.steps.association import AssociationInputs, Moments
from normalisr_dask.steps.expression import Groups

#: Bytes of genes × groups moments that one task makes.
MOMENT_BYTES = 128 << 20


def exclusive_moments(inputs: AssociationInputs, *, groupings_per_block: int, with_alpha: bool) -> Moments:
    """Return the moments of every test over its own cells: those of the grouping alone, and those of none."""
    groupings = inputs.groupings.rechunk({0: -1})
    labels = map_columns(kernels.exclusive_labels, groupings, height=1, dtype=np.int64)[0]
    n_groupings = groupings.shape[0]
    n_genes, n_covariates = inputs.expression.shape[0], inputs.basis.rows.shape[0]
    per_block = even_size(n_groupings, groupings_per_block or default_groupings_per_block(n_genes, n_covariates))
    parts = [
        _block(inputs, labels, first, min(per_block, n_groupings - first), with_alpha=with_alpha)
        for first in range(0, n_groupings, per_block)
    ]
    covariance, variance, gene_variance, degrees, alpha = zip(*parts, strict=True)
    return Moments(
        da.concatenate(covariance),
        da.concatenate(variance),
        da.concatenate(gene_variance),
        da.concatenate(degrees),
        da.concatenate(alpha) if with_alpha else None,
        "it has no cells of its own, there are no cells without a grouping, the covariates determine it, or it has too "
        "few cells for a degree of freedom",
    )


def default_groupings_per_block(n_genes: int, n_covariates: int) -> int:
    """Return how many groupings a task tests together: their moments are genes × groupings × some two a covariate."""
    return max(1, MOMENT_BYTES // (8 * max(1, n_genes) * (2 * n_covariates + 5)) - 1)


def _block(
    inputs: AssociationInputs, labels: da.Array, first: int, n_groupings: int, *, with_alpha: bool
) -> tuple[da.Array, da.Array, da.Array, da.Array, da.Array | None]:
    covariates, genes = inputs.basis.rows, inputs.genes
    n_covariates = covariates.shape[0]
    counts = sum_of_vectors(
        kernels.group_counts,
        {"labels": labels, "covariates": covariates},
        shape=(n_groupings + 1, (n_covariates + 1) ** 2),
        first=first,
        n_groupings=n_groupings,
    )
    moments = inputs.expression.group_moments(Groups(labels, first, n_groupings, counts), covariates, genes)
    of_groupings = call_once(kernels.exclusive_groupings, counts, shape=(n_groupings, n_covariates + 2))
    gene_fit = genes.first_fit.rechunk((moments.chunks[0], -1))
    products = map_genes(
        kernels.exclusive_products,
        moments,
        gene_fit,
        shared=(counts,),
        shape=(2, n_groupings),
        rounding=inputs.expression.rounding,
    )
    loss_of_rank = call_once(
        possible_loss, inputs.basis.gram, inputs.loss_of_rank, shape=inputs.loss_of_rank.shape, n_cells=inputs.n_cells
    )
    variance, degrees = of_groupings[:, 0], of_groupings[:, 1, None] - loss_of_rank
    is_testable = (variance[:, None] > 0) & (degrees > 0)
    covariance, gene_variance = (products[:, part].T * is_testable for part in (0, 1))
    alpha = None
    if with_alpha:
        of_tests = map_genes(
            kernels.exclusive_coefficients,
            moments,
            gene_fit,
            shared=(counts,),
            shape=(n_groupings, n_covariates),
        )
        gamma = covariance / da.maximum(variance, np.finfo(float).tiny)[:, None]
        alpha = of_tests.transpose((1, 0, 2)) - gamma[:, :, None] * of_groupings[:, None, 2:]
        alpha = (alpha * is_testable[:, :, None]) @ inputs.basis.to_covariates
    return covariance, variance, gene_variance, da.maximum(degrees, 0.0), alpha
