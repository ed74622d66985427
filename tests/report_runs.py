"""The inputs of a small screen whose report has everything, with names that are hard on a page."""

from pathlib import Path

import numpy as np
import pandas as pd
from gene_ontologies import GROWTH, REPAIR, SIGNAL, TERMS, gaf_line

from normalisr_dask.settings import RunSettings
from normalisr_dask.storage.ingest import ingest
from normalisr_dask.testing import SimulatedScreen, simulate_screen, write_cell_ranger_folder

#: A gene that stands out, so that figures and tables name it.
NASTY_GENE = '<img src=x onerror=alert(1)> & "$x_1$"'
NASTY_GUIDE = "</script><script>alert(1)</script>"


def run_settings(folder: Path) -> RunSettings:
    """Write the inputs: targets, controls, covariates, an ontology, and a grouping too small to test."""
    screen = simulate_screen(
        300, 900, 10, seed=2, n_controls=2, n_downstream=4, n_modules=2, module_size=44, module_strength=0.5
    )
    guides, genes = list(screen.grouping_names), list(screen.gene_names)
    target = genes.index(guides[0].split("_")[0])
    genes[target], guides[0] = NASTY_GENE, NASTY_GUIDE
    entries = screen.groupings.tocoo()
    guide_of = np.full(len(screen.cell_names), "none", dtype=object)
    guide_of[entries.coords[1]] = np.array(guides, dtype=object)[entries.coords[0]]
    guide_of[np.flatnonzero(guide_of == "none")[:4]] = "rare_g1"
    random = np.random.default_rng(5)
    cells = pd.DataFrame(
        {
            "guide": guide_of,
            "batch": random.choice(["a", "b", "c"], guide_of.size),
            "age": random.normal(50, 9, guide_of.size).round(2),
        },
        index=pd.Index(screen.cell_names, name="cell"),
    )
    cells.to_csv(folder / "cells.tsv", sep="\t")
    targets = [NASTY_GENE, *(name.split("_")[0] for name in guides[1:]), "rare", "absent"]
    pd.DataFrame({"guide": [*guides, "rare_g1", "absent_g1"], "target": targets}).to_csv(
        folder / "targets.tsv", sep="\t", index=False
    )
    write_cell_ranger_folder(folder / "raw", screen.counts, genes, screen.cell_names)
    write_ontology(folder, screen)
    ingest([folder / "raw"], folder / "counts.zarr", obs=folder / "cells.tsv")
    return RunSettings(
        store=str(folder / "counts.zarr"),
        output=str(folder / "out"),
        groupby="guide",
        reference="none",
        targets=str(folder / "targets.tsv"),
        test="guides",
        control=("control",),
        permutations=1,
        covariate_columns=("batch", "age"),
        coex=True,
        go=(str(folder / "terms.obo"), str(folder / "genes.gaf")),
        go_levels=1,
        min_gene_cells=20,
        min_cell_reads=300,
        min_cell_genes=50,
    )


def write_ontology(folder: Path, screen: SimulatedScreen) -> None:
    """Write an ontology whose terms are the modules of the screen, and all other genes."""
    term_of = dict.fromkeys(screen.gene_names, SIGNAL)
    for module, term in zip(screen.modules, (GROWTH, REPAIR), strict=True):
        term_of |= dict.fromkeys(module, term)
    lines = [gaf_line(str(number), gene, term, "IDA") for number, (gene, term) in enumerate(term_of.items(), start=1)]
    (folder / "terms.obo").write_text(TERMS)
    (folder / "genes.gaf").write_text("\n".join(lines))
