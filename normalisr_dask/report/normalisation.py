"""The section on normalisation: cell weights, gene scalings, and what covariates explain of log-CPM."""

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.pipeline import CONSTANT, COVARIATES_OF_LOG_CPM
from normalisr_dask.report.figures import FIRST, INK, Picture, draw_density, drawing, log_x
from normalisr_dask.report.section import FinishedRun, Section

Floats = NDArray[np.float64]
OF_COUNTS = "counts of the cell"
ALL = "all covariates"
#: Points between which the sums of w^2t are interpolated.
NODES = 65
#: Covariates drawn, those that explain the most.
COVARIATES_SHOWN = 15
#: Values of an array of covariates × cells that are held at a time.
BLOCK_VALUES = 4 << 20


def normalisation_section(run: FinishedRun) -> Section:
    """Make the section on normalisation.

    Parameters
    ----------
    run
        With the stages ``qc`` and ``normalisation``.
    """
    results = run.results
    shares = explained_shares(run)
    total = results.read("qc", "cell_total")[results.read("qc", "cell_kept")]
    weights, kept = results.read("normalisation", "fitted_weight"), results.read("normalisation", "weight_kept")
    names = [str(name) for name in results.read("normalisation", "covariate")]
    return Section(
        "normalisation",
        "Normalisation",
        {
            "pictures": [
                _weights(total[kept], weights[kept]),
                _scaling(run),
                _explained(shares),
            ],
            "covariates": names,
            "shares": [(name, *np.percentile(of_genes, [5, 50, 95])) for name, of_genes in _ranked(shares)],
        },
    )


def explained_shares(run: FinishedRun) -> dict[str, Floats]:
    """Return the share of the variance of every gene's log-CPM that covariates explain: all, and by name.

    Parameters
    ----------
    run
        With the stage ``normalisation``.

    Returns
    -------
    dict
        Shares (genes,) between 0 and 1. The covariates made of the cell's counts are closely correlated and stand
        together. Shares of correlated covariates do not add up to that of all.

    Notes
    -----
    A share is Var(β C) / (Var(β C) + residual variance), where β C is the part of the fit, or all of it (below the
    line), and the residual variance is that of the stored weighted fit, Σ u² r² / Σ u², with u = w^t.
    """
    read = {
        name: run.results.read("normalisation", name)
        for name in ("coefficients", "gene_scaling", "variance_factor", "sum_of_squares", "cell_weight", "covariate")
    }
    names, coefficients = [str(name) for name in read["covariate"]], read["coefficients"]
    covariance = _covariance(run, len(names))
    factor = read["variance_factor"]
    squares = np.divide(
        read["sum_of_squares"], factor**2, where=factor > 0, out=np.zeros_like(factor)
    )  # of the weighted residuals; the factor is 0 where covariates leave nothing
    residual = squares / _sums_of_weights(read["cell_weight"], read["gene_scaling"])

    def variance(members: list[int]) -> Floats:
        part = coefficients[:, members]
        return np.maximum(np.einsum("gk,kl,gl->g", part, covariance[np.ix_(members, members)], part), 0.0)

    whole = variance(list(range(len(names)))) + residual
    parts = {ALL: list(range(len(names)))}
    of_counts = [row for row, name in enumerate(names) if name in COVARIATES_OF_LOG_CPM]
    if of_counts:
        parts[OF_COUNTS] = of_counts
    parts |= {name: [row] for row, name in enumerate(names) if name not in (*COVARIATES_OF_LOG_CPM, CONSTANT)}
    return {
        name: np.clip(np.divide(variance(members), whole, where=whole > 0, out=np.zeros_like(whole)), 0.0, 1.0)
        for name, members in parts.items()
    }


