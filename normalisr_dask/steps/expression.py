"""Expression behind one interface: dense arrays, and the implicit matrix whose cost follows the non-zeros.

Public functions hand out and take Dask arrays. An array that a step made from sparse counts remembers the counts and
the small vectors it is made of; the next step then works on these, and the dense blocks are made only when the array
itself is computed. Any other array, also a slice of such a one, takes the dense route.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import dask.array as da
import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.calls import Arrays
from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.graph.layout import (
    call_once,
    map_genes,
    map_matrix,
    map_pairs,
    sum_of_vectors,
    sum_over_cells,
    sum_over_genes,
)
from normalisr_dask.graph.passes import rows_of
from normalisr_dask.graph.products import product_over_cells
from normalisr_dask.graph.vectors import in_cell_chunks, with_ones
from normalisr_dask.kernels import association, chebyshev, exclusive, implicit, implicit_fit, implicit_groups
from normalisr_dask.kernels.linear_algebra import coefficients, cross_product
from normalisr_dask.kernels.log_cpm import mean_log_cpm

_FORM = "normalisr_dask_form"
_NO_TOTAL = np.float64(0.0)


class Residuals(NamedTuple):
    """Rows freed of covariates.

    Attributes
    ----------
    fit : float64 (rows, q)
        Coefficients of the rows on the covariates.
    first_fit : float64 (rows, q)
        The same with rounding that the second pass removes, for what takes no second pass and fits residuals again.
    squares : float64 (rows, 3)
        Sums of squares: of the residuals, about the mean, and raw; 0 where only rounding is left.
    """

    fit: da.Array
    first_fit: da.Array
    squares: da.Array


class Groups(NamedTuple):
    """Groups of cells, those of some labels that follow each other.

    Attributes
    ----------
    labels : int64 (cells,)
        0 in no grouping, k + 1 in grouping k alone, −1 in several.
    first, n_groups, n_in_all : int
        Label of the first group, how many there are, and how many with those of other labels.
    counts : float64 (groups, (q + 1)²)
        Σ over each group's cells of (C, 1)(C, 1)ᵀ.
    """

    labels: da.Array
    first: int
    n_groups: int
    n_in_all: int
    counts: da.Array


class Expression(Protocol):
    """What the association tests ask of normalised expression, genes × cells."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of genes and cells."""

    @property
    def rounding(self) -> float:
        """Share of a gene's raw sum of squares that rounding may leave in a sum of squares of its residuals."""

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates (q, cells)."""

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes)."""

    def group_moments(self, groups: Groups, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ over each group's cells of ỹ C, ỹ, ỹ² of residuals ỹ of the first fit, (genes, groups · (q + 2))."""


def expression_of(values, name: str) -> "NormalisedForm | DenseForm":
    """Return the implicit form of an array that has one, else its dense form."""
    return normalised_form(values) or DenseForm(as_matrix(values, name))


def log_cpm_form(values) -> "LogCpmForm | None":
    """Return the implicit form of log-CPM that was made from sparse counts, if there is one."""
    form = getattr(values, _FORM, None)
    return form if isinstance(form, LogCpmForm) else None


def normalised_form(values) -> "NormalisedForm | None":
    """Return the implicit form of normalised expression that was made from sparse counts, if there is one."""
    form = getattr(values, _FORM, None)
    return form if isinstance(form, NormalisedForm) else None


def with_form(form: "LogCpmForm | NormalisedForm") -> da.Array:
    """Return the dense lazy array of a form; it remembers the form."""
    array = form.to_dask()
    setattr(array, _FORM, form)
    return array


def _scaling_range(weights: da.Array, scaling: da.Array) -> da.Array:
    """Return smallest and largest gene scaling and the number of nodes between them (3,), checked against weights."""
    return call_once(chebyshev.check_range, in_cell_chunks(weights, weights.shape), scaling.rechunk(-1), shape=(3,))


def gram(rows: da.Array) -> da.Array:
    """Return rows × rowsᵀ, summed over chunks of cells; lazy."""
    return sum_over_cells(cross_product, rows, width=rows.shape[0], by_cell={"others": rows})


def remove_covariates(rows: da.Array, covariates: da.Array, covariate_gram: da.Array, name: str) -> Residuals:
    """Free any rows (dense or sparse chunks; errors call them ``name``) of covariates; two passes."""
    n_covariates, n_cells = covariates.shape
    by_cell = {"covariates": covariates}
    products = sum_over_cells(association.row_products, rows, width=n_covariates + 1, by_cell=by_cell, name=name)
    fit = map_genes(coefficients, products[:, :-1], shared=(covariate_gram,), shape=(n_covariates,))
    sums = sum_over_cells(
        association.residual_sums,
        rows,
        width=n_covariates + 4,
        by_cell=by_cell,
        by_gene={"coefficients": fit, "mean": products[:, -1] / n_cells},
    )
    refined = map_genes(
        association.refined_fit,
        fit,
        sums,
        shared=(covariate_gram,),
        shape=(n_covariates + 3,),
        n_cells=n_cells,
        name=name,
    )
    return Residuals(refined[:, :n_covariates], fit, refined[:, n_covariates:])


@dataclass(frozen=True)
class DenseForm:
    """Expression as a Dask array with dense (or any) chunks: the reference route."""

    array: da.Array

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""
        return self.array.shape

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of genes and cells."""
        return self.array.chunks

    @property
    def rounding(self) -> float:
        """Residuals are formed entry by entry."""
        return association.ENTRY_ROUNDING

    def chosen(self, genes: NDArray[np.int64]) -> "DenseForm":
        """Return some genes, in one chunk of genes."""
        return DenseForm(rows_of(self.array, genes))

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates; two passes, residuals formed entry by entry."""
        return remove_covariates(self.array, covariates, covariate_gram, "dt")

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes); one pass."""
        return product_over_cells(
            association.residual_products,
            rows,
            self.array,
            by_row={"grouping_coefficients": row_fit},
            by_gene={"coefficients": own.fit},
            by_cell={"covariates": covariates},
        )

    def group_moments(self, groups: Groups, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ over each group's cells of ỹ C, ỹ and ỹ², (genes, groups · (q + 2)); one pass."""
        return sum_over_cells(
            exclusive.residual_group_moments,
            self.array,
            width=groups.n_groups * (covariates.shape[0] + 2),
            by_cell={"labels": groups.labels, "covariates": covariates},
            by_gene={"coefficients": own.first_fit},
            first=groups.first,
            n_groups=groups.n_groups,
        )


