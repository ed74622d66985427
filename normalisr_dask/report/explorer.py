"""What picks one of many sets of tests, groupings or contrasts, and draws it: charts and top genes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normalisr_dask.pipeline import HIT_QVALUE
from normalisr_dask.report.grouping_charts import EFFECT_BINS, HISTOGRAM_BINS, P_BINS, QQ_POINTS, GroupingCharts


@dataclass(frozen=True)
class Explorer:
    """Sets of tests of the same genes, one of which the page shows at a time.

    Attributes
    ----------
    noun
        What a set is: a grouping, a contrast.
    effect, scale
        What an effect is called, and on which scale it is.
    further
        Headings of what else the top genes have, in the order of the charts' columns.
    names, targets
        Of the sets; the gene that a set is aimed at, or nothing.
    sizes
        What to say of the size of each set, such as its number of cells.
    hits
        Number of genes with Q up to :data:`HIT_QVALUE`.
    charts
        Of the sets.
    genes
        Names of all genes.
    n_top
        Top genes of a set at most.
    null
        QQ points of tests without effects: label, colour, points.
    """

    noun: str
    effect: str
    scale: str
    further: tuple[str, ...]
    names: Sequence[str]
    targets: Sequence[str]
    sizes: Sequence[str]
    hits: Sequence[int]
    charts: Sequence[GroupingCharts]
    genes: np.ndarray
    n_top: int
    null: list[dict[str, Any]] = field(default_factory=list)

    @property
    def content(self) -> dict[str, Any]:
        """What ``templates/explorer.html`` shows."""
        return {
            "noun": self.noun,
            "columns": ["Gene", self.effect, *self.further, "P", "Q"],
            "n_top": min(self.n_top, self.genes.size),
            "qcut": HIT_QVALUE,
            "has_null": bool(self.null),
        }

    @property
    def data(self) -> dict[str, Any]:
        """What the script of the page draws from."""
        shown = sorted({int(gene) for chart in self.charts for gene in chart.genes})
        return {
            "noun": self.noun,
            "effect": f"{self.effect} ({self.scale})",
            "further": len(self.further),
            "qcut": HIT_QVALUE,
            "layout": [EFFECT_BINS, P_BINS, HISTOGRAM_BINS, QQ_POINTS],
            "genes": {str(position): str(self.genes[position]) for position in shown},
            "names": list(self.names),
            "targets": list(self.targets),
            "sizes": list(self.sizes),
            "hits": list(self.hits),
            "inflation": [None if np.isnan(chart.inflation) else round(chart.inflation, 4) for chart in self.charts],
            "charts": [chart.packed for chart in self.charts],
            "null": self.null,
        }
