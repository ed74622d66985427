"""Expression behind one interface: dense arrays, and the implicit matrix whose cost follows the non-zeros.

Public functions hand out and take Dask arrays. An array that a step made from sparse counts remembers the counts and
the small vectors it is made of; the next step then works on these, and the dense blocks are made only when the array
itself is computed. Any other array, also a slice of such a one, takes the dense route.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import dask.array as da
import numpy as np

from normalisr_dask.graph.inputs import as_matrix
from normalisr_dask.graph.layout import Arrays, call_once, map_genes, map_matrix, sum_over_cells, sum_over_genes
from normalisr_dask.graph.passes import anew
from normalisr_dask.graph.products import product_over_cells
from normalisr_dask.kernels import association, chebyshev, implicit
from normalisr_dask.kernels import normalisation as dense
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
    squares : float64 (rows, 3)
        Sums of squares: of the residuals, about the mean, and raw.
    """

    fit: da.Array
    squares: da.Array


class Expression(Protocol):
    """What the association tests ask of normalised expression, genes × cells."""

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of genes and cells."""

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates (q, cells)."""

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes)."""


def expression_of(values, name: str) -> Expression:
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


def gram(rows: da.Array) -> da.Array:
    """Return rows × rowsᵀ, summed over chunks of cells; lazy."""
    return sum_over_cells(cross_product, rows, width=rows.shape[0], by_cell={"others": rows})


def remove_covariates(rows: da.Array, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
    """Free any rows (dense or sparse chunks) of covariates; two passes."""
    n_covariates, n_cells = covariates.shape
    by_cell = {"covariates": covariates}
    products = sum_over_cells(association.row_products, rows, width=n_covariates + 1, by_cell=by_cell)
    fit = map_genes(coefficients, products[:, :-1], shared=(covariate_gram,), shape=(n_covariates,))
    squares = sum_over_cells(
        association.row_squares,
        anew(rows),
        width=3,
        by_cell=by_cell,
        by_gene={"coefficients": fit, "mean": products[:, -1] / n_cells},
    )
    return Residuals(fit, squares)


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

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates; two passes, residuals formed entry by entry."""
        return remove_covariates(self.array, covariates, covariate_gram)

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes); one pass."""
        return product_over_cells(
            association.residual_products,
            anew(rows),
            anew(self.array),
            by_row={"grouping_coefficients": row_fit},
            by_gene={"coefficients": own.fit},
            by_cell={"covariates": covariates},
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

    @property
    def zeros(self) -> da.Array:
        """Log-CPM of a zero count of every cell (cells,)."""
        return self.cell_offset.map_blocks(implicit.offset_of_zeros, dtype=np.float64, meta=np.empty(0))

    def to_dask(self) -> da.Array:
        """Return the dense lazy array."""
        return map_matrix(
            mean_log_cpm,
            anew(self.counts),
            by_cell={"cell_offset": self.cell_offset},
            shared={"total": da.asarray(_NO_TOTAL)},
        )

    def cell_squares(self, covariates: da.Array, scale: da.Array) -> da.Array:
        """Return every cell's sum of squared standardised residuals on the covariates, (1, cells); two passes."""
        n_covariates, n_cells = covariates.shape
        zeros = self.zeros
        by_cell = {"covariates": covariates, "zeros": zeros, "cell_scale": scale}
        products = sum_over_cells(implicit.scaled_products, anew(self.counts), width=n_covariates + 3, by_cell=by_cell)
        rows = da.concatenate([covariates / scale, (zeros / scale)[None], da.ones_like(scale)[None]]).rechunk({0: -1})
        fit = map_genes(
            implicit.residual_fit, products, shared=(gram(rows),), shape=(n_covariates + 2,), n_cells=n_cells
        )
        return sum_over_genes(implicit.cell_squares, anew(self.counts), width=1, by_cell=by_cell, by_gene={"fit": fit})


