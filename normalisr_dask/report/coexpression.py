"""The section on co-expression: degrees, hubs, the strongest edges, and the gene sets that were removed."""

from itertools import count, takewhile
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from normalisr_dask.report.edge_pass import extract_edges
from normalisr_dask.report.figures import (
    FIRST,
    LEVELS,
    MUTED,
    NEGATIVE,
    POSITIVE,
    Picture,
    draw_tiles,
    drawing,
    log_x,
    log_y,
)
from normalisr_dask.report.section import FinishedRun, Section
from normalisr_dask.schema import stage_of_level
from normalisr_dask.storage.result_tables import edge_table, enrichment_table

Floats = NDArray[np.float64]

GENES_IN_HEAT_MAP, EDGES_SHOWN, HUBS_SHOWN = 50, 100, 20
GENES_OF_TERM, TERMS_SHOWN = 20, 10
#: Columns of the table of enriched terms.
OF_TERMS = ("GO", "name", "ratio_in_study", "odds_ratio", "p_uncorrected")


def coexpression_section(run: FinishedRun) -> Section | None:
    """Make the section on co-expression, of all levels of gene sets; None for a run without it.

    Parameters
    ----------
    run
        Any run.
    """
    levels = list(takewhile(lambda level: run.has(stage_of_level("edges", level)), count()))
    if not levels:
        return None
    networks = [_network(run, level) for level in levels]
    gene_sets = [_gene_set(run, level) for level in levels if run.has(stage_of_level("go", level))]
    facts = {"edges": f"{networks[0]['n_rows']:,} at Q ≤ {networks[0]['qcut']:g}"}
    if gene_sets:
        facts["gene sets removed"] = f"{len(levels) - 1}"
    return Section(
        "coexpression",
        "Co-expression",
        {"networks": networks, "gene_sets": gene_sets},
        facts=facts,
    )


def _network(run: FinishedRun, level: int) -> dict[str, Any]:
    """Return what the page shows of the network of a level."""
    stage = stage_of_level("edges", level)
    genes, degree = run.results.read(stage, "gene"), run.results.read(stage, "degree")
    by_degree = np.argsort(-degree, kind="stable")
    connected = by_degree[degree[by_degree] > 0]
    chosen = connected[:GENES_IN_HEAT_MAP]
    edges = extract_edges(run.results.output / edge_table(level), genes, chosen, EDGES_SHOWN)
    n_rows = int(degree.sum())
    mark = f"-{level}" if level else ""  # ids are unique on the page
    return {
        "level": level,
        "mark": mark,
        "qcut": run.manifest.stage(stage)["qcut"],
        "n_genes": genes.size,
        "n_rows": n_rows,
        "n_connected": connected.size,
        "positive": edges.n_positive / max(1, n_rows),
        "degree": _degrees(f"degree{mark}", degree),
        "heat_map": _heat_map(f"heat-map{mark}", genes[chosen], edges.correlation) if chosen.size > 1 else None,
        "hubs": [(str(genes[gene]), int(degree[gene])) for gene in connected[:HUBS_SHOWN]],
        "edges": [
            (str(genes[first]), str(genes[second]), r, q)
            for first, second, r, q in zip(edges.first, edges.second, edges.r, edges.q, strict=True)
        ],
    }


def _gene_set(run: FinishedRun, level: int) -> dict[str, Any]:
    """Return what the page shows of the top term of a level, and of the terms that follow it."""
    stage = stage_of_level("go", level)
    details = run.manifest.stage(stage)
    found = {"level": level, "term": details["term"], "note": details["note"]}
    if details["term"] is None:
        return found | {"genes": [], "terms": []}
    in_term = run.results.read(stage, "in_term").any(axis=0)
    with (run.results.output / enrichment_table(level)).open("rb") as file:
        table = pq.read_table(file, columns=list(OF_TERMS)).to_pandas()
    terms = table.sort_values("p_uncorrected", kind="stable").head(TERMS_SHOWN)
    return found | {
        "name": details["name"],
        "n_genes": details["genes"],
        "p_value": details["p_value"],
        "odds_ratio": details["odds_ratio"],
        "genes": [str(gene) for gene in run.results.read(stage, "gene")[in_term][:GENES_OF_TERM]],
        "terms": list(terms.itertuples(index=False, name=None)),
    }


