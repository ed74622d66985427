"""Linear models of every gene on the samples: least squares with weights, missing values, and correlated blocks."""

import warnings
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from normalisr_dask.graph.rows import Matrix, RowPasses
from normalisr_dask.kernels.least_squares import NO_DESIGN, decorrelated, unscaled_covariance
from normalisr_dask.kernels.mean_variance import N_FACTS, fit_with_facts
from normalisr_dask.results import LinearFit
from normalisr_dask.steps.designs import Design, codes_of, gene_name, labels_of, parse_design, weights_of
from normalisr_dask.steps.expression_input import ExpressionInput, read_target
from normalisr_dask.validation import check_choice


@dataclass(frozen=True)
class Blocks:
    """Samples that come in correlated blocks.

    Attributes
    ----------
    labels
        As given (samples,).
    codes
        Numbers of the blocks (samples,).
    """

    labels: np.ndarray
    codes: NDArray[np.int64]

    @classmethod
    def of(cls, labels: Any, n_samples: int) -> "Blocks":
        """Return the blocks of samples from their labels."""
        values = labels_of(labels, n_samples, "block")
        return cls(values, codes_of(values))

    @property
    def largest(self) -> int:
        """Samples of the largest block."""
        return int(np.bincount(self.codes).max())


@dataclass(frozen=True)
class GeneFits:
    """Fits of all genes, and what was seen of their data.

    Attributes
    ----------
    coefficients, stdev_unscaled
        (genes, columns).
    sigma, df_residual, means, n_known, n_infinite, predictor_means, predictor_gaps
        (genes,).
    """

    coefficients: NDArray[np.float64]
    stdev_unscaled: NDArray[np.float64]
    sigma: NDArray[np.float64]
    df_residual: NDArray[np.float64]
    means: NDArray[np.float64]
    n_known: NDArray[np.float64]
    n_infinite: NDArray[np.float64]
    predictor_means: NDArray[np.float64]
    predictor_gaps: NDArray[np.float64]


def fit_genes(
    passes: RowPasses,
    design: Design,
    weights: Matrix | None = None,
    *,
    blocks: Blocks | None = None,
    correlation: float = 0.0,
    predictor: Matrix | None = None,
    genes: Any = None,
) -> GeneFits:
    """Fit the design to every gene; one pass.

    Raises
    ------
    ValueError
        If the design is zero on all samples that a gene has.
    """
    by_gene: dict[str, Any] = {"expression": passes.expression}
    shared: dict[str, Any] = {"design": design.matrix}
    if weights is not None:
        (by_gene if weights.shape[0] > 1 else shared)["weights"] = weights
    if predictor is not None:
        by_gene["predictor"] = predictor
    if blocks is not None:
        shared["blocks"] = blocks.codes
    n_columns = design.matrix.shape[1]
    packed = passes.values(
        fit_with_facts,
        width=2 * n_columns + 2 + N_FACTS,
        by_gene=by_gene,
        shared=shared,
        correlation=correlation,
    )
    coefficients, deviations, rest = np.split(packed, [n_columns, 2 * n_columns], axis=1)
    fits = GeneFits(coefficients, deviations, *rest.T)
    if (fits.df_residual == NO_DESIGN).any():
        gene = gene_name(genes, int(np.argmax(fits.df_residual == NO_DESIGN)))
        msg = f"the design is zero on all samples with data of gene {gene}; leave the gene out"
        raise ValueError(msg)
    return fits


def check_expression(fits: GeneFits, genes: Any) -> None:
    """Refuse genes without any value, and infinite values.

    Raises
    ------
    ValueError
        If there is one; names the gene.
    """
    if (fits.n_known == 0).any():
        empty = np.flatnonzero(fits.n_known == 0)
        who, them = (f"{empty.size} genes have", "them") if empty.size > 1 else ("one gene has", "it")
        msg = f"{who} no value at all, first {gene_name(genes, int(empty[0]))}; leave {them} out"
        raise ValueError(msg)
    if (fits.n_infinite > 0).any():
        place = int(np.argmax(fits.n_infinite > 0))
        msg = f"expected finite log-expression or NaN for missing, found infinity in gene {gene_name(genes, place)}"
        raise ValueError(msg)


def warn_of_partial_fits(fits: GeneFits) -> None:
    """Say how many genes lack some of their coefficients, if any do."""
    n_missing = np.isnan(fits.coefficients).sum(axis=1)
    n_partial = np.count_nonzero((n_missing > 0) & (n_missing < fits.coefficients.shape[1]))
    if n_partial:
        warnings.warn(f"{n_partial} genes have NaN for some of their coefficients", UserWarning, stacklevel=2)