@dataclass(frozen=True)
class NormalisedForm:
    """Normalised expression as sparse counts and small vectors: y = k u (s + z − β C).

    Attributes
    ----------
    log_cpm
        Where s and z come from.
    covariates
        C (q, cells), as they were before variance normalisation.
    log_weights
        log w (cells,).
    gene_scaling
        t (genes,).
    scaling_range
        Smallest and largest t (2,).
    fit
        β, k and Σ y² of every gene (genes, q + 2).
    """

    log_cpm: LogCpmForm
    covariates: da.Array
    log_weights: da.Array
    gene_scaling: da.Array
    scaling_range: da.Array
    fit: da.Array

    @classmethod
    def of(
        cls, log_cpm: LogCpmForm, covariates: da.Array, weights: da.Array, gene_scaling: da.Array, *, keepvar: bool
    ) -> "NormalisedForm":
        """Normalise log-CPM; one pass over the counts and one over vectors of length cells."""
        log_weights = da.log(weights)
        n_covariates, n_cells = covariates.shape
        zeros = log_cpm.zeros
        bounds = call_once(chebyshev.check_range, log_weights.rechunk(-1), gene_scaling.rechunk(-1), shape=(2,))
        sums = sum_over_cells(
            implicit.entry_sums,
            anew(log_cpm.counts),
            width=n_covariates + 3,
            by_cell={"covariates": covariates, "zeros": zeros, "log_weights": log_weights},
            by_gene={"gene_scaling": gene_scaling},
        )
        ones = da.ones((1, n_cells), chunks=(1, covariates.chunks[1]))
        basis = _rows(covariates, zeros)
        first, second = dense.covariate_pairs(n_covariates + 1)
        pairs = _node_products(ones, basis[first] * basis[second], log_weights, bounds, power=2)
        totals = _node_products(ones, zeros[None], log_weights, bounds, power=1)
        fit = map_genes(
            implicit.gene_fit,
            sums,
            gene_scaling.rechunk((sums.chunks[0],)),
            shared=(pairs, totals, bounds),
            shape=(n_covariates + 2,),
            n_cells=n_cells,
            keepvar=keepvar,
        )
        return cls(log_cpm, covariates, log_weights, gene_scaling, bounds, fit)

    @classmethod
    def of_fit(
        cls, log_cpm: LogCpmForm, covariates: da.Array, weights: da.Array, gene_scaling: da.Array, fit: da.Array
    ) -> "NormalisedForm":
        """Return the form whose fit (genes, q + 2) is known already."""
        log_weights = da.log(weights)
        bounds = call_once(chebyshev.check_range, log_weights.rechunk(-1), gene_scaling.rechunk(-1), shape=(2,))
        return cls(log_cpm, covariates, log_weights, gene_scaling, bounds, fit)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of genes and cells."""
        return self.log_cpm.counts.shape

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Chunks of genes and cells."""
        return self.log_cpm.counts.chunks

    def to_dask(self) -> da.Array:
        """Return the dense lazy array."""
        return map_matrix(
            implicit.dense_normalised,
            anew(self.log_cpm.counts),
            by_cell={
                "cell_offset": self.log_cpm.cell_offset,
                "covariates": self.covariates,
                "log_weights": self.log_weights,
            },
            by_gene={"fit": self.fit, "gene_scaling": self.gene_scaling},
        )

    def raw_products(self, rows: da.Array) -> da.Array:
        """Return Σ_cells y row, (rows, genes); one pass over the counts."""
        entries = product_over_cells(
            implicit.entry_products,
            rows,
            anew(self.log_cpm.counts),
            by_gene={"gene_scaling": self.gene_scaling},
            by_cell={"log_weights": self.log_weights},
        )
        basis = _rows(self.covariates, self.log_cpm.zeros)
        node_sums = _node_products(rows, basis, self.log_weights, self.scaling_range, power=1)
        gene_chunks = (entries.chunks[1],)
        return da.blockwise(
            implicit.complete_products,
            ("rows", "genes"),
            entries,
            ("rows", "genes"),
            node_sums,
            ("rows", "nodes"),
            self.fit.rechunk((*gene_chunks, -1)),
            ("genes", "fit"),
            self.gene_scaling.rechunk(gene_chunks),
            ("genes",),
            self.scaling_range,
            ("range",),
            concatenate=True,
            dtype=np.float64,
            meta=np.empty((0, 0)),
        )

    def residuals(self, covariates: da.Array, covariate_gram: da.Array) -> Residuals:
        """Free the genes of the covariates; one pass over the counts."""
        n_covariates, n_cells = covariates.shape
        ones = da.ones((1, n_cells), chunks=(1, covariates.chunks[1]))
        products = self.raw_products(da.concatenate([covariates, ones]).rechunk({0: -1})).T
        fit = map_genes(coefficients, products[:, :-1], shared=(covariate_gram,), shape=(n_covariates,))
        raw = self.fit[:, -1].rechunk((products.chunks[0],))
        removed = (fit * products[:, :-1]).sum(axis=1)
        about_mean = raw - products[:, -1] ** 2 / n_cells
        return Residuals(fit, da.stack([da.maximum(raw - removed, 0), about_mean, raw], axis=1).rechunk({1: -1}))

    def products(self, rows: da.Array, row_fit: da.Array, covariates: da.Array, own: Residuals) -> da.Array:
        """Return Σ_cells of residuals of the rows and of the genes, (rows, genes); one pass over the counts."""
        covariate_products = gram(covariates)
        # Σ ỹ x̃ = Σ y x − (coefficients of x) (C Cᵀ) (coefficients of y)ᵀ
        return self.raw_products(rows) - (row_fit @ covariate_products) @ own.fit.T


def _rows(covariates: da.Array, zeros: da.Array) -> da.Array:
    """Return C and z as rows of one chunk (q + 1, cells)."""
    return da.concatenate([covariates, zeros[None]]).rechunk({0: -1})


def _node_products(
    rows: da.Array, basis: da.Array, log_weights: da.Array, scaling_range: da.Array, *, power: int
) -> da.Array:
    by_cell: Arrays = {"basis": basis, "log_weights": log_weights}
    return sum_over_cells(
        implicit.node_products,
        rows,
        width=chebyshev.N_NODES * basis.shape[0],
        by_cell=by_cell,
        shared={"scaling_range": scaling_range},
        power=power,
    )
