"""The sections on linear models of samples: mean-variance trend, sample weights, and the tests of every contrast."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from normalisr_dask.kernels.p_adjustment import adjust
from normalisr_dask.pipeline import HIT_QVALUE
from normalisr_dask.report.explorer import Explorer
from normalisr_dask.report.figures import FIRST, MUTED, SECOND, Picture, draw_density, drawing
from normalisr_dask.report.grouping_charts import charts_of_tests, top_genes_each
from normalisr_dask.report.section import FinishedFit, Section

Floats = NDArray[np.float64]

#: Samples of which each has its name in the picture of weights.
SAMPLES_DRAWN = 30
#: Samples with the smallest weights that are listed.
SAMPLES_LISTED = 200
#: Points drawn of a curve, at most.
POINTS = 200


def model_section(fit: FinishedFit) -> Section:
    """Make the section on the fit: its trend, and the precision of samples and blocks.

    Parameters
    ----------
    fit
        Any fit.
    """
    entries = fit.entries
    facts = {"samples": f"{len(entries['samples']):,}", "genes": f"{len(entries['sigma']):,}"}
    if "correlation" in entries:
        facts["correlation within blocks"] = f"{float(entries['correlation']):.3f}"
    pictures, samples = [_trend(entries)], []
    if "targets" in entries:
        weights, names = entries["targets"]["sample_weights"], entries["samples"]
        facts["sample weights"] = f"{weights.min():.2f} to {weights.max():.2f}"
        pictures.append(_sample_weights(weights, names))
        samples = [(str(names[row]), float(weights[row])) for row in np.argsort(weights, kind="stable")]
    return Section(
        "model",
        "Linear models",
        {
            "pictures": pictures,
            "samples": samples[:SAMPLES_LISTED],
            "n_samples": len(samples),
            "coefficients": [str(name) for name in entries["coef_names"]],
            "design": fit.settings["design"],
            "rows": _facts_of_fit(fit),
        },
        facts=facts,
    )


def contrasts_section(fit: FinishedFit) -> Section:
    """Make the section on the tests of every contrast.

    Parameters
    ----------
    fit
        Any fit.
    """
    entries, hits = fit.entries, fit.hits
    columns = [str(name) for name in entries.get("contrast_names", entries["coef_names"])]
    n_top = top_genes_each(len(hits))
    charts = [charts_of_tests(*_tests(entries, columns.index(name)), n_top) for name in hits]
    explorer = Explorer(
        "Contrast",
        "Log fold change",
        "scale of the data",
        ("Mean expression", "t", "B"),
        names=list(hits),
        targets=[""] * len(hits),
        sizes=[f"{n_up:,} genes up, {n_down:,} down" for n_up, n_down in hits.values()],
        hits=[n_up + n_down for n_up, n_down in hits.values()],
        charts=charts,
        genes=entries["genes"],
        n_top=n_top,
    )
    return Section(
        "contrasts",
        "Contrasts",
        {
            "explorer": explorer.content,
            "qcut": HIT_QVALUE,
            "rows": [
                (name, *hits[name], chart.n_tests, chart.inflation) for name, chart in zip(hits, charts, strict=True)
            ],
        },
        facts={
            f"{name}, Q ≤ {HIT_QVALUE:g}": f"{n_up:,} up, {n_down:,} down"
            for name, (n_up, n_down) in list(hits.items())[:4]
        },
        data=explorer.data,
    )


def _tests(entries: dict[str, Any], column: int) -> tuple[Floats, list[Floats], Floats, Floats]:
    """Return effect, further columns, log10 P and Q of every gene for a contrast."""
    p_values = entries["p_value"][:, column]
    with np.errstate(divide="ignore"):
        log10_p = np.log10(p_values)
    further = [entries["Amean"], entries["t"][:, column], entries["lods"][:, column]]
    return entries["coefficients"][:, column], further, log10_p, adjust(p_values, "BH")


def _facts_of_fit(fit: FinishedFit) -> list[tuple[str, str]]:
    """Return name and value of what there is to say of a fit."""
    entries = fit.entries
    prior = np.atleast_1d(entries["df_prior"])
    facts = {
        "Coefficients": ", ".join(map(str, entries["coef_names"])),
        "Residual degrees of freedom, median": f"{np.median(entries['df_residual']):g}",
        "Prior degrees of freedom, median": f"{np.median(prior):.3g}",
        "Span of the trend": f"{float(entries['span']):.2f} of the genes",
    }
    if "correlation" in entries:
        facts["Correlation within blocks"] = f"{float(entries['correlation']):.3f} ({fit.settings['block']})"
    return list(facts.items())


def _trend(entries: dict[str, Any]) -> Picture:
    """Draw how the residual deviation of genes follows their mean expression."""
    points, line = entries["voom_xy"], entries["voom_line"]
    known = np.isfinite(points["x"]) & np.isfinite(points["y"])
    x, y = points["x"][known], points["y"][known]
    x_edges, y_edges = (np.histogram_bin_edges(values, bins) for values, bins in ((x, 60), (y, 44)))
    shown = np.unique(np.linspace(0, line["x"].size - 1, POINTS).astype(np.int64))
    with drawing("trend") as draft:
        axes = draft.axes()
        draw_density(axes, np.histogram2d(x, y, bins=(x_edges, y_edges))[0].astype(np.int64), x_edges, y_edges, FIRST)
        axes.plot(line["x"][shown], line["y"][shown], color=SECOND, linewidth=2, label="trend")
        axes.set(xlabel="Mean log-expression of the gene", ylabel="√ residual standard deviation")
        axes.figure.legend(loc="outside upper left")
        lowest = int(np.argmin(line["y"]))
        return draft.picture(
            alternative=(
                f"Mean-variance trend of {x.size:,} genes: the square root of the residual standard deviation goes "
                f"from {line['y'][0]:.2f} at mean log-expression {line['x'][0]:.2f} to {line['y'][-1]:.2f} at "
                f"{line['x'][-1]:.2f}; the trend is lowest, {line['y'][lowest]:.2f}, at {line['x'][lowest]:.2f}."
            ),
            caption=(
                "Mean-variance trend: an observation's precision is the trend at its fitted value to the power −4. "
                "Stronger where there are more genes (logarithmic)."
            ),
        )


def _sample_weights(weights: Floats, names: NDArray[np.object_]) -> Picture:
    """Draw the weight of every sample, by name, or of many in their order."""
    order = np.argsort(weights, kind="stable")
    is_drawn = weights.size <= SAMPLES_DRAWN
    with drawing("sample-weights", height=max(3.0, 0.9 + 0.19 * weights.size) if is_drawn else 3.0) as draft:
        axes = draft.axes()
        if is_drawn:
            rows = np.arange(weights.size)
            axes.hlines(rows, 1, weights[order], color=FIRST, linewidth=1.5)
            axes.plot(weights[order], rows, "o", color=FIRST, markersize=5)
            axes.set_yticks(rows, [str(name) for name in names[order]], fontsize=8)
            axes.set_ylim(weights.size - 0.5, -0.5)
            axes.axvline(1, color=MUTED, linestyle="--", linewidth=1.2)
            axes.set_xlim(left=0)
            axes.set_xlabel("Weight of the sample")
        else:
            shown = np.unique(np.linspace(0, weights.size - 1, POINTS).astype(np.int64))
            axes.plot(shown + 1, weights[order][shown], "o", color=FIRST, markersize=3)
            axes.axhline(1, color=MUTED, linestyle="--", linewidth=1.2)
            axes.set_ylim(bottom=0)
            axes.set(xlabel="Samples, by their weight", ylabel="Weight of the sample")
        return draft.picture(
            alternative=(
                f"Weights of {weights.size:,} samples, from {weights[order[0]]:.2f} ({names[order[0]]}) to "
                f"{weights[order[-1]]:.2f} ({names[order[-1]]}); 1 is a sample of ordinary precision."
            ),
            caption="Weights of the samples: those below 1 are noisier than most, and count for less.",
        )
