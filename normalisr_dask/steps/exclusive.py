"""Every grouping alone, against the cells of no grouping (``single=1``): one pass a block of groupings."""

from typing import NamedTuple

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import even_size
from normalisr_dask.graph.layout import call_once, map_columns, map_genes, sum_of_vectors
from normalisr_dask.kernels import exclusive as kernels
from normalisr_dask.kernels.association import possible_loss
from normalisr_dask.steps.association import AssociationInputs, Moments, Prepared
from normalisr_dask.steps.expression import Groups

#: Bytes of genes × groups moments that one task makes.
MOMENT_BYTES = 128 << 20
#: Bytes of them from which one task makes tests.
PART_BYTES = 8 << 20


class Controls(NamedTuple):
    """Sums over the cells of no grouping, which take part in every test, and what else all tests share.

    Attributes
    ----------
    labels : int64 (cells,)
        0 in no grouping, k + 1 in grouping k alone, −1 in several.
    counts : float64 (K + 1, (q + 1)²)
        Σ (C, 1)(C, 1)ᵀ over the cells of no grouping, and of each alone.
    moments : float64 (genes, q + 2)
        Σ ỹ C, ỹ and ỹ² over the cells of no grouping.
    """

    labels: da.Array
    counts: da.Array
    moments: da.Array


def labels_of(groupings: da.Array) -> da.Array:
    """Return of every cell the one grouping it is in, as :class:`Controls` has it."""
    return map_columns(kernels.exclusive_labels, groupings.rechunk({0: -1}), height=1, dtype=np.int64)[0]


def controls_of(labels: da.Array, n_groupings: int, prepared: Prepared) -> Controls:
    """Return the sums over the cells of no grouping; one pass."""
    covariates = prepared.basis.rows
    n_groups = n_groupings + 1
    counts = sum_of_vectors(
        kernels.group_counts,
        {"labels": labels, "covariates": covariates},
        shape=(n_groups, (covariates.shape[0] + 1) ** 2),
        first=kernels.CONTROL,
        n_groups=n_groups,
    )
    return Controls(labels, counts, _moments_of(prepared, labels, counts, slice(kernels.CONTROL, 1), n_in_all=1))


def exclusive_moments(
    inputs: AssociationInputs, *, groupings_per_block: int, with_alpha: bool, controls: Controls | None = None
) -> Moments:
    """Return the moments of every test over its own cells: those of the grouping alone, and those of none."""
    n_groupings = inputs.groupings.shape[0]
    controls = controls or controls_of(labels_of(inputs.groupings), n_groupings, inputs.prepared)
    n_genes, n_covariates = inputs.expression.shape[0], inputs.basis.rows.shape[0]
    per_block = groupings_per_block or even_size(n_groupings, default_groupings_per_block(n_genes, n_covariates))
    parts = [
        _block(inputs, controls, first, min(per_block, n_groupings - first), with_alpha=with_alpha)
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
    return max(1, MOMENT_BYTES // (8 * max(1, n_genes) * (2 * n_covariates + 3)))


def _genes_at_a_time(moments: da.Array) -> tuple[int, ...]:
    """Return chunks of genes of which what follows from the moments takes little room beside these."""
    n_genes, width = moments.shape
    at_a_time = max(1, PART_BYTES // (8 * max(1, width)))
    return da.core.normalize_chunks(even_size(n_genes, at_a_time), (n_genes,))[0] if n_genes else moments.chunks[0]


def _moments_of(prepared: Prepared, labels: da.Array, counts: da.Array, chosen: slice, *, n_in_all: int) -> da.Array:
    """Return the moments of the groups of some labels, from the counts of all."""
    groups = Groups(labels, chosen.start, chosen.stop - chosen.start, n_in_all, counts[chosen])
    return prepared.expression.group_moments(groups, prepared.basis.rows, prepared.genes)


def _block(
    inputs: AssociationInputs, controls: Controls, first: int, n_groupings: int, *, with_alpha: bool
) -> tuple[da.Array, da.Array, da.Array, da.Array, da.Array | None]:
    n_covariates, genes = inputs.basis.rows.shape[0], inputs.genes
    own = slice(first + 1, first + 1 + n_groupings)
    moments = _moments_of(inputs.prepared, controls.labels, controls.counts, own, n_in_all=len(inputs.groupings))
    counts = da.concatenate([controls.counts[:1], controls.counts[own]]).rechunk(-1)
    gene_chunks = (_genes_at_a_time(moments),)
    of_both = (part.rechunk((*gene_chunks, -1)) for part in (controls.moments, moments))
    moments = da.concatenate(list(of_both), axis=1).rechunk({1: -1})
    of_groupings = call_once(kernels.exclusive_groupings, counts, shape=(n_groupings, n_covariates + 2))
    gene_fit = genes.first_fit.rechunk((*gene_chunks, -1))
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
