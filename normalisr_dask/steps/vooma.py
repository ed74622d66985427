"""Fits of log-expression whose variance follows a trend: limma's vooma and voomaLmFit."""

import warnings
from typing import Any

from normalisr_dask.results import EList, LinearFit
from normalisr_dask.steps.block_correlation import say_why_no_correlation
from normalisr_dask.steps.expression_input import read_target
from normalisr_dask.steps.linear_models import (
    Blocks,
    assemble_fit,
    check_expression,
    fit_genes,
    storable,
    unscaled_covariance_of,
    warn_of_partial_fits,
)
from normalisr_dask.steps.mean_variance import PrecisionModel, check_predictor, trend_model
from normalisr_dask.steps.sample_weights import VarianceModel


def vooma_lm_fit(
    y,
    design=None,
    prior_weights=None,
    block=None,
    sample_weights: bool = False,  # noqa: FBT001, FBT002  limma's own signature
    var_design=None,
    var_group=None,
    prior_n: float = 10,
    predictor=None,
    span: float | None = None,
    legacy_span: bool = False,  # noqa: FBT001, FBT002
    plot: bool = False,  # noqa: FBT001, FBT002
    save_plot: bool = False,  # noqa: FBT001, FBT002
    keep_elist: bool = True,  # noqa: FBT001, FBT002
    *,
    key: str = "pylimma",
    voom_key: str = "vooma",
    weights_layer: str = "vooma_weights",
    layer: str | None = None,
) -> LinearFit | None:
    r"""Fit linear models to log-expression whose variance follows a trend; computes.

    A first fit gives the trend of :math:`\sqrt{σ}` over mean expression; at the fitted values it gives every
    observation a precision, :math:`\mathrm{trend}^{-4}`, with which the model is fitted again [1]_. With sample weights
    or blocks, the trend, the weights of samples and the correlation within blocks are estimated twice, each given the
    others.

    Parameters
    ----------
    y : array, DataFrame, EList, dict, AnnData, Dask array, Zarr array or store
        Log-expression (genes, samples); AnnData samples × genes. NaN is missing.
    design : array (samples, columns), DataFrame, formula on ``adata.obs``, optional
        Design matrix; that of the container, or a column of ones, if None.
    prior_weights : array, optional
        Relative precisions known beforehand: (genes, samples), one for each gene, each sample, or all. Not with
        sample weights.
    block : array (samples,), optional
        Labels of blocks, such as donors, whose samples are correlated.
    sample_weights : bool
        Whether to estimate how precise each sample is.
    var_design, var_group : array, optional
        Covariates or groups that variances of samples follow; turn ``sample_weights`` on.
    prior_n : float
        Weight of the prior that samples do not differ, as a number of genes.
    predictor : array (genes,) or (genes, samples), optional
        Further abscissa of the trend, combined with the mean by least squares.
    span : float, optional
        Share of the genes that the trend takes together, 0 to 1; by :func:`choose_lowess_span` if None.
    legacy_span : bool
        Whether to choose a smaller span, as limma did before.
    plot : bool
        Whether to draw the trend; needs matplotlib, and warns without.
    save_plot : bool
        Whether to return the trend.
    keep_elist : bool
        Whether to return the expression with its weights.
    key, voom_key, weights_layer : str
        Of AnnData: where the fit goes in ``uns``, where span, sample weights and trend go in ``uns``, and the layer for
        the weights.
    layer : str, optional
        Layer of AnnData to read in place of X.

    Returns
    -------
    LinearFit or None
        None for AnnData, which is changed. Otherwise a dict: ``coefficients``, ``stdev_unscaled`` float64 (genes,
        columns), NaN where not estimable; ``sigma``, ``df_residual``, ``Amean`` float64 (genes,); ``cov_coefficients``
        (columns, columns), of a gene without weights; ``pivot`` int64 (columns,), ``rank``; ``design``, ``genes``,
        ``coef_names`` if the design has names, ``method``, ``span``; ``block``, ``correlation``, ``ndups``,
        ``spacing`` with blocks; ``targets`` with ``sample_weights`` (samples,) if estimated; ``voom_xy``,
        ``voom_line`` with save_plot; ``EList`` with ``E`` and ``weights`` (genes, samples) with keep_elist: Dask
        arrays for Dask and Zarr input.

    Raises
    ------
    TypeError
        If y holds no matrix of numbers, or a layer is named and y is no AnnData.
    ValueError
        If there are fewer than two genes or samples, a gene has no value or an infinite one, or shapes differ.
        If the design is not finite, zero on all samples of a gene, or leaves no residual degrees of freedom.
        If prior weights come with sample weights, or a gene that lost a coefficient to missing values does.
        If the predictor is infinite, or NaN where y is not, or the span is not between 0 and 1.
        If y is a view of AnnData that lies on disk, or a file that cannot be opened.
    FileNotFoundError
        If y is a path, and nothing is there.

    Warns
    -----
    UserWarning
        If coefficients are not estimable, blocks have one sample each, or the design tells blocks apart.

    Notes
    -----
    Passes over the genes: two, or seven with blocks and sample weights. Time O(genes · samples · columns²), with sample
    weights also O(genes · samples²), one gene after another. Memory: lazy data a block of genes a task and, with sample
    weights, samples²; data in memory the weights. Vectors of length genes are brought back between the passes.

    References
    ----------
    .. [1] Law et al., Genome Biology 15:R29 (2014), doi:10.1186/gb-2014-15-2-r29.
    """
    given = read_target(y, layer)
    if prior_weights is None:
        prior_weights = given.weights
    trends = trend_model(
        given, given.design if design is None else design, prior_weights, predictor, span, legacy_span=legacy_span
    )
    n_samples = given.shape[1]
    variances = None
    if sample_weights or var_design is not None or var_group is not None:
        if prior_weights is not None:
            msg = "prior weights and sample weights cannot go together; give up one of them"
            raise ValueError(msg)
        variances = VarianceModel.of(var_design, var_group, n_samples, prior_n)
    blocks = None if block is None else Blocks.of(block, n_samples)
    reason = None if blocks is None else say_why_no_correlation(blocks, trends.design)
    if reason is not None:
        warnings.warn(reason, UserWarning, stacklevel=2)
    model = PrecisionModel(trends, variances, blocks, is_correlated=reason is None)
    fits, precision = model.two_passes(given.genes)
    covariance = unscaled_covariance_of(trends.design, blocks, precision.correlation)
    fit = assemble_fit(given, trends.design, fits, covariance, blocks=blocks, correlation=precision.correlation)
    if plot:
        precision.trend.draw()
    extras: dict[str, Any] = {"span": trends.span}
    if precision.sample_weights is not None:
        extras["sample_weights"] = precision.sample_weights
    if save_plot:
        extras |= precision.trend.entries()
    if given.adata is not None:
        given.adata.layers[weights_layer] = precision.weights.T
        given.adata.uns[key] = storable(fit)
        given.adata.uns[voom_key] = extras
        return None
    if "sample_weights" in extras:
        extras["targets"] = {"sample_weights": extras.pop("sample_weights")}
    fit |= extras
    if keep_elist:
        fit["EList"] = {"E": given.expression, "weights": precision.weights}
    return fit


