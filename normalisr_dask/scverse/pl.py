"""Plots of what was found in AnnData; they need Matplotlib (extra ``plot``)."""

from typing import TYPE_CHECKING, Any

import anndata
import dask
import numpy as np

from normalisr_dask.scverse.containers import check_anndata, column, groupings_of, in_memory
from normalisr_dask.scverse.get import de_df
from normalisr_dask.scverse.normalised import KEY
from normalisr_dask.steps.calibration import inflation
from normalisr_dask.steps.calibration import qq as quantiles
from normalisr_dask.steps.trend_plot import draw_trend
from normalisr_dask.validation import check_choice, check_count

__all__ = ["degree", "qq", "trend", "variance_fit", "volcano"]

try:
    from matplotlib import pyplot
except ImportError:  # an extra: tests need no pictures
    pyplot = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OTHERS, HITS, LINE = "0.75", "tab:blue", "tab:red"
DOTS: dict[str, Any] = {"s": 6, "linewidths": 0, "rasterized": True}


def __dir__() -> list[str]:
    """Show what is meant for users."""
    return __all__


def volcano(
    adata: anndata.AnnData,
    grouping: str,
    *,
    key: str = "de",
    qcut: float = 0.05,
    n_labels: int = 10,
    gene_symbols: str | None = None,
    ax: "Axes | None" = None,
    show: bool = False,
) -> "Axes":
    """Draw the effect of a grouping on every gene against its P-value.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.tl.de` was run.
    grouping : str
        One of its groupings.
    key : str
        ``key_added`` of :func:`normalisr_dask.tl.de`.
    qcut : float
        Largest Q-value of genes in colour.
    n_labels : int
        Number of genes with their names, those with the smallest P-values.
    gene_symbols : str, optional
        Column of ``var`` with names to show.
    ax : Axes, optional
        Where to draw; a new figure if None.
    show : bool
        Whether to show the figure.

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there are no tests under the key, or no such grouping or column.
    """
    check_count(n_labels, "n_labels")
    check_choice(grouping, groupings_of(adata, key), "grouping")
    table = de_df(adata, grouping, key=key, gene_symbols=gene_symbols)
    axes = _axes(ax)
    height, is_hit = -table["log10_pvalue"], table["qvalue"] <= qcut
    for chosen, colour, label in ((~is_hit, OTHERS, "others"), (is_hit, HITS, f"Q ≤ {qcut:g}")):
        axes.scatter(table["effect"][chosen], height[chosen], color=colour, label=label, **DOTS)
    for name, effect, y in zip(table[gene_symbols or "gene"][:n_labels], table["effect"], height, strict=False):
        side = {"xytext": (4, 2)} if effect > 0 else {"xytext": (-4, 2), "ha": "right"}
        axes.annotate(_plain(name), (effect, y), textcoords="offset points", fontsize=8, **side)
    axes.margins(x=0.2)
    axes.set(xlabel="effect (difference of log-CPM)", ylabel="−log10 P", title=_plain(grouping))
    axes.legend(frameon=False)
    return _finished(axes, show=show)


def qq(
    adata: anndata.AnnData,
    grouping: str | None = None,
    *,
    key: str = "de",
    ax: "Axes | None" = None,
    show: bool = False,
) -> "Axes":
    """Draw the P-values of a grouping, or of all together, against those expected without effects.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.tl.de` was run.
    grouping : str, optional
        One of its groupings; all if None.
    key, ax, show
        As of :func:`volcano`.

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there are no tests under the key, or no such grouping.
    """
    names = groupings_of(adata, key)
    tests = in_memory(adata.varm[f"{key}_log10_pvalue"])
    if grouping is not None:
        check_choice(grouping, names, "grouping")
        tests = tests[:, [names.index(grouping)]]
    axes = _axes(ax)
    points, factor = dask.compute(quantiles(tests, log10=True), inflation(tests, log10=True))
    axes.scatter(points.expected, points.observed, color=HITS, **{**DOTS, "s": 12})
    end = float(np.nanmax(points.expected, initial=1.0))
    axes.plot([0, end], [0, end], color=LINE, linewidth=1)
    title = "all groupings" if grouping is None else _plain(grouping)
    axes.set(xlabel="expected −log10 P", ylabel="observed −log10 P", title=f"{title}, inflation {factor:.2f}")
    return _finished(axes, show=show)


