"""What all forms of the differential expression test share: their inputs, the moments they come down to, the result."""

from typing import NamedTuple

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import as_vector
from normalisr_dask.graph.layout import call_once, map_genes
from normalisr_dask.kernels import association as kernels
from normalisr_dask.results import DifferentialExpression
from normalisr_dask.steps.covariates import Basis
from normalisr_dask.steps.expression import Expression, Residuals, remove_covariates
from normalisr_dask.validation import check_not_negative


class Prepared(NamedTuple):
    """What all tests of some expression share, whatever the groupings.

    Attributes
    ----------
    expression : Expression
        Genes × cells.
    basis : Basis
        Of the covariates.
    genes : Residuals
        Of the expression on the rows of the basis.
    """

    expression: Expression
    basis: Basis
    genes: Residuals


class AssociationInputs(NamedTuple):
    """Inputs of a test of groupings.

    Attributes
    ----------
    groupings : array (groupings, cells)
        In blocks of groupings; chunks of cells as those of the expression.
    prepared : Prepared
        Expression and covariates.
    loss_of_rank : float64 (genes,)
        Degrees of freedom that the expression has lost already.
    """

    groupings: da.Array
    prepared: Prepared
    loss_of_rank: da.Array

    @property
    def expression(self) -> Expression:
        """Genes × cells."""
        return self.prepared.expression

    @property
    def basis(self) -> Basis:
        """Of the covariates."""
        return self.prepared.basis

    @property
    def genes(self) -> Residuals:
        """Of the expression on the rows of the basis."""
        return self.prepared.genes

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.expression.shape[1]


class Moments(NamedTuple):
    """Moments of the residuals x̃ of groupings and ỹ of genes that decide the tests.

    Attributes
    ----------
    covariance : float64 (groupings, genes)
        mean(x̃ỹ).
    grouping_variance : float64 (groupings,)
        mean(x̃²); 0 where a grouping cannot be tested.
    gene_variance : float64 (groupings, genes)
        mean(ỹ²).
    degrees : float64 (1 or groupings, genes)
        Degrees of freedom ν.
    alpha : float64 (groupings, genes, q) or None
        Effects of the covariates.
    untestable : str
        Why a grouping may be untestable; for a warning.
    """

    covariance: da.Array
    grouping_variance: da.Array
    gene_variance: da.Array
    degrees: da.Array
    alpha: da.Array | None
    untestable: str


def result_of(moments: Moments) -> DifferentialExpression:
    """Return effects, their standard errors and P-values."""
    grouping_variance = call_once(
        kernels.warn_of_untestable,
        moments.grouping_variance.rechunk(-1),
        shape=moments.grouping_variance.shape,
        reason=moments.untestable,
    ).rechunk(moments.grouping_variance.chunks)
    covariance, gene_variance = moments.covariance, moments.gene_variance
    degrees = moments.degrees.rechunk(
        ((1,) if len(moments.degrees) == 1 else covariance.chunks[0], covariance.chunks[1])
    )
    by_pair = (covariance, grouping_variance[:, None], gene_variance)
    gamma, r_squared = (
        da.map_blocks(kernel, *by_pair, n_cells=1, dtype=np.float64) for kernel in (kernels.gamma, kernels.r_squared)
    )
    pvalue, log10_pvalue = (
        da.map_blocks(kernel, r_squared, degrees, dtype=np.float64)
        for kernel in (kernels.tested_p_value, kernels.tested_log10_p_value)
    )
    standard_error = da.map_blocks(kernels.standard_error, r_squared, *by_pair[1:], degrees, dtype=np.float64)
    return DifferentialExpression(
        pvalue,
        gamma,
        moments.alpha,
        grouping_variance,
        gene_variance,
        se=standard_error,
        dof=da.broadcast_to(degrees, gamma.shape, chunks=gamma.chunks),
        log10_pvalue=log10_pvalue,
    )


def simple_moments(inputs: AssociationInputs, *, with_alpha: bool) -> Moments:
    """Return the moments where every grouping is tested over all cells, whatever the others are (``single=0``)."""
    genes, n_cells, basis = inputs.genes, inputs.n_cells, inputs.basis
    tested = remove_covariates(inputs.groupings, basis.rows, basis.gram, "dg")
    has_two_values = map_genes(kernels.varies, tested.squares, dtype=bool)
    grouping_variance = map_genes(kernels.residual_variance, tested.squares, n_cells=n_cells) * has_two_values
    products = inputs.expression.products(inputs.groupings, tested.fit, basis.rows, genes)
    covariance = products / n_cells
    gene_variance = da.broadcast_to(gene_variance_of(inputs), covariance.shape, chunks=covariance.chunks)
    alpha = None
    if with_alpha:
        gamma = da.map_blocks(
            kernels.gamma, covariance, grouping_variance[:, None], gene_variance, n_cells=1, dtype=np.float64
        )
        alpha = (genes.fit[None] - gamma[:, :, None] * tested.fit[:, None]) * has_two_values[:, None, None]
        alpha = alpha @ basis.to_covariates
    return Moments(
        covariance,
        grouping_variance,
        gene_variance * has_two_values[:, None],
        degrees_of_freedom(inputs)[None],
        alpha,
        "it has one value in all cells, or the covariates determine it",
    )


def gene_variance_of(inputs: AssociationInputs) -> da.Array:
    """Return the variance of the genes after covariates (genes,)."""
    return map_genes(kernels.residual_variance, inputs.genes.squares, n_cells=inputs.n_cells)


def degrees_of_freedom(inputs: AssociationInputs) -> da.Array:
    """Return ν = n − 1 − rank of the covariates − loss of rank, (genes,)."""
    return call_once(
        kernels.degrees_of_freedom,
        inputs.basis.gram,
        inputs.loss_of_rank,
        shape=inputs.loss_of_rank.shape,
        n_cells=inputs.n_cells,
    )


def loss_of_rank(dimreduce, n_genes: int) -> da.Array:
    """Return the degrees of freedom lost by every gene (genes,) from one number or one a gene.

    Raises
    ------
    ValueError
        If there are neither one nor as many as genes, or it is one below 0.
        On compute: if one of a gene is below 0, NaN or infinite.
    """
    if np.ndim(dimreduce) == 0:
        check_not_negative(float(dimreduce), "dimreduce")
        return da.full((n_genes,), float(dimreduce), chunks=-1)
    of_genes = as_vector(dimreduce, "dimreduce", n_genes, "genes").astype(np.float64).rechunk(-1)
    return call_once(kernels.checked_loss, of_genes, shape=(n_genes,))
