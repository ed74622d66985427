"""What every kernel on a block of a matrix promises to the graph.

It takes dense and sparse blocks, blocks without genes and without cells, leaves its input as it was (Dask shares it
with other tasks), and its result for a block is what belongs to it of the result for the whole matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from normalisr_dask.kernels import (
    association,
    counts,
    exclusive,
    implicit,
    implicit_fit,
    implicit_groups,
    log_cpm,
    normalisation,
)
from normalisr_dask.kernels.blocks import as_sparse, dense_float, dense_from_entries
from normalisr_dask.kernels.linear_algebra import cross_product

N_GENES, N_CELLS, N_COVARIATES = 12, 17, 3
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.poisson(np.exp(RANDOM.uniform(-2, 2, size=(N_GENES, 1))), size=(N_GENES, N_CELLS))
EXPRESSION = RANDOM.normal(8, 2, size=(N_GENES, N_CELLS))

OF_CELLS = {
    "covariates": np.vstack([RANDOM.normal(size=(N_COVARIATES - 1, N_CELLS)), np.ones(N_CELLS)]),
    "cell_scale": RANDOM.uniform(1, 2, N_CELLS),
    "weights": RANDOM.uniform(1, 2, N_CELLS),
    "log_weights": RANDOM.uniform(0, 1, N_CELLS),
    "cell_offset": RANDOM.normal(-13, 1, N_CELLS),
    "cells_kept": RANDOM.random(N_CELLS) < 0.7,
    "cell_totals": COUNTS.sum(axis=0).astype(np.float64),
    "cell_index": np.arange(N_CELLS),
    "normalised_covariates": RANDOM.normal(size=(N_COVARIATES, N_CELLS)),
    "others": RANDOM.normal(size=(2, N_CELLS)),
    "rows": (RANDOM.random((4, N_CELLS)) < 0.4).astype(np.int8),
    "labels": RANDOM.integers(-1, 4, N_CELLS),
    "test_covariates": RANDOM.normal(size=(2, N_CELLS)),
}
OF_GENES = {
    "coefficients": RANDOM.normal(size=(N_GENES, N_COVARIATES)),
    "gene_scaling": RANDOM.uniform(0, 1, N_GENES),
    "mean": RANDOM.normal(size=N_GENES),
    "factor": RANDOM.uniform(1, 2, N_GENES),
    "residual": RANDOM.uniform(1, 2, size=(N_GENES, 2)),
    "genes_kept": RANDOM.random(N_GENES) < 0.7,
    "gene_index": np.arange(N_GENES),
    "fit": RANDOM.uniform(1, 2, size=(N_GENES, N_COVARIATES + 2)),
}


@dataclass(frozen=True)
class Case:
    """A kernel and what it takes.

    Attributes
    ----------
    kernel
        Called with the block and the named arguments; ``rows`` come second, by position.
    matrix
        The matrix that blocks are cut from.
    names
        Which of the arrays above the kernel takes.
    result
        "genes" for a sum over cells (genes, …), "cells" for a sum over genes (…, cells), "block" for a value an entry,
        "rows" for a sum over cells (rows, genes).
    constants
        Other arguments.
    sparse
        Whether blocks of this matrix may be sparse.
    """

    kernel: Callable[..., Any]
    matrix: np.ndarray
    names: tuple[str, ...]
    result: str
    constants: dict[str, Any] = field(default_factory=dict)
    sparse: bool = True

    def __call__(
        self, genes: slice = slice(None), cells: slice = slice(None), container: Any = np.asarray
    ) -> np.ndarray:
        block = container(self.matrix[genes, cells])
        named = {name: OF_CELLS[name][..., cells] for name in self.names if name in OF_CELLS}
        named |= {name: OF_GENES[name][genes] for name in self.names if name in OF_GENES}
        second = [container(named.pop("rows"))] if "rows" in named else []
        return self.kernel(block, *second, **named, **self.constants)


TOTAL = {"total": np.float64(COUNTS.sum())}
POSTERIOR = {"varscale": 0.0, "seed": 1} | TOTAL
DRAWN = {"varscale": 0.5, "seed": 1} | TOTAL
INDICES = ("cell_index", "gene_index")
CASES = {
    "gene_sums": Case(counts.gene_sums, COUNTS, ("cells_kept", "cell_totals", *INDICES), "genes"),
    "cell_sums": Case(counts.cell_sums, COUNTS, ("genes_kept", *INDICES), "cells"),
    "cell_summary": Case(log_cpm.cell_summary, COUNTS, INDICES, "cells"),
    "sum_of_draws": Case(log_cpm.sum_of_draws, COUNTS, INDICES, "cells", DRAWN),
    "log_cpm": Case(log_cpm.log_cpm, COUNTS, ("cell_offset", *INDICES), "block", POSTERIOR),
    "log_cpm, drawn": Case(log_cpm.log_cpm, COUNTS, ("cell_offset", *INDICES), "block", DRAWN),
    "mean_log_cpm": Case(log_cpm.mean_log_cpm, COUNTS, ("cell_offset",), "block", TOTAL),
    "variance_log_cpm": Case(log_cpm.variance_log_cpm, COUNTS, (), "block", TOTAL),
    "covariate_products": Case(normalisation.covariate_products, EXPRESSION, ("covariates", "cell_scale"), "genes"),
    "residual_moments": Case(
        normalisation.residual_moments, EXPRESSION, ("coefficients", "covariates", "cell_scale"), "genes"
    ),
    "cell_squares": Case(
        normalisation.cell_squares, EXPRESSION, ("coefficients", "residual", "covariates", "cell_scale"), "cells"
    ),
    "weighted_products": Case(
        normalisation.weighted_products, EXPRESSION, ("covariates", "log_weights", "gene_scaling"), "genes"
    ),
    "weighted_squares": Case(
        normalisation.weighted_squares,
        EXPRESSION,
        ("coefficients", "mean", "covariates", "log_weights", "gene_scaling"),
        "genes",
    ),
    "normalised": Case(
        normalisation.normalised,
        EXPRESSION,
        ("coefficients", "factor", "covariates", "log_weights", "gene_scaling"),
        "block",
    ),
    "remove_covariates": Case(normalisation.remove_covariates, EXPRESSION, ("coefficients", "covariates"), "block"),
    "row_products": Case(association.row_products, EXPRESSION, ("covariates",), "genes", {"name": "dt"}),
    "residual_sums": Case(association.residual_sums, EXPRESSION, ("coefficients", "mean", "covariates"), "genes"),
    "residual_products": Case(
        association.residual_products,
        EXPRESSION,
        ("rows", "coefficients", "covariates"),
        "rows",
        {"grouping_coefficients": np.zeros((4, N_COVARIATES))},
    ),
    "cross_product": Case(cross_product, EXPRESSION, ("others",), "genes", sparse=False),
    "scaled_products": Case(implicit.scaled_products, COUNTS, ("covariates", "cell_offset", "cell_scale"), "genes"),
    "implicit cell_squares": Case(
        implicit.cell_squares, COUNTS, ("fit", "covariates", "cell_offset", "cell_scale"), "cells"
    ),
    "entry_sums": Case(
        implicit_fit.entry_sums,
        COUNTS,
        ("covariates", "cell_offset", "weights", "gene_scaling"),
        "genes",
        {"zero_fit": np.linspace(-1, 1, N_COVARIATES)[None]},
    ),
    "entry_group_sums": Case(
        implicit_groups.entry_group_sums,
        COUNTS,
        ("labels", "test_covariates", "covariates", "cell_offset", "weights", "gene_scaling"),
        "genes",
        {"zero_fit": np.linspace(-1, 1, N_COVARIATES)[None], "first": 1, "n_groups": 2},
    ),
    "residual_group_moments": Case(
        exclusive.residual_group_moments,
        EXPRESSION,
        ("labels", "covariates", "coefficients"),
        "genes",
        {"first": 0, "n_groups": 3},
    ),
    "entry_products": Case(implicit.entry_products, COUNTS, ("rows", "weights", "gene_scaling"), "rows"),
    "dense_normalised": Case(
        implicit.dense_normalised, COUNTS, ("cell_offset", "fit", "covariates", "weights", "gene_scaling"), "block"
    ),
}
CONTAINERS = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csc_array": scipy.sparse.csc_array,
    "csr_array": scipy.sparse.csr_array,
    "csr_matrix": scipy.sparse.csr_matrix,
}


PAIRS = [
    pytest.param(case, container, id=f"{name}-{kind}")
    for name, case in CASES.items()
    for kind, container in CONTAINERS.items()
    if case.sparse or kind in {"dense", "fortran"}
]


def combined(case: Case, parts: list[list[np.ndarray]]) -> np.ndarray:
    """Put results of blocks (rows of blocks of genes) together as the graph does."""
    if case.result == "block":
        return np.block(parts)
    if case.result == "cells":
        return np.concatenate([sum(column) for column in zip(*parts, strict=True)], axis=1)
    return np.concatenate([sum(row) for row in parts], axis=0 if case.result == "genes" else 1)


@pytest.mark.parametrize(("case", "container"), PAIRS)
def test_blocks_add_up_to_the_whole(case: Case, container: Any):
    parts = [[case(genes, cells, container) for cells in CELL_BLOCKS] for genes in GENE_BLOCKS]
    np.testing.assert_allclose(combined(case, parts), case(), rtol=1e-11, atol=1e-11)


CELL_BLOCKS = [slice(0, 1), slice(1, 9), slice(9, 9), slice(9, N_CELLS)]
GENE_BLOCKS = [slice(0, 5), slice(5, 6), slice(6, 6), slice(6, N_GENES)]


@pytest.mark.parametrize(
    ("genes", "cells"),
    [(slice(0, 0), slice(None)), (slice(None), slice(0, 0)), (slice(0, 0), slice(0, 0))],
    ids=["no genes", "no cells", "nothing"],
)
@pytest.mark.parametrize(("case", "container"), PAIRS)
def test_empty_blocks_give_empty_results_of_the_right_shape(case: Case, container: Any, genes: slice, cells: slice):
    found, whole = case(genes, cells, container), case()
    n_genes, n_cells = case.matrix[genes, cells].shape
    expected = {
        "block": (n_genes, n_cells),
        "genes": (n_genes, *whole.shape[1:]),
        "cells": (*whole.shape[:-1], n_cells),
        "rows": (whole.shape[0], n_genes),
    }[case.result]
    assert found.shape == expected
    assert found.dtype == whole.dtype == np.float64
    np.testing.assert_array_equal(found, np.zeros(expected))


@pytest.mark.parametrize(("case", "container"), PAIRS)
def test_input_is_left_as_it_was(case: Case, container: Any):
    block = container(case.matrix.copy())
    arrays = (
        [getattr(block, name) for name in ("data", "indices", "indptr")] if scipy.sparse.issparse(block) else [block]
    )
    arrays += [array for name, array in (OF_CELLS | OF_GENES).items() if name in case.names]
    copies = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False
    try:
        replace(case, matrix=block)(container=lambda given: given)
    finally:
        for array in arrays:
            array.flags.writeable = True
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


class TestAsSparse:
    def test_zeros_that_are_stored_are_dropped(self):
        block = scipy.sparse.csr_array(([1, 0, 2], [0, 1, 1], [0, 2, 3]), shape=(2, 2))
        found = as_sparse(block)
        assert found.nnz == 2
        assert block.nnz == 3
        np.testing.assert_array_equal(found.toarray(), block.toarray())

    def test_a_block_without_them_is_not_copied(self):
        block = scipy.sparse.csc_array(COUNTS)
        assert np.shares_memory(as_sparse(block).data, block.data)


def test_dense_from_entries_fills_the_rest_and_subtracts_what_each_cell_is_to_lose():
    sparse = scipy.sparse.csc_array(COUNTS)
    offset = np.arange(N_CELLS) / 4
    found = dense_from_entries(sparse, -1.0 * sparse.data, 0.5, offset)
    np.testing.assert_array_equal(found, np.where(COUNTS > 0, -COUNTS, 0.5) - offset)


def test_dense_float_copies_only_what_it_must():
    assert dense_float(EXPRESSION) is EXPRESSION
    np.testing.assert_array_equal(dense_float(scipy.sparse.csr_array(COUNTS)), COUNTS)
    assert dense_float(COUNTS).dtype == np.float64