@dataclass(frozen=True)
class LogCpmForm:
    """Log-CPM as sparse counts and one number a cell.

    Attributes
    ----------
    counts
        Counts (genes, cells), sparse chunks.
    cell_offset
        What log-CPM subtracts from ψ(k + 1) − ψ(2) of every cell (cells,).
    """

    counts: da.Array
    cell_offset: da.Array

    def to_dask(self) -> da.Array:
        """Return the dense lazy array."""
        return map_matrix(
            mean_log_cpm,
            self.counts,
            by_cell={"cell_offset": self.cell_offset},
            shared={"total": da.asarray(_NO_TOTAL)},
        )

    def zero_fit(self, covariates: da.Array) -> da.Array:
        """Return coefficients of the log-CPM of a zero count on the covariates, (1, q); needs no counts."""
        by_cell = {"cell_offset": self.cell_offset, "covariates": covariates}
        products = sum_of_vectors(implicit.zero_products, by_cell, shape=(1, covariates.shape[0]))
        return map_genes(coefficients, products, shared=(gram(covariates),), shape=(covariates.shape[0],))

    def cell_squares(self, covariates: da.Array, scale: da.Array) -> da.Array:
        """Return every cell's sum of squared standardised residuals on the covariates, (1, cells); two passes."""
        n_covariates, n_cells = covariates.shape
        by_cell = {"covariates": covariates, "cell_offset": self.cell_offset, "cell_scale": scale}
        products = sum_over_cells(implicit.scaled_products, self.counts, width=n_covariates + 3, by_cell=by_cell)
        scaled_gram = sum_of_vectors(implicit.scaled_gram, by_cell, shape=(n_covariates + 2, n_covariates + 2))
        fit = map_genes(
            implicit.residual_fit, products, shared=(scaled_gram,), shape=(n_covariates + 2,), n_cells=n_cells
        )
        return sum_over_genes(implicit.cell_squares, self.counts, width=1, by_cell=by_cell, by_gene={"fit": fit})