def variance_fit(adata: anndata.AnnData, *, key: str = KEY, ax: "Axes | None" = None, show: bool = False) -> "Axes":
    """Draw the weight of every cell, from the fit of its variance, against its total count.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.pp.normalise` was run.
    key : str
        ``key_added`` of :func:`normalisr_dask.pp.normalise`.
    ax, show
        As of :func:`volcano`.

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there is nothing under the key.
    """
    check_anndata(adata)
    total, weight, kept = (
        column(adata.obs, f"{key}_{name}", "run nd.pp.normalise first").to_numpy()
        for name in ("log_total_count", "weight", "kept")
    )
    is_outlier = ~np.isnan(weight) & ~kept.astype(bool)
    axes = _axes(ax)
    groups = ((kept.astype(bool), HITS, "kept"), (is_outlier, LINE, "outlier, left out"))
    for chosen, colour, label in groups:
        if chosen.any():
            axes.scatter(np.exp(total[chosen]), weight[chosen], color=colour, label=label, **DOTS)
    axes.set_xscale("log")
    axes.set(xlabel="counts of the cell", ylabel="weight of the cell")
    if is_outlier.any():
        axes.legend(frameon=False)
    return _finished(axes, show=show)


def degree(adata: anndata.AnnData, *, key: str = "coex", ax: "Axes | None" = None, show: bool = False) -> "Axes":
    """Draw how many genes have as many edges or more in the co-expression network.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.tl.coex` was run.
    key : str
        ``key_added`` of :func:`normalisr_dask.tl.coex`.
    ax, show
        As of :func:`volcano`.

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there is nothing under the key.
    """
    check_anndata(adata)
    of_genes = column(adata.var, f"{key}_degree", "run nd.tl.coex first").to_numpy()
    axes = _axes(ax)
    degrees, numbers = np.unique(of_genes[of_genes > 0], return_counts=True)
    if degrees.size:
        axes.step(degrees, numbers[::-1].cumsum()[::-1], color=HITS, where="pre", marker=".")
        axes.set(xscale="log", yscale="log")
    axes.set(xlabel="edges of a gene (degree)", ylabel="genes with as many or more")
    axes.set_title(f"{int(numbers.sum()):,} of {of_genes.size:,} genes have edges")
    return _finished(axes, show=show)


def trend(adata: anndata.AnnData, *, key: str = "pylimma", ax: "Axes | None" = None, show: bool = False) -> "Axes":
    """Draw the variance of every gene against its mean, and their trend.

    Parameters
    ----------
    adata : AnnData
        On which :func:`normalisr_dask.tl.vooma_lm_fit` was run.
    key : str
        ``key_added`` of :func:`normalisr_dask.tl.vooma_lm_fit`.
    ax, show
        As of :func:`volcano`.

    Returns
    -------
    Axes

    Raises
    ------
    ImportError
        If Matplotlib is not installed.
    ValueError
        If there is nothing under the key.
    """
    check_anndata(adata)
    kept = adata.uns.get(f"{key}_trend", {})
    if "voom_xy" not in kept:
        msg = f"there is no trend under uns['{key}_trend'] of the AnnData object; run nd.tl.vooma_lm_fit first"
        raise ValueError(msg)
    axes = _axes(ax)
    points, line = kept["voom_xy"], kept["voom_line"]
    draw_trend(points["x"], points["y"], line["x"], line["y"], axes)
    return _finished(axes, show=show)


def _axes(ax: "Axes | None") -> "Axes":
    """Return where to draw."""
    if pyplot is None:
        msg = "plots need Matplotlib, which is not installed: pip install 'normalisr-dask[plot]'"
        raise ImportError(msg)
    return pyplot.subplots(layout="constrained")[1] if ax is None else ax


def _finished(axes: "Axes", *, show: bool) -> "Axes":
    if show:
        pyplot.show()
    return axes


def _plain(name: Any) -> str:
    """Return a name as Matplotlib shows it as it is: a dollar sign would begin a formula."""
    return str(name).replace("$", r"\$")
