"""The mean-variance trend of log-expression: precision weights, and fits that use them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.graph.rows import Matrix, RowPasses
from normalisr_dask.kernels.lowess import lowess
from normalisr_dask.kernels.mean_variance import combined_abscissa, trend_weights
from normalisr_dask.steps.block_correlation import correlate_blocks
from normalisr_dask.steps.designs import Design, gene_name, parse_design, predictor_of, weights_of
from normalisr_dask.steps.expression_input import ExpressionInput
from normalisr_dask.steps.linear_models import (
    Blocks,
    GeneFits,
    check_expression,
    fit_genes,
    warn_of_partial_fits,
)
from normalisr_dask.steps.sample_weights import VarianceModel, fold_sample_weights
from normalisr_dask.steps.trend_plot import X_LABEL, Y_LABEL, draw_trend
from normalisr_dask.validation import check_count, check_fraction

#: Local lines are fitted this share of the range apart.
DELTA = 0.01


def choose_lowess_span(n: int = 1000, small_n: int = 50, min_span: float = 0.3, power: float = 1 / 3) -> float:
    """Choose the span of a smooth trend through n points: 1 for few of them, towards ``min_span`` for many.

    Parameters
    ----------
    n : int
        Number of points.
    small_n : int
        Number of points up to which all are taken.
    min_span : float
        Span for very many points, 0 to 1.
    power : float
        How fast the span falls.

    Returns
    -------
    float
        min(min_span + (1 - min_span) (small_n / n)^power, 1).

    Raises
    ------
    ValueError
        If there is no point.

    Examples
    --------
    >>> choose_lowess_span(40), round(choose_lowess_span(10_000), 4)
    (1.0, 0.4197)
    """
    check_count(n, "n", minimum=1)
    return float(min(min_span + (1 - min_span) * (small_n / n) ** power, 1.0))


@dataclass(frozen=True)
class Trend:
    """A fitted trend.

    Attributes
    ----------
    x, y
        Abscissa and square root of sigma of every gene (genes,).
    curve_x, curve_y
        Points of the smooth curve, ascending (genes with both,).
    slopes
        How fitted value and predictor make the abscissa (3,).
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    curve_x: NDArray[np.float64]
    curve_y: NDArray[np.float64]
    slopes: NDArray[np.float64]

    def draw(self) -> None:
        """Draw the trend, or warn that there is no matplotlib."""
        draw_trend(self.x, self.y, self.curve_x, self.curve_y)

    def entries(self) -> dict[str, Any]:
        """Return what ``save_plot`` adds to a fit."""
        return {
            "voom_xy": {"x": self.x, "y": self.y, "xlab": X_LABEL, "ylab": Y_LABEL},
            "voom_line": {"x": self.curve_x, "y": self.curve_y},
        }


@dataclass(frozen=True)
class TrendModel:
    """What trends and their weights are made of, the same in both passes.

    Attributes
    ----------
    passes, design
        The data.
    span
        Of the smooth curve.
    prior_weights, predictor
        Or None.
    """

    passes: RowPasses
    design: Design
    span: float
    prior_weights: Matrix | None = None
    predictor: Matrix | None = None

    def trend(self, fits: GeneFits) -> Trend:
        """Smooth the square roots of sigma over mean expression.

        Raises
        ------
        ValueError
            If no gene has residual degrees of freedom, or all have the same mean.
        """
        x, y = fits.means, np.sqrt(fits.sigma)
        slopes = np.array([0.0, 1.0, 0.0])
        if self.predictor is not None and np.isfinite(y).any():
            slopes = combined_abscissa(y, fits.means, fits.predictor_means)
            x = slopes[0] + slopes[1] * fits.means + slopes[2] * fits.predictor_means
        is_known = np.isfinite(x) & np.isfinite(y)
        if np.count_nonzero(is_known) < 2:
            msg = (
                f"{np.count_nonzero(is_known)} genes have residual degrees of freedom, expected 2 or more: the design "
                "leaves none; use fewer columns or more samples"
            )
            raise ValueError(msg)
        delta = DELTA * (np.nanmax(x) - np.nanmin(x))
        curve_x, curve_y = lowess(x[is_known], y[is_known], span=self.span, delta=delta)
        return Trend(x, y, curve_x, curve_y, slopes)

    def weights(self, fits: GeneFits, trend: Trend) -> Matrix:
        """Return the precision of every observation; lazy where the data are."""
        columns = self.design.estimable
        by_gene: dict[str, Any] = {"coefficients": fits.coefficients[:, columns]}
        shared: dict[str, Any] = {
            "design": self.design.matrix[:, columns],
            "curve_x": trend.curve_x,
            "curve_y": trend.curve_y,
            "slopes": trend.slopes,
        }
        if self.predictor is not None:
            by_gene["predictor"] = self.predictor
        if self.prior_weights is not None:
            (by_gene if self.prior_weights.shape[0] > 1 else shared)["prior_weights"] = self.prior_weights
        return self.passes.matrix(trend_weights, by_gene=by_gene, shared=shared)


