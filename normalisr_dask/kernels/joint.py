r"""All groupings in one model: each is tested with the covariates and all others as covariates.

With X̃ (groupings) and ỹ the residuals on the covariates C, S = X̃X̃ᵀ, a generalised inverse S⁻ and B = S⁻X̃ỹᵀ,

.. math:: γ_k = B_k, \quad \mathrm{varx}_k = 1/(n S^-_{kk}), \quad
          \mathrm{vary}_k = \mathrm{RSS}/n + γ_k^2 \mathrm{varx}_k, \quad \mathrm{RSS} = Σỹ^2 − B·X̃ỹ^T,

for every grouping that the others do not determine, where these do not depend on the choice of S⁻.

Letters of the shapes: G genes, q covariates, K groupings, n cells of a block.
"""

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import lapack

from normalisr_dask.kernels.association import ROUNDING, more_than_rounding
from normalisr_dask.kernels.blocks import Block, dense_float

Floats = NDArray[np.float64]

#: Blocks of groupings with at least this share of non-zeros are multiplied as dense ones.
DENSE_FROM = 0.1
#: Share of a grouping in combinations of groupings that cancel each other from which it takes part in them.
TAKES_PART = 1e-6


def with_products(gram: Floats, block: Block) -> Floats:
    """Return X Xᵀ, (K, K), of the cells before and those of a block.

    Parameters
    ----------
    gram
        Of the cells before (K, K).
    block
        Groupings (K, n), sparse or dense.
    """
    if not scipy.sparse.issparse(block) or block.nnz >= DENSE_FROM * np.prod(block.shape):
        rows = dense_float(block)
        return gram + rows @ rows.T
    rows = scipy.sparse.csr_array(block, dtype=np.float64)
    products = scipy.sparse.coo_array(rows @ rows.T)
    total = gram.copy()
    total[products.coords] += products.data  # each pair is there once
    return total


def residual_gram(gram: Floats, squares: Floats, fit: Floats, covariate_gram: Floats) -> Floats:
    """Return S = X̃X̃ᵀ, (K, K).

    Parameters
    ----------
    gram
        X Xᵀ of the groupings as they are (K, K).
    squares
        Sums of squares of the groupings, that of the residuals first, (K, 3).
    fit
        Coefficients of the groupings on the covariates (K, q).
    covariate_gram
        C Cᵀ (q, q).
    """
    residual = gram - (fit @ covariate_gram) @ fit.T
    np.fill_diagonal(residual, squares[:, 0])  # summed entry by entry, without cancellation
    return residual


def estimable_inverse(gram: Floats, variance: Floats, *, tolerance: float) -> Floats:
    """Return a generalised inverse of S, which groupings are estimable (0 and 1), and the rank, (K, K + 2).

    By Cholesky's decomposition with pivots of S scaled to a unit diagonal: it stops where what is left of every other
    grouping is less than ``tolerance`` of its variance, and the groupings it took so far span all others.

    Parameters
    ----------
    gram
        S (K, K).
    variance
        Variances of the groupings after covariates, 0 where nothing is left (K,).
    tolerance
        Share of a grouping's variance that the others must leave of it.
    """
    n_groupings = len(gram)
    result = np.zeros((n_groupings, n_groupings + 2))
    scale = np.sqrt(np.where(variance > 0, np.diag(gram), 1.0))
    scaled = gram / scale[:, None] / scale
    is_empty = variance <= 0
    scaled[is_empty] = scaled[:, is_empty] = 0.0
    factor, pivots, rank, _ = lapack.dpstrf(np.asfortranarray(scaled), tol=tolerance, overwrite_a=True)
    del scaled
    if rank == 0:
        return result
    taken = pivots[:rank] - 1
    inverse_factor, _ = lapack.dtrtri(factor[:rank, :rank])
    depends = np.triu(inverse_factor) @ factor[:rank, rank:]
    is_estimable = np.zeros(n_groupings)
    is_estimable[taken] = np.abs(depends).max(axis=1, initial=0.0) < TAKES_PART
    inverse, _ = lapack.dpotri(factor[:rank, :rank])
    upper = np.triu(inverse, 1)
    result[np.ix_(taken, taken)] = (upper + upper.T + np.diag(np.diag(inverse))) / np.outer(scale[taken], scale[taken])
    result[:, -2] = is_estimable
    result[:, -1] = rank
    return result