def _degrees(name: str, degree: NDArray[np.int64]) -> Picture:
    """Draw how many genes have how many edges."""
    connected = degree[degree > 0]
    highest = int(degree.max(initial=0))
    with drawing(name) as draft:
        axes = draft.axes()
        if connected.size:
            degrees, numbers = np.unique(connected, return_counts=True)
            axes.step(degrees, numbers[::-1].cumsum()[::-1], color=FIRST, where="pre")
            log_x(axes)
            log_y(axes)
        axes.set(xlabel="Edges of a gene (degree)", ylabel="genes with as many or more")
        middle = float(np.median(connected)) if connected.size else 0.0
        return draft.picture(
            alternative=(
                f"Degree distribution: {connected.size:,} of {degree.size:,} genes have edges, {middle:g} in the "
                f"median, {highest:,} at most."
            ),
            caption=f"Degrees of the {connected.size:,} genes with edges; both axes are logarithmic.",
        )


def _heat_map(name: str, names: NDArray[np.object_], correlation: Floats) -> Picture:
    """Draw correlations between genes, those that are alike beside each other."""
    order = _clustered(correlation)
    shown = correlation[np.ix_(order, order)]
    labels = [str(gene) for gene in names[order]]
    largest = float(np.nanmax(np.abs(shown[~np.eye(len(order), dtype=bool)]), initial=0.0)) or 1.0
    levels = np.nan_to_num(np.ceil(np.abs(shown) / largest * LEVELS)).clip(0, LEVELS).astype(np.int64)
    np.fill_diagonal(levels, 0)
    edges = np.arange(len(order) + 1, dtype=np.float64) - 0.5
    with drawing(name, width=7.2, height=7.2) as draft:
        axes = draft.axes()
        for colour, is_sign in ((POSITIVE, shown > 0), (NEGATIVE, shown < 0)):
            draw_tiles(axes, np.where(is_sign, levels, 0), edges, edges, colour)
        axes.plot(np.arange(len(order)), np.arange(len(order)), "s", color=MUTED, markersize=2)
        axes.set_xticks(range(len(order)), labels, rotation=90, fontsize=6.5)
        axes.set_yticks(range(len(order)), labels, fontsize=6.5)
        axes.tick_params(length=0)
        axes.set(xlim=(edges[0], edges[-1]), ylim=(edges[-1], edges[0]), aspect="equal")
        axes.spines[:].set_visible(False)
        n_pairs = len(order) * (len(order) - 1) // 2
        n_positive, n_negative = (np.count_nonzero(levels[is_sign]) // 2 for is_sign in (shown > 0, shown < 0))
        return draft.picture(
            alternative=(
                f"Heat map of correlations between the {len(order)} most connected genes, clustered: "
                f"{n_positive + n_negative:,} of {n_pairs:,} pairs have an edge ({n_positive:,} positive, "
                f"{n_negative:,} negative), with R from {np.nanmin(shown):.2f} to {largest:.2f}. "
                "The table of the strongest edges below has numbers."
            ),
            caption=(
                f"R between the {len(order)} most connected genes, ordered by average-linkage clustering of 1 − R. "
                f"Orange is positive, purple negative, full colour |R| = {largest:.2f}; pairs without an edge are "
                "blank."
            ),
        )


def _clustered(correlation: Floats) -> NDArray[np.int64]:
    """Return an order in which genes that are alike are beside each other; no edge counts as R = 0."""
    distance = 1 - np.nan_to_num(correlation)
    np.fill_diagonal(distance, 0.0)
    if len(distance) < 3:
        return np.arange(len(distance))
    return np.asarray(leaves_list(linkage(squareform(distance, checks=False), "average", optimal_ordering=True)))