@dataclass(frozen=True)
class Precision:
    """What a fit says about the precision of observations.

    Attributes
    ----------
    trend
        The trend of its sigma.
    weights
        Of observations (genes, samples), those of samples included; lazy where the data are.
    sample_weights
        (samples,), or None.
    correlation
        Of samples of a block; 0 without blocks.
    """

    trend: Trend
    weights: Matrix
    sample_weights: NDArray[np.float64] | None
    correlation: float


@dataclass(frozen=True)
class PrecisionModel:
    """Which precisions to estimate: a trend, and those of samples and blocks where wanted."""

    trends: TrendModel
    variances: VarianceModel | None
    blocks: Blocks | None
    is_correlated: bool

    def estimate(self, fits: GeneFits) -> Precision:
        """Estimate the trend from a fit, then weights of samples given the trend, then the correlation given both."""
        passes, design = self.trends.passes, self.trends.design
        trend = self.trends.trend(fits)
        weights = self.trends.weights(fits, trend)
        sample_weights = None
        if self.variances is not None:
            sample_weights = fold_sample_weights(passes, design, weights, self.variances)
            weights = weights * sample_weights
        correlation = 0.0
        if self.blocks is not None and self.is_correlated:
            correlation, _ = correlate_blocks(passes, design, weights, self.blocks)
        return Precision(trend, weights, sample_weights, correlation)

    def two_passes(self, genes: Any) -> tuple[GeneFits, Precision]:
        """Fit and estimate; once more where samples or blocks have a say; and fit with what was found."""
        passes, design, prior = self.trends.passes, self.trends.design, self.trends.prior_weights
        fits = fit_genes(passes, design, prior, predictor=self.trends.predictor, genes=genes)
        check_expression(fits, genes)
        check_predictor(fits, genes)
        design.warn_of_aliases()
        warn_of_partial_fits(fits)
        precision = self.estimate(fits)
        if self.variances is not None or self.blocks is not None:
            again = prior if precision.sample_weights is None else precision.sample_weights[None, :]
            second = self._fit(again, precision.correlation, genes)
            precision = self.estimate(replace(second, predictor_means=fits.predictor_means))
        return self._fit(precision.weights, precision.correlation, genes), precision

    def _fit(self, weights: Matrix | None, correlation: float, genes: Any) -> GeneFits:
        return fit_genes(
            self.trends.passes, self.trends.design, weights, blocks=self.blocks, correlation=correlation, genes=genes
        )


def check_predictor(fits: GeneFits, genes: Any) -> None:
    """Refuse a predictor that is infinite, or NaN where expression is known.

    Raises
    ------
    ValueError
        If there is one; names the gene.
    """
    if (fits.predictor_gaps > 0).any():
        gene = gene_name(genes, int(np.argmax(fits.predictor_gaps > 0)))
        msg = f"expected a finite predictor where expression is known, found NaN or infinity, first in gene {gene}"
        raise ValueError(msg)


def span_of(n_genes: int, span: float | None, *, legacy: bool) -> float:
    """Return the span given, or one that follows the number of genes by the rule in use or the one before."""
    if span is not None:
        check_fraction(span, "span")
        return span
    return choose_lowess_span(n_genes, small_n=10, power=0.5) if legacy else choose_lowess_span(n_genes)


def trend_model(
    given: ExpressionInput, design: Any, prior_weights: Any, predictor: Any, span: float | None, *, legacy_span: bool
) -> TrendModel:
    """Check what every trend needs and put it together."""
    n_genes, n_samples = given.shape
    if n_samples < 2 or n_genes < 2:
        msg = f"expected two genes and two samples or more, found {n_genes} genes and {n_samples} samples"
        raise ValueError(msg)
    passes = given.passes
    expanded = predictor_of(predictor, given.shape)
    parsed = parse_design(design, n_samples, given.samples)
    weights = weights_of(prior_weights, given.shape, is_lazy=passes.is_lazy)
    return TrendModel(passes, parsed, span_of(n_genes, span, legacy=legacy_span), weights, expanded)
