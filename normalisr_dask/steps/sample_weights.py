"""Weights of samples: how precise each is, estimated from the residuals of all genes."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.rows import Matrix, RowPasses
from normalisr_dask.kernels import array_weights as gene_by_gene
from normalisr_dask.kernels import array_weights_reml as reml
from normalisr_dask.steps.designs import Design, codes_of, labels_of, parse_design, weights_of
from normalisr_dask.steps.expression_input import read_expression
from normalisr_dask.validation import check_choice, check_count, check_not_negative, check_positive

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VarianceModel:
    """Which samples may differ in their variance.

    Attributes
    ----------
    basis
        Orthonormal basis of the centred variance design (samples, terms); None: each sample on its own.
    prior_n
        Number of genes without differences between samples that the estimates start from.
    """

    basis: Floats | None
    prior_n: float

    @classmethod
    def of(cls, var_design: Any, var_group: Any, n_samples: int, prior_n: float) -> "VarianceModel":
        """Read a variance design or groups of samples; groups win.

        Raises
        ------
        ValueError
            If there is one group only, or numbers of samples differ, or the prior is negative.
        """
        check_not_negative(prior_n, "prior_n")
        if var_group is not None:
            codes = codes_of(labels_of(var_group, n_samples, "var_group"))
            if codes.max() < 1:
                msg = "expected var_group with two or more groups, found one"
                raise ValueError(msg)
            return cls(gene_by_gene.centred_space(np.equal.outer(codes, np.unique(codes)).astype(float)), prior_n)
        if var_design is not None:
            return cls(
                gene_by_gene.centred_space(parse_design(var_design, n_samples, name="var_design").matrix), prior_n
            )
        return cls(None, prior_n)


def fold_sample_weights(
    passes: RowPasses, design: Design, weights: Matrix | None, model: VarianceModel
) -> NDArray[np.float64]:
    """Return the weight of every sample (samples,), updated gene by gene; one pass in the order of the genes."""
    n_genes, n_samples = passes.shape
    nothing_to_tell = model.basis is not None and model.basis.shape[1] == 0
    if n_genes < 2 or n_samples - design.rank < 2 or nothing_to_tell:
        return np.ones(n_samples)
    by_gene: dict[str, Any] = {"expression": passes.expression}
    shared: dict[str, Any] = {"design": design.matrix[:, design.estimable]}
    if weights is None:
        shared["weights"] = np.ones((1, n_samples))
    else:
        (by_gene if weights.shape[0] > 1 else shared)["weights"] = weights
    if model.basis is not None:
        shared["variance_basis"] = model.basis
    first = partial(gene_by_gene.first_state, n_samples, model.prior_n, model.basis)
    return passes.fold(gene_by_gene.fold_genes, first, gene_by_gene.sample_weights_of, by_gene=by_gene, shared=shared)


def array_weights(
    object,
    design=None,
    weights=None,
    var_design=None,
    var_group=None,
    prior_n: float = 10,
    method: str = "auto",
    maxiter: int = 50,
    tol: float = 1e-5,
    *,
    layer: str | None = None,
    weights_layer: str | None = None,
) -> NDArray[np.float64]:
    r"""Estimate the relative precision of every sample; computes.

    The variance of gene g in sample i is :math:`σ_g^2 e^{z_i γ}/w_{gi}`; what is returned is :math:`e^{-z_i γ}` [1]_.

    Parameters
    ----------
    object : array, DataFrame, EList, dict, AnnData, Dask array, Zarr array or store
        Log-expression (genes, samples). NaN is missing.
    design : array (samples, columns), DataFrame or formula, optional
        Design matrix; a column of ones if None.
    weights : array (genes, samples), optional
        Precisions of observations, 0 or more; a value of weight 0 is missing.
    var_design : array (samples, terms), optional
        Covariates of the variance. By default each sample has a variance of its own.
    var_group : array (samples,), optional
        Groups of samples with a common variance; wins over ``var_design``.
    prior_n : float
        Weight of the prior that samples do not differ, as a number of genes.
    method : {"auto", "genebygene", "reml"}
        Update with one gene after another, or restricted maximum likelihood of all; auto takes the first where values
        are missing or weights are given.
    maxiter, tol : int, float
        Of the iterations of "reml".
    layer, weights_layer : str, optional
        Layers of AnnData to read in place of X, and as weights.

    Returns
    -------
    float64 (samples,)
        Weights with geometric mean 1; all 1 where there are fewer than two genes or residual degrees of freedom.

    Raises
    ------
    ValueError
        If weights are NaN, negative, infinite or not (genes, samples), or there is one variance group.
        If "reml" does not converge, as with few genes and ``prior_n`` 0.
    TypeError
        If the data are no matrix of numbers.
    KeyError
        If there is no such ``weights_layer``.

    Notes
    -----
    Gene by gene: one pass, one gene after another also on a cluster; time O(genes · samples²), memory samples².
    "reml" takes a pass an iteration.

    References
    ----------
    .. [1] Ritchie et al., BMC Bioinformatics 7:261 (2006), doi:10.1186/1471-2105-7-261.
    """
    check_choice(method, ("auto", "genebygene", "reml"), "method")
    check_count(maxiter, "maxiter", minimum=1)
    check_positive(tol, "tol")
    given = read_expression(object, layer, weights_layer)
    passes = given.passes
    parsed = parse_design(given.design if design is None else design, given.shape[1], given.samples)
    model = VarianceModel.of(var_design, var_group, given.shape[1], prior_n)
    matrix_weights = weights_of(given.weights if weights is None else weights, given.shape, is_lazy=passes.is_lazy)
    if matrix_weights is not None and matrix_weights.shape != given.shape:
        msg = f"expected weights of shape {given.shape}, found {np.shape(weights)}"
        raise ValueError(msg)
    if matrix_weights is not None:
        passes.values(_checked, width=0, by_gene={"weights": matrix_weights})
    n_known = passes.values(_count_known, width=1, by_gene={"expression": passes.expression})[:, 0]
    is_complete = n_known == given.shape[1]
    if method == "genebygene" or (method == "auto" and (matrix_weights is not None or not is_complete.all())):
        return fold_sample_weights(passes, parsed, matrix_weights, model)
    nothing_to_tell = model.basis is not None and model.basis.shape[1] == 0
    if given.shape[0] < 2 or given.shape[1] - parsed.rank < 2 or nothing_to_tell:
        return np.ones(given.shape[1])
    scoring = _Scoring(passes, parsed.matrix[:, parsed.estimable], model, is_complete)
    if matrix_weights is None:
        return scoring.iterate(maxiter, tol)
    return scoring.iterate_weighted(matrix_weights, maxiter, tol)


def _checked(weights: Floats) -> Floats:
    gene_by_gene.check_precisions(weights)
    return np.empty((weights.shape[0], 0))


def _count_known(expression: Floats) -> Floats:
    return np.isfinite(expression).sum(axis=1, keepdims=True).astype(np.float64)


@dataclass(frozen=True)
class _Scoring:
    """Steps of restricted maximum likelihood on the genes without missing values."""

    passes: RowPasses
    design: Floats
    model: VarianceModel
    is_complete: NDArray[np.bool_]

    def iterate(self, maxiter: int, tol: float) -> Floats:
        """Return weights of samples where observations have none."""
        n_samples = self.design.shape[0]
        log_variances = np.zeros(n_samples)
        variances = self.passes.values(
            _variances,
            width=1,
            by_gene={"expression": self.passes.expression},
            shared={"design": self.design, "sample_weights": np.ones(n_samples)},
        )[:, 0]
        is_used = self.is_complete & (variances >= gene_by_gene.SMALLEST_VARIANCE)
        n_genes = int(is_used.sum())
        if n_genes < 2:
            return np.ones(n_samples)
        criterion = np.inf
        for _ in range(maxiter):
            sample_weights = np.exp(-log_variances)
            squares = self._squares(sample_weights, is_used)
            information, leverages = reml.shared_information(self.design, sample_weights)
            scores = squares - n_genes * (1.0 - leverages) + self.model.prior_n * (sample_weights - 1.0)
            total = n_genes * information + self.model.prior_n * np.eye(n_samples)
            step, product, n_terms = reml.scoring_step(total, scores, self.model.basis)
            before, criterion = criterion, product / n_terms / (n_genes + self.model.prior_n)
            if criterion >= before:
                break
            log_variances += step
            reml.check_convergence(log_variances)
            if criterion < tol:
                break
        return np.exp(-log_variances)

    def _squares(self, sample_weights: Floats, is_used: NDArray[np.bool_]) -> Floats:
        """Return Σ of squared residuals over variances of the genes in use (samples,)."""
        return self.passes.total(
            _squares_of,
            by_gene={"expression": self.passes.expression, "is_used": is_used},
            shared={"design": self.design, "sample_weights": sample_weights},
        )

    def iterate_weighted(self, weights: Matrix, maxiter: int, tol: float) -> Floats:
        """Return weights of samples where observations have weights of their own."""
        n_samples = self.design.shape[0]
        log_variances = np.zeros(n_samples)
        n_genes = int(self.is_complete.sum())
        if n_genes < 2:
            return np.ones(n_samples)
        scale = n_genes + self.model.prior_n
        for _ in range(maxiter):
            sample_weights = np.exp(-log_variances)
            sums = self.passes.total(
                _weighted_sums_of,
                by_gene={"expression": self.passes.expression, "weights": weights, "is_used": self.is_complete},
                shared={"design": self.design, "sample_weights": sample_weights},
            )
            information = (sums[:n_samples] + self.model.prior_n * np.eye(n_samples)) / scale
            scores = (sums[n_samples] + self.model.prior_n * (sample_weights - 1.0)) / scale
            step, product, n_terms = reml.scoring_step(information, scores, self.model.basis)
            log_variances += step
            reml.check_convergence(log_variances)
            criterion = product / scale / n_terms
            if criterion < tol:
                break
        return np.exp(-log_variances)


def _variances(expression: Floats, design: Floats, sample_weights: Floats) -> Floats:
    return reml.scaled_squares(expression, design=design, sample_weights=sample_weights)[:, -1:]


def _squares_of(expression: Floats, is_used: NDArray[np.bool_], design: Floats, sample_weights: Floats) -> Floats:
    scaled = reml.scaled_squares(expression[is_used], design=design, sample_weights=sample_weights)
    return np.asarray(scaled[:, :-1].sum(axis=0))


def _weighted_sums_of(
    expression: Floats, weights: Floats, is_used: NDArray[np.bool_], design: Floats, sample_weights: Floats
) -> Floats:
    return reml.weighted_sums(expression[is_used], weights[is_used], design=design, sample_weights=sample_weights)