def joint_variance(inverse: Floats, *, n_cells: int) -> Floats:
    """Return varx of every grouping given covariates and the others, 0 where it is not estimable, (K,).

    Parameters
    ----------
    inverse
        From :func:`estimable_inverse` (K, K + 2).
    n_cells
        Number of cells.
    """
    diagonal = np.diagonal(inverse)
    return np.where(inverse[:, -2] > 0, 1.0 / (n_cells * np.where(diagonal > 0, diagonal, 1.0)), 0.0)


def joint_fit(
    products: Floats, squares: Floats, inverse: Floats, variance: Floats, *, n_cells: int, rounding: float
) -> Floats:
    """Return B and, as last column, RSS of every gene, (G, K + 1).

    Where nothing is left of a gene, groupings determine it, and γ of the others consists of rounding: it is 0 then.

    Parameters
    ----------
    products
        ỹX̃ᵀ (G, K).
    squares
        Sums of squares of the genes: of the residuals, about the mean, and raw (G, 3).
    inverse
        From :func:`estimable_inverse` (K, K + 2).
    variance
        Variances of the groupings after covariates (K,).
    n_cells
        Number of cells.
    rounding
        Share of a gene's raw sum of squares that rounding may leave in one of its residuals.
    """
    of_genes, raw = squares[:, 0], squares[:, 2]
    fitted = products @ inverse[:, :-2]
    explained = fitted * products
    rounded = ROUNDING * np.maximum(of_genes, np.abs(explained).sum(axis=1)) + rounding * raw
    left = more_than_rounding(of_genes - explained.sum(axis=1), rounded)
    of_products = ROUNDING * np.sqrt(of_genes) + np.sqrt(rounding * raw)
    of_effects = np.outer(of_products, np.abs(inverse[:, :-2]) @ np.sqrt(n_cells * variance))
    is_effect = (of_genes > 0)[:, None] & ((left > 0)[:, None] | (np.abs(fitted) > of_effects))
    return np.column_stack([np.where(is_effect, fitted, 0.0), left])


def component_tests(
    gram: Floats,
    products: Floats,
    squares: Floats,
    *,
    first: int,
    n_tests: int,
    n_components: int,
    tolerance: float,
    n_coefficients: int,
) -> Floats:
    """Test groupings with only the top principal components of covariates and other groupings as covariates.

    Parameters
    ----------
    gram
        A Aᵀ of A = (groupings, covariates), (K + q, K + q).
    products
        A yᵀ (K + q, G).
    squares
        Sums of squares of the genes, the raw one last (G, 3).
    first, n_tests
        Groupings to test.
    n_components
        Number of principal components.
    tolerance
        Eigenvalues below this share of the largest count as zero.
    n_coefficients
        Of how many of the last rows of A to return the effects: q or 0.

    Returns
    -------
    Σ x̃ỹ and Σ ỹ² (G each), effects (row by row, G each), Σ x̃², and the rank; (n_tests, (2 + n_coefficients) G + 2).
    """
    tests = [
        _component_test(gram, products, squares[:, 2], k, n_components, tolerance, n_coefficients)
        for k in range(first, first + n_tests)
    ]
    return np.stack(tests)


def _component_test(
    gram: Floats, products: Floats, raw: Floats, k: int, n_components: int, tolerance: float, n_coefficients: int
) -> Floats:
    others = np.delete(np.arange(len(gram)), k)
    if others.size == 0:
        return np.concatenate([products[k], raw, [gram[k, k], 0.0]])
    eigenvalues, vectors = scipy.linalg.eigh(
        gram[np.ix_(others, others)],
        subset_by_index=(max(0, others.size - n_components), others.size - 1),
        check_finite=False,
    )
    kept = (eigenvalues > 0) & (eigenvalues >= tolerance * eigenvalues[-1])
    components = vectors[:, kept] / np.sqrt(eigenvalues[kept])
    of_grouping, of_genes = components.T @ gram[others, k], components.T @ products[others]
    covariance = products[k] - of_grouping @ of_genes
    squares = gram[k, k] - of_grouping @ of_grouping
    left = raw - np.einsum("cg,cg->g", of_genes, of_genes)
    if squares <= ROUNDING * gram[k, k]:
        squares = 0.0
    effect = covariance / squares if squares > 0 else np.zeros_like(covariance)
    of_covariates = components[others.size - n_coefficients :]
    coefficients = of_covariates @ of_genes - np.outer(of_covariates @ of_grouping, effect)
    left = more_than_rounding(left, ROUNDING * raw)
    return np.concatenate([covariance, left, coefficients.ravel(), [squares, np.count_nonzero(kept)]])