def vooma(
    y,
    design=None,
    block=None,
    correlation: float | None = None,
    predictor=None,
    span: float | None = None,
    legacy_span: bool = False,  # noqa: FBT001, FBT002  limma's own signature
    plot: bool = False,  # noqa: FBT001, FBT002
    save_plot: bool = False,  # noqa: FBT001, FBT002
    *,
    out_layer: str = "vooma_E",
    weights_layer: str = "vooma_weights",
    key: str = "vooma",
    layer: str | None = None,
) -> EList | None:
    """Give every observation of log-expression a precision from the mean-variance trend; computes.

    Parameters
    ----------
    y : array, DataFrame, EList, dict, AnnData, Dask array, Zarr array or store
        Log-expression (genes, samples); AnnData samples × genes. NaN is missing.
    design, predictor, span, legacy_span, plot, save_plot
        As of :func:`vooma_lm_fit`.
    block : array (samples,), optional
        Labels of correlated blocks; with ``correlation``.
    correlation : float, optional
        Correlation of samples within blocks, above -1 and below 1.
    out_layer, weights_layer, key : str
        Of AnnData: layers for expression and weights, and where design, span and trend go in ``uns``.
    layer : str, optional
        Layer of AnnData to read in place of X.

    Returns
    -------
    EList or None
        ``E`` and ``weights`` (genes, samples), lazy where y is, ``design``, ``span``, ``voom_xy`` and ``voom_line``
        with save_plot, and what else came with an EList. None for AnnData, which is changed.

    Raises
    ------
    TypeError
        If y holds no matrix of numbers.
    ValueError
        As of :func:`vooma_lm_fit`, and if there is a block without correlation.

    Notes
    -----
    One pass over the genes. Cost and memory as of :func:`vooma_lm_fit`.
    """
    given = read_target(y, layer)
    trends = trend_model(
        given, given.design if design is None else design, None, predictor, span, legacy_span=legacy_span
    )
    blocks = None if block is None else Blocks.of(block, given.shape[1])
    if blocks is not None and (correlation is None or not -1 < correlation < 1):
        msg = f"with block, correlation must lie above -1 and below 1, not {correlation}; see duplicate_correlation"
        raise ValueError(msg)
    fits = fit_genes(
        given.passes,
        trends.design,
        blocks=blocks,
        correlation=0.0 if blocks is None or correlation is None else float(correlation),
        predictor=trends.predictor,
        genes=given.genes,
    )
    check_expression(fits, given.genes)
    check_predictor(fits, given.genes)
    trends.design.warn_of_aliases()
    warn_of_partial_fits(fits)
    trend = trends.trend(fits)
    weights = trends.weights(fits, trend)
    if plot:
        trend.draw()
    facts: dict[str, Any] = {"design": trends.design.matrix, "span": trends.span}
    if save_plot:
        facts |= trend.entries()
    if given.adata is not None:
        given.adata.layers[out_layer] = given.expression.T
        given.adata.layers[weights_layer] = weights.T
        given.adata.uns[key] = facts
        return None
    others = {name: value for name, value in y.items() if name != "exprs"} if isinstance(y, dict) else {}
    return EList(others | {"E": given.expression, "weights": weights} | facts)