def _covariance(run: FinishedRun, n_covariates: int) -> Floats:
    """Return the covariance of the covariates over the cells, a block of cells at a time."""
    stored = run.results.stored("normalisation", "covariates")
    n_cells = stored.shape[1]
    width = max(1, BLOCK_VALUES // max(1, n_covariates))
    sums, products = np.zeros(n_covariates), np.zeros((n_covariates, n_covariates))
    for start in range(0, n_cells, width):
        block = np.asarray(stored[:, start : start + width])
        sums += block.sum(axis=1)
        products += block @ block.T
    return np.asarray(products / n_cells - np.outer(sums, sums) / n_cells**2)


def _sums_of_weights(cell_weight: Floats, gene_scaling: Floats) -> Floats:
    """Return Σ w^2t over cells for every gene's t, interpolated: its logarithm is smooth in t."""
    nodes = np.linspace(gene_scaling.min(), gene_scaling.max(), NODES)
    logs = np.log(cell_weight)
    sums = np.array([np.exp(2 * node * logs).sum() for node in nodes])
    return np.exp(np.interp(gene_scaling, nodes, np.log(sums)))


def _ranked(shares: dict[str, Floats]) -> list[tuple[str, Floats]]:
    """Return all covariates together first, then those that explain the most."""
    single = sorted(
        ((name, values) for name, values in shares.items() if name != ALL), key=lambda pair: -float(np.median(pair[1]))
    )
    return [(ALL, shares[ALL]), *single[:COVARIATES_SHOWN]]


def _weights(total: NDArray[np.int64], weights: Floats) -> Picture:
    """Draw the weights of the cells against their counts."""
    with drawing("weight-by-count") as draft:
        axes = draft.axes()
        x_edges, y_edges = _log_edges(total, 60), _edges(weights, 44)
        numbers = np.histogram2d(np.maximum(total, 1), weights, bins=(x_edges, y_edges))[0].astype(np.int64)
        draw_density(axes, numbers, x_edges, y_edges, FIRST)
        log_x(axes)
        axes.set(xlabel="Counts of the cell", ylabel="Weight of the cell")
        correlation = _correlation(np.log(np.maximum(total, 1)), weights)
        return draft.picture(
            alternative=(
                f"Density of {total.size:,} cells by counts and weight: weights from {weights.min():.2f} to "
                f"{weights.max():.2f}, correlation with log counts {correlation:.2f}."
            ),
            caption="Weight of a cell against its counts; stronger where there are more cells (logarithmic).",
        )


def _scaling(run: FinishedRun) -> Picture:
    """Draw the scaling of the genes against how much they are expressed."""
    scaling = run.results.read("normalisation", "gene_scaling")
    total = run.results.read("qc", "gene_total")[run.results.read("qc", "gene_kept")]
    mean = total / run.results.read("normalisation", "cell").size
    with drawing("scaling-by-mean") as draft:
        axes = draft.axes()
        x_edges, y_edges = _log_edges(mean, 60), np.linspace(0, 1, 45)
        numbers = np.histogram2d(mean, np.clip(scaling, 0, 1), bins=(x_edges, y_edges))[0].astype(np.int64)
        draw_density(axes, numbers, x_edges, y_edges, FIRST)
        log_x(axes)
        axes.set(xlabel="Mean count of the gene", ylabel="Scaling of the gene")
        return draft.picture(
            alternative=(
                f"Density of {scaling.size:,} genes by mean count and scaling: the scaling falls with the mean count; "
                f"its median is {np.median(scaling):.2f}."
            ),
            caption="Scaling t of a gene: its cells get the weights w to the power t, from 0 (not at all) to 1.",
        )


def _explained(shares: dict[str, Floats]) -> Picture:
    """Draw what covariates explain: median, quartiles, and the middle 90 % of the genes."""
    ranked = _ranked(shares)
    with drawing("explained", height=1.1 + 0.27 * len(ranked)) as draft:
        axes = draft.axes()
        for row, (_, values) in enumerate(ranked):
            low, first, middle, third, high = 100 * np.percentile(values, [5, 25, 50, 75, 95])
            axes.plot([low, high], [row, row], color=FIRST, linewidth=1.5)
            axes.plot([first, third], [row, row], color=FIRST, linewidth=8, alpha=0.6, solid_capstyle="butt")
            axes.plot([middle], [row], "|", color=INK, markersize=12, markeredgewidth=2)
        axes.set_yticks(range(len(ranked)), [name for name, _ in ranked])
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("Explained variance of log-CPM (%)")
        medians = ", ".join(f"{name} {100 * np.median(values):.2g} %" for name, values in ranked[:5])
        return draft.picture(
            alternative=f"Variance explained by covariates, medians over genes: {medians}.",
            caption=(
                "What covariates explain: median, quartiles and the middle 90 % of the genes. Parts of correlated "
                "covariates do not add up."
            ),
        )


def _log_edges(values: NDArray[np.floating] | NDArray[np.integer], bins: int) -> Floats:
    low, high = float(max(values.min(), 1e-6)), float(max(values.max(), 1e-6))
    if low == high:
        low, high = 0.9 * low, 1.1 * high
    edges = np.geomspace(low, high, bins + 1)
    edges[0], edges[-1] = low, high
    return edges


def _edges(values: Floats, bins: int) -> Floats:
    low, high = float(values.min()), float(values.max())
    return np.linspace(low, high if high > low else low + 1, bins + 1)


def _correlation(first: Floats, second: Floats) -> float:
    """Return Pearson's R; 0 where one of the two does not vary."""
    if first.size < 2 or first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
