"""The section on quality control: distributions of counts and genes with the cuts, and variance outliers."""

import numpy as np

from normalisr_dask.report.figures import SECOND, Picture, draw_histogram, drawing
from normalisr_dask.report.section import FinishedRun, Section

#: Outliers of variance that are named.
OUTLIERS_SHOWN = 10
#: Share of the cells kept below which a caution is due.
FEW_KEPT = 0.5


def quality_section(run: FinishedRun) -> Section:
    """Make the section on quality control.

    Parameters
    ----------
    run
        With the stages ``qc`` and ``normalisation``.
    """
    results = run.results
    stored = {
        name: results.read("qc", name)
        for name in ("cell_total", "cell_genes", "cell_kept", "gene_total", "gene_cells", "gene_kept")
    }
    cell_kept, gene_kept = stored["cell_kept"], stored["gene_kept"]
    bounds, n_cells, n_genes = run.settings, int(cell_kept.sum()), int(gene_kept.sum())
    weights, passed = results.read("normalisation", "fitted_weight"), results.read("normalisation", "weight_kept")
    outliers = np.flatnonzero(~passed)
    names = np.asarray(results.stored("normalisation", "qc_cell").oindex[outliers[:OUTLIERS_SHOWN]])
    pictures = [
        _distribution(
            "qc-cell-counts",
            "Counts of a cell",
            "cells",
            (stored["cell_total"], cell_kept),
            [(bounds["min_cell_reads"], "bound")],
        ),
        _distribution(
            "qc-cell-genes",
            "Genes seen in a cell",
            "cells",
            (stored["cell_genes"], cell_kept),
            [
                (bounds["min_cell_genes"], "bound"),
                (bounds["min_cell_gene_fraction"] * n_genes, "bound as a share"),
            ],
        ),
        _distribution(
            "qc-gene-cells",
            "Cells in which a gene is seen",
            "genes",
            (stored["gene_cells"], gene_kept),
            [
                (bounds["min_gene_cells"], "bound"),
                (bounds["min_gene_cell_fraction"] * n_cells, "bound as a share"),
            ],
        ),
        _distribution(
            "qc-gene-counts",
            "Counts of a gene in all cells",
            "genes",
            (stored["gene_total"], gene_kept),
            [(bounds["min_gene_reads"], "bound")],
        ),
        _weights(weights, passed),
    ]
    return Section(
        "quality",
        "Quality control",
        {
            "pictures": pictures,
            "rows": [
                ("Cells by their counts", cell_kept.size, n_cells),
                ("Cells by their variance", passed.size, int(passed.sum())),
                ("Genes by their counts", gene_kept.size, n_genes),
            ],
            "outliers": [str(name) for name in names],
            "n_outliers": outliers.size,
        },
        cautions=quality_cautions(n_cells, cell_kept.size),
        facts={
            "cells kept": f"{int(passed.sum()):,} of {cell_kept.size:,}",
            "genes kept": f"{n_genes:,} of {gene_kept.size:,}",
        },
    )


def quality_cautions(n_kept: int, n_cells: int) -> tuple[str, ...]:
    """Return what to say where most cells were left out; most genes often are."""
    if n_kept >= FEW_KEPT * n_cells:
        return ()
    return (f"Quality control left out {1 - n_kept / n_cells:.0%} of the cells: are its bounds meant for these data?",)


def _distribution(
    name: str, quantity: str, things: str, values_and_kept: tuple[np.ndarray, np.ndarray], cuts: list[tuple[float, str]]
) -> Picture:
    """Draw a distribution with what was left out, and the cuts."""
    values, kept = values_and_kept
    asked = [(cut, f"{label}: {cut:,.0f}") for cut, label in cuts if cut > 0]
    with drawing(name) as draft:
        axes = draft.axes()
        draw_histogram(axes, values.astype(np.float64), kept, cuts=asked, log=True)
        axes.set(xlabel=quantity, ylabel=things)
        middle = np.median(values[kept])
        said = "; ".join(label for _, label in asked) or "no bound"
        return draft.picture(
            alternative=(
                f"Histogram of {quantity.lower()}: kept {things} have a median of {middle:,.0f}, from "
                f"{values[kept].min():,.0f} to {values[kept].max():,.0f}; {said}; {np.count_nonzero(~kept):,} of "
                f"{kept.size:,} {things} left out."
            ),
            caption=f"{quantity}; median of those kept {middle:,.0f}.",
        )


def _weights(weights: np.ndarray, kept: np.ndarray) -> Picture:
    """Draw the weights of the cells, and those that are outliers."""
    with drawing("qc-weights") as draft:
        axes = draft.axes()
        draw_histogram(axes, weights, kept, cuts=(), log=False)
        outliers = weights[~kept]
        if outliers.size:
            axes.plot(outliers, np.zeros(outliers.size), "|", color=SECOND, markersize=14, clip_on=False)
        axes.set(xlabel="Weight of a cell (inverse of its fitted deviation)", ylabel="cells")
        return draft.picture(
            alternative=(
                f"Histogram of the weights of {weights.size:,} cells, with a median of {np.median(weights):.2f}; "
                f"{outliers.size:,} are outliers and left out."
            ),
            caption=f"Weights of cells before outliers were left out; {outliers.size:,} outliers.",
        )