@dataclass(frozen=True)
class NormalisedForm:
    """Normalised expression as sparse counts and small vectors: y = k u (s + z − β C).

    Attributes
    ----------
    log_cpm
        Where s and z come from.
    covariates
        C (q, cells), as they were before variance normalisation.
    weights
        w (cells,).
    gene_scaling
        t (genes,).
    scaling_range
        Smallest and largest t, and the number of Chebyshev nodes between them, (3,).
    zero_fit
        Coefficients of the log-CPM of a zero count on C (1, q).
    fit
        β, k and Σ y² of every gene (genes, q + 2).
    """

    log_cpm: LogCpmForm
    covariates: da.Array
    weights: da.Array
    gene_scaling: da.Array
    scaling_range: da.Array
    zero_fit: da.Array
    fit: da.Array

    @classmethod
    def of(
        cls, log_cpm: LogCpmForm, covariates: da.Array, weights: da.Array, gene_scaling: da.Array, *, keepvar: bool
    ) -> "NormalisedForm":
        """Normalise log-CPM; one pass over the counts and one over vectors of length cells."""
        n_covariates, n_cells = covariates.shape
        bounds = _scaling_range(weights, gene_scaling)
        zero_fit = log_cpm.zero_fit(covariates)
        by_cell = {"covariates": covariates, "cell_offset": log_cpm.cell_offset, "weights": weights}
        sums = sum_over_cells(
            implicit_fit.entry_sums,
            log_cpm.counts,
            width=n_covariates + 3,
            by_cell=by_cell,
            by_gene={"gene_scaling": gene_scaling},
            shared={"zero_fit": zero_fit},
        )
        n_pairs = (n_covariates + 1) * (n_covariates + 2) // 2
        moments = sum_of_vectors(
            implicit_fit.node_moments,
            by_cell,
            shape=(chebyshev.N_NODES, n_pairs + 1),
            shared={"scaling_range": bounds, "zero_fit": zero_fit},
        )
        fit = map_genes(
            implicit_fit.gene_fit,
            sums,
            gene_scaling.rechunk((sums.chunks[0],)),
            shared=(moments, bounds, zero_fit),
            shape=(n_covariates + 2,),
            n_cells=n_cells,
            keepvar=keepvar,
        )
        return cls(log_cpm, covariates, weights, gene_scaling, bounds, zero_fit, fit)

    @classmethod
    def of_fit(
        cls, log_cpm: LogCpmForm, covariates: da.Array, weights: da.Array, gene_scaling: da.Array, fit: da.Array
    ) -> "NormalisedForm":
        """Return the form whose fit (genes, q + 2) is known already."""
        of_zero = log_cpm.zero_fit(covariates)
        return cls(log_cpm, covariates, weights, gene_scaling, _scaling_range(weights, gene_scaling), of_zero, fit)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""
        return self.log_cpm.counts.shape

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of genes and cells."""
        return self.log_cpm.counts.chunks

    @property
    def rounding(self) -> float:
        """Sums of squares of residuals are differences of sums."""
        return association.ROUNDING

    @property
    def by_cell(self) -> Arrays:
        """What the kernels that make blocks of expression take of the cells."""
        return {"covariates": self.covariates, "cell_offset": self.log_cpm.cell_offset, "weights": self.weights}

    @property
    def by_gene(self) -> Arrays:
        """What the kernels that make blocks of expression take of the genes."""
        return {"fit": self.fit, "gene_scaling": self.gene_scaling}

    def to_dask(self) -> da.Array:
        """Return the dense lazy array."""
        return map_matrix(implicit.dense_normalised, self.log_cpm.counts, by_cell=self.by_cell, by_gene=self.by_gene)

    def chosen(self, genes: NDArray[np.int64]) -> "NormalisedForm":
        """Return some genes, in one chunk of genes."""
        counts = rows_of(self.log_cpm.counts, genes)
        return replace(
            self,
            log_cpm=replace(self.log_cpm, counts=counts),
            gene_scaling=self.gene_scaling[genes].rechunk(-1),
            fit=self.fit[genes].rechunk(-1),
        )

    def raw_products(self, rows: da.Array) -> da.Array:
        """Return Σ_cells y row, (rows, genes); one pass over the counts."""
        entries = product_over_cells(
            implicit.entry_products,
            rows,
            self.log_cpm.counts,
            by_gene={"gene_scaling": self.gene_scaling},
            by_cell={"weights": self.weights},
            adds=True,
        )
        node_sums = sum_over_cells(
            implicit.node_products,
            rows,
            width=chebyshev.N_NODES * (self.covariates.shape[0] + 1),
            by_cell=self.by_cell,
            shared={"scaling_range": self.scaling_range, "zero_fit": self.zero_fit},
        )
        return map_pairs(
            implicit.complete_products,
            entries,
            by_row=(node_sums,),
            by_gene=(self.fit, self.gene_scaling),
            shared=(self.scaling_range, self.zero_fit),
        )

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates; one pass over the counts."""
        n_covariates, n_cells = covariates.shape
        products = self.raw_products(with_ones(covariates)).T
        fit = map_genes(
            association.fit_of_products,
            products,
            self.fit[:, -1].rechunk((products.chunks[0],)),
            shared=(covariate_gram,),
            shape=(n_covariates + 3,),
            n_cells=n_cells,
            rounding=self.rounding,
        )
        coefficients_of_genes = fit[:, :n_covariates]
        return Residuals(coefficients_of_genes, coefficients_of_genes, fit[:, n_covariates:])

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes); one pass over the counts."""
        return map_pairs(
            association.products_of_residuals,
            self.raw_products(rows),
            by_row=(row_fit,),
            by_gene=(own.fit,),
            shared=(gram(covariates),),
        )

    def group_moments(self, groups: Groups, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ over each group's cells of ỹ C, ỹ and ỹ², (genes, groups · (q + 2)); one pass over the counts."""
        n_tested, n_basis, n_groups = covariates.shape[0] + 1, self.covariates.shape[0] + 1, groups.n_groups
        by_cell = {**self.by_cell, "labels": groups.labels, "test_covariates": covariates}
        entries = sum_over_cells(
            implicit_groups.entry_group_sums,
            self.log_cpm.counts,
            width=(n_groups, n_tested + n_basis + 1),
            by_cell=by_cell,
            by_gene={"gene_scaling": self.gene_scaling},
            shared={"zero_fit": self.zero_fit},
            chained_width=groups.n_in_all * (n_tested + n_basis + 1),
            first=groups.first,
            n_groups=groups.n_groups,
        )
        n_pairs = n_basis * (n_basis + 1) // 2
        node_sums = sum_of_vectors(
            implicit_groups.node_group_sums,
            by_cell,
            shape=(n_groups, chebyshev.N_NODES * (n_basis * n_tested + n_pairs)),
            shared={"scaling_range": self.scaling_range, "zero_fit": self.zero_fit},
            first=groups.first,
            n_groups=groups.n_groups,
        )
        gene_chunks = (entries.chunks[0],)
        return map_genes(
            implicit_groups.complete_group_moments,
            entries,
            self.fit.rechunk((*gene_chunks, -1)),
            self.gene_scaling.rechunk(gene_chunks),
            own.first_fit.rechunk((*gene_chunks, -1)),
            shared=(node_sums, groups.counts, self.scaling_range, self.zero_fit),
            shape=(n_groups * (n_tested + 1),),
        )
