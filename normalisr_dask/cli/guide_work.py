"""What ``assign-guides`` does."""

from typing import Any

import numpy as np

from normalisr_dask.cli.display import print_facts
from normalisr_dask.cli.options import LogOptions
from normalisr_dask.cli.store_work import show_entries
from normalisr_dask.guides import GuideOutcome, write_guide_groupings

#: Cells with as many guides or more are counted together.
MANY_GUIDES = 4


def assign_guides(guides: str, output: str, log: LogOptions, **options: Any) -> None:
    """Assign guides to cells, write the groupings, and tell what came out."""
    with show_entries("assign-guides", log, output) as show:
        outcome = write_guide_groupings(guides, output, **options, progress=show)
    _print_outcome(outcome, moi=options["moi"])


def _print_outcome(outcome: GuideOutcome, *, moi: str) -> None:
    """Print how many cells have how many guides, and the other way round."""
    n_cells, n_guides = outcome.guides_per_cell.size, len(outcome.guides)
    facts = {"cells": f"{n_cells:,}", "guides": f"{n_guides:,}"}
    for number in range(MANY_GUIDES):
        name = "with no guide" if number == 0 else f"with {number} guide{'s' * (number > 1)}"
        facts[name] = _share(outcome.cells_with(number), n_cells)
    facts[f"with {MANY_GUIDES} or more"] = _share(int((outcome.guides_per_cell >= MANY_GUIDES).sum()), n_cells)
    facts["guides per cell"] = f"median {np.median(outcome.guides_per_cell):g}"
    kept = "cells with exactly one guide" if moi == "low" else "cells with a guide"
    facts["assigned"] = f"{_share(outcome.n_assigned, n_cells)}: {kept}"
    facts["cells per guide"] = _spread(outcome)
    facts["files"] = ", ".join(map(str, outcome.files))
    print_facts("Guides of cells", facts)
    options = ("--groupings", "--grouping-names", "--grouping-cells")
    typed = " ".join(f"{option} {file}" for option, file in zip(options, outcome.files, strict=False))
    print(f"To test them: normalisr-dask run STORE -o OUT {typed}")


def _share(number: int, of: int) -> str:
    return f"{number:,} ({number / max(1, of):.1%})"


def _spread(outcome: GuideOutcome) -> str:
    """Describe the numbers of cells of the guides."""
    cells = outcome.cells_per_guide
    few, many = int(np.argmin(cells)), int(np.argmax(cells))
    return (
        f"median {np.median(cells):g}, from {cells[few]:,} ({outcome.guides[few]}) "
        f"to {cells[many]:,} ({outcome.guides[many]}); {np.count_nonzero(cells == 0):,} guides have none"
    )