def unscaled_covariance_of(
    design: Design, blocks: Blocks | None, correlation: float, weights: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Return (XᵀV⁻¹X)⁻¹ of complete genes with weights (samples,), the pivot and the rank."""
    columns = decorrelated(
        design.matrix,
        np.ones(design.matrix.shape[0]) if weights is None else weights,
        None if blocks is None else blocks.codes,
        correlation,
    )
    return unscaled_covariance(columns)


def assemble_fit(
    data: ExpressionInput,
    design: Design,
    fits: GeneFits,
    covariance: tuple[NDArray[np.float64], NDArray[np.int64], int],
    *,
    blocks: Blocks | None,
    correlation: float,
) -> LinearFit:
    """Put a fit together under its published names."""
    fit = LinearFit(
        coefficients=fits.coefficients,
        stdev_unscaled=fits.stdev_unscaled,
        sigma=fits.sigma,
        df_residual=fits.df_residual,
        cov_coefficients=covariance[0],
        pivot=covariance[1],
        rank=covariance[2],
    )
    if blocks is not None:
        fit |= {"ndups": 1, "spacing": 1, "block": blocks.labels, "correlation": correlation}
    fit |= {"Amean": fits.means, "design": design.matrix, "genes": data.genes}
    if design.names is not None:
        fit["coef_names"] = design.names
    fit["method"] = "ls"
    return fit


def storable(fit: LinearFit, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what of a fit goes into ``uns``: a plain dict that h5ad takes."""
    return {name: _storable_value(value) for name, value in fit.items() if value is not None and name not in leave_out}


def _storable_value(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return value.astype(str)
    if isinstance(value, pd.Series | pd.Categorical):
        return np.asarray(value).astype(str)
    return value


def lm_fit(
    data,
    design=None,
    ndups: int | None = None,
    spacing: int | None = None,
    block=None,
    correlation: float | None = None,
    weights=None,
    method: str = "ls",
    key: str = "pylimma",
    layer: str | None = None,
    weights_layer: str | None = None,
) -> LinearFit | None:
    """Fit a linear model to every gene by least squares; computes, one pass over the genes.

    Parameters
    ----------
    data : array, DataFrame, EList, dict, AnnData, Dask array, Zarr array or store
        Log-expression (genes, samples); AnnData samples × genes. Not finite is missing.
    design : array (samples, columns), DataFrame, formula on ``adata.obs``, optional
        Design matrix; a column of ones if None and the data carry none.
    ndups, spacing : int, optional
        Accepted for limma's sake; spots of arrays in duplicate are not.
    block : array (samples,), optional
        Labels of correlated blocks; with ``correlation``.
    correlation : float, optional
        Correlation of samples within blocks, above -1 and below 1.
    weights : array, optional
        Relative precisions: (genes, samples), one for each gene, each sample, or all. Not positive or NaN is missing.
    method : {"ls"}
        Least squares.
    key : str
        Where in ``adata.uns`` the fit goes.
    layer, weights_layer : str, optional
        Layers of AnnData to read in place of X, and as weights.

    Returns
    -------
    LinearFit or None
        A dict (see :func:`vooma_lm_fit`, which adds to these keys); None for AnnData, which is changed.

    Raises
    ------
    ValueError
        If there is a block without correlation, or the correlation is not possible.
        If shapes differ, or the design is zero on a gene's samples.
    TypeError
        If the data are no matrix of numbers.
    KeyError
        If there is no such ``weights_layer``.

    Warns
    -----
    UserWarning
        If coefficients are not estimable, or some are not for some genes.

    Notes
    -----
    Time O(genes · samples · columns²). Memory: a block of genes of lazy data, and what is returned.

    Examples
    --------
    >>> import numpy as np
    >>> fit = lm_fit(np.array([[1.0, 2.0, 4.0, 5.0], [3.0, 3.0, 2.0, 2.0]]), np.array([[1, 0], [1, 0], [1, 1], [1, 1]]))
    >>> fit["coefficients"].round(6)
    array([[ 1.5,  3. ],
           [ 3. , -1. ]])
    """
    check_choice(method, ("ls",), "method")
    check_choice(ndups, (None, 1), "ndups")
    del spacing
    given = read_target(data, layer, weights_layer)
    passes = given.passes
    n_samples = given.shape[1]
    parsed = parse_design(given.design if design is None else design, n_samples, given.samples)
    matrix_weights = weights_of(given.weights if weights is None else weights, given.shape, is_lazy=passes.is_lazy)
    blocks = None if block is None else Blocks.of(block, n_samples)
    if blocks is not None and not (isinstance(correlation, Real) and -1 < correlation < 1):
        msg = f"with block, correlation must lie above -1 and below 1, not {correlation!r}; see duplicate_correlation"
        raise ValueError(msg)
    rho = 0.0 if blocks is None or correlation is None else float(correlation)
    fits = fit_genes(passes, parsed, matrix_weights, blocks=blocks, correlation=rho, genes=given.genes)
    parsed.warn_of_aliases()
    warn_of_partial_fits(fits)
    is_complete = bool((fits.n_known == n_samples).all())
    shared_weights = None
    if is_complete and matrix_weights is not None and matrix_weights.shape[0] == 1:
        shared_weights = np.asarray(matrix_weights)[0]
        shared_weights = shared_weights if (shared_weights > 0).all() else None
    covariance = unscaled_covariance_of(parsed, blocks, rho, shared_weights)
    fit = assemble_fit(given, parsed, fits, covariance, blocks=blocks, correlation=rho)
    if given.adata is None:
        return fit
    given.adata.uns[key] = storable(fit)
    return None
