"""The section on differential expression: all groupings, a chosen one in detail, and the calibration of the run."""

from typing import Any

import numpy as np

from normalisr_dask.pipeline import HIT_QVALUE
from normalisr_dask.report.explorer import Explorer
from normalisr_dask.report.figures import FIRST, MUTED, SECOND, THIRD, VARIABLE_OF, Picture, drawing
from normalisr_dask.report.grouping_charts import NAMES, grouping_charts, top_genes_each
from normalisr_dask.report.section import FinishedRun, Section

FAMILIES = {
    "tested": ("Tests", FIRST, "o"),
    "control": ("Negative controls", SECOND, "^"),
    "permuted": ("Permuted cells", THIRD, "s"),
}
#: Genomic inflation of tests without effects outside of which a caution is due.
INFLATION_BOUNDS = (0.9, 1.1)
NAMES_SHOWN = 5


def differential_section(run: FinishedRun) -> Section | None:
    """Make the section on differential expression; None for a run without it.

    Parameters
    ----------
    run
        Any run.
    """
    if not run.has("de"):
        return None
    results, details = run.results, run.manifest.stage("de")
    names = [str(name) for name in results.read("de", "grouping")]
    genes = results.read("de", "gene")
    n_cells, hits = results.read("de", "n_cells").tolist(), details["hits"]
    n_top = top_genes_each(len(names))
    charts = list(grouping_charts({name: results.stored("de", name) for name in NAMES}, n_top))
    targets = [str(target) for target in details.get("targets") or [""] * len(names)]
    left_out = details.get("groupings_left_out", [])
    explorer = Explorer(
        "Grouping",
        "Effect",
        "difference of log-CPM",
        ("SE",),
        names=names,
        targets=targets,
        sizes=[f"{number:,} cells" for number in n_cells],
        hits=hits,
        charts=charts,
        genes=genes,
        n_top=n_top,
        null=_null_points(run),
    )
    return Section(
        "differential",
        "Differential expression",
        {
            "qcut": HIT_QVALUE,
            "rows": [
                (name, target, n_cells[row], hits[row], charts[row].inflation, charts[row].n_tests)
                for row, (name, target) in enumerate(zip(names, targets, strict=True))
            ],
            "has_targets": any(targets),
            "n_hits": sum(hits),
            "n_with_hits": np.count_nonzero(hits),
            "explorer": explorer.content,
            "left_out": left_out[:NAMES_SHOWN],
            "n_left_out": len(left_out),
            "calibration": _calibration_rows(run),
            "qq": _qq_picture(run),
        },
        facts=_facts(run, hits),
        cautions=tuple(_cautions(run)),
        data=explorer.data,
    )


def _facts(run: FinishedRun, hits: list[int]) -> dict[str, str]:
    """Return numbers for the head of the page."""
    facts = {f"hits at Q ≤ {HIT_QVALUE:g}": f"{sum(hits):,} in {np.count_nonzero(hits):,} of {len(hits):,} groupings"}
    for family, n_tests, inflation in _families(run):
        if family != "tested" and n_tests:
            facts[f"inflation, {FAMILIES[family][0].lower()}"] = f"{inflation:.3f}"
    return facts


def _cautions(run: FinishedRun) -> list[str]:
    """Return what the reader should know before trusting the tests, beside the warnings of the run."""
    low, high = INFLATION_BOUNDS
    return [
        f"The genomic inflation of {FAMILIES[family][0].lower()} is {inflation:.2f}, where 1 is expected: P-values are "
        f"{'too small' if inflation > 1 else 'larger than they need be'}."
        for family, n_tests, inflation in _families(run)
        if family != "tested" and n_tests and not low <= inflation <= high
    ]


def _families(run: FinishedRun) -> list[tuple[str, int, float]]:
    """Return name, number of tests and inflation of every family of tests that the run has calibrated."""
    if not run.has("calibration"):
        return []
    columns = (run.results.read("calibration", name).tolist() for name in ("family", "n_tests", "inflation"))
    return list(zip(*columns, strict=True))


def _calibration_rows(run: FinishedRun) -> list[tuple[str, int, float]]:
    return [(FAMILIES[family][0], n_tests, inflation) for family, n_tests, inflation in _families(run)]


def _null_points(run: FinishedRun) -> list[dict[str, Any]]:
    """Return QQ points of tests without effects, each family's, to draw beside those of a grouping."""
    if not run.has("calibration"):
        return []
    expected, observed = (run.results.read("calibration", name) for name in ("expected", "observed"))
    points = []
    for row, (family, n_tests, _) in enumerate(_families(run)):
        if family != "tested" and n_tests:
            pairs = np.column_stack([expected[row], observed[row]])[::4]
            pairs = np.round(pairs[np.isfinite(pairs).all(axis=1)], 3)
            label, colour, _ = FAMILIES[family]
            points.append({"label": label, "colour": f"var(--{VARIABLE_OF[colour]})", "points": pairs.tolist()})
    return points


def _qq_picture(run: FinishedRun) -> Picture | None:
    """Draw expected and observed P-values of all families of the run; None without calibration."""
    families = _families(run)
    if not families:
        return None
    expected, observed = (run.results.read("calibration", name) for name in ("expected", "observed"))
    with drawing("qq", width=5.6, height=4.0) as draft:
        axes = draft.axes()
        longest = float(np.nanmax(expected, initial=1.0))
        axes.plot([0, longest], [0, longest], color=MUTED, linestyle="--", linewidth=1.2, label="P-values as expected")
        highest = _shown_height(observed, longest)
        for row, (family, n_tests, inflation) in enumerate(families):
            label, colour, marker = FAMILIES[family]
            drawn = np.minimum(observed[row], highest)
            label = f"{label}: inflation {inflation:.3f} ({n_tests:,} tests)"
            axes.plot(expected[row], drawn, marker, color=colour, markersize=3.5, label=label, clip_on=False)
        axes.set(xlabel="Expected −log10 P", ylabel="Observed −log10 P")
        axes.set_xlim(left=0)
        axes.set_ylim(0, highest * 1.02)
        axes.figure.legend(loc="outside upper left")
        inflations = "; ".join(f"{FAMILIES[family][0]} {inflation:.3f}" for family, _, inflation in families)
        return draft.picture(
            alternative=f"Quantiles of observed against expected P-values. Genomic inflation: {inflations}.",
            caption=(
                "QQ plot of all tests of the run. Tests without effects (negative controls, permuted cells) should "
                f"follow the dashed line.{_cut_note(observed, highest)}"
            ),
        )


def _shown_height(observed: np.ndarray, longest: float) -> float:
    """Return up to where to draw: a few hits with very small P-values must not press all else to the axis."""
    finite = observed[np.isfinite(observed)]
    return float(min(finite.max(initial=longest), max(4 * longest, 12.0)))


def _cut_note(observed: np.ndarray, highest: float) -> str:
    return f" Points above {highest:.0f} are drawn at the upper edge." if np.nanmax(observed) > highest else ""
