"""A CRISPR screen with one guide a cell: Papalexi et al. (2021), from guide counts to targets, with calibration.

    python examples/low_moi_screen.py FOLDER OUT

FOLDER holds the screen's counts of genes and guides as they come with the package sceptredata: genes.mtx.gz,
gene_names.txt, grnas.mtx.gz, grna_names.txt, grna_targets.tsv, cells.tsv.gz. Takes under a minute.

What to look at: the targets whose own gene goes down (the screen was made to find regulators of PD-L1, and STAT1,
STAT2, JAK2 and IFNGR1/2 change many genes), and the QQ plot: tests of permuted cells and of non-targeting guides lie on
the diagonal, so that what rises above it is effect.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import zarr

import normalisr_dask as nd
from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.guides import write_guide_groupings
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings


def main(folder: Path, out: Path) -> None:
    """Assign guides, test targets, and draw what came out."""
    out.mkdir(parents=True, exist_ok=True)

    # 1. Cells and their covariates: replicate, share of mitochondrial molecules, and the size of the whole library
    #    (the genes given here are a few of those that were sequenced, so their sum would not tell it).

    cells = pd.read_csv(folder / "cells.tsv.gz", sep="\t", index_col=0)
    cells["log_umis"] = np.log(cells["response_n_umis"])
    cells[["bio_rep", "p_mito", "log_umis"]].to_csv(out / "cells.tsv", sep="\t")
    (out / "cells.txt").write_text("".join(f"{name}\n" for name in cells.index))

    # 2. Counts of genes to a store; guides to cells. A guide is called with 5 molecules that are a fifth of the cell's
    #    guide molecules; a cell in which two guides pass is most likely two cells, and is left out.

    store = out / "counts.zarr"
    if not store.exists():
        names = {"genes": folder / "gene_names.txt", "cells": out / "cells.txt"}
        nd.ingest(folder / "genes.mtx.gz", store, obs=out / "cells.tsv", **names)
    guides = write_guide_groupings(
        folder / "grnas.mtx.gz",
        out / "guides.mtx.gz",
        guide_names=folder / "grna_names.txt",
        cell_names=out / "cells.txt",
        overwrite=True,
    )
    matrix, grouping_names, grouping_cells = map(str, guides.files)

    # 3. The run: targets (the union of each one's guides) against the cells of non-targeting guides, and one
    #    permutation of the cells to see that P-values are uniform where there is nothing to find.
    #    On the command line: normalisr-dask run counts.zarr -o results --groupings guides.mtx.gz --targets … --control
    #    non-targeting --other-groupings exclude --permutations 1

    settings = RunSettings(
        store=str(store),
        output=str(out / "results"),
        groupings=matrix,
        grouping_names=grouping_names,
        grouping_cells=grouping_cells,
        targets=str(folder / "grna_targets.tsv"),
        control=("non-targeting",),
        other_groupings="exclude",
        covariate_columns=("bio_rep", "p_mito", "log_umis"),
        permutations=1,
        min_gene_cell_fraction=0.0,
        min_cell_reads=0,
        min_cell_genes=10,
    )
    with connect(ClusterSettings()) as client:
        summary = run(settings, client)
    print(f"{summary.cells_kept:,} cells and {summary.genes_kept:,} genes")

    # 4. Targets by the number of genes that change, and what happens to the target's own gene.

    table = pd.read_parquet(out / "results" / "de.parquet")
    table = table.astype({"grouping": str, "gene": str})
    hits = table[table["qvalue_all"] <= 0.05].groupby("grouping").size().sort_values(ascending=False)
    own = table[table["grouping"] == table["gene"]].set_index("grouping")["gamma"]
    print(pd.DataFrame({"genes_changed": hits, "effect_on_itself": own.round(2)}).loc[hits.index].head(10).to_string())

    # 5. QQ plot and bars.

    calibration = zarr.open_group(out / "results" / "results.zarr", mode="r")["calibration"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for family, expected, observed, inflation in zip(
        *(calibration[name][...] for name in ("family", "expected", "observed", "inflation")), strict=True
    ):
        left.plot(expected, observed, ".", markersize=4, label=f"{family}, λ = {inflation:.2f}")
    left.axline((0, 0), slope=1, color="0.6", linewidth=1)
    left.set(xlabel="−log10 P expected", ylabel="−log10 P observed", xlim=(0, None), ylim=(0, 25))
    left.legend(frameon=False)
    right.barh(hits.index[:15][::-1], hits.to_numpy()[:15][::-1])
    right.set(xlabel="genes that change, FDR ≤ 5 % over all tests", xscale="log")
    figure.savefig(out / "screen.png", dpi=150)
    print(f"see {out / 'screen.png'}")


if __name__ == "__main__":  # the workers of a local cluster are processes that import this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    main(arguments.folder, arguments.out)
