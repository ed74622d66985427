"""Which genes go together in blood cells, beyond what all cells do? Co-expression with gene sets removed, on pbmc3k.

    python examples/coexpression_levels.py MATRIX OBO GAF OUT [--levels N] [--least-share P]

MATRIX is the folder of pbmc3k's counts from 10x (filtered_gene_bc_matrices/hg19), OBO the terms of the Gene Ontology
(go-basic.obo) and GAF the annotations of human genes (goa_human.gaf); gzipped files are fine. Takes a minute or two.

What to look at: at level 0 the network's hubs say what most divides the cells, here how active they are, and nearly a
million pairs follow. A level further, the first principal component of that term's genes is a covariate, and pairs that
were linked only through it are gone. The picture shows how the network thins out, and what each level is about.
"""

import argparse
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import zarr

import normalisr_dask as nd
from normalisr_dask.cluster import ClusterSettings, connect
from normalisr_dask.pipeline import run
from normalisr_dask.settings import RunSettings


def main(arguments: argparse.Namespace) -> None:
    """Run the levels and draw them."""
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)

    # 1. Counts to a store, once.

    store = out / "pbmc3k.zarr"
    if not store.exists():
        nd.ingest(arguments.matrix, store)

    # 2. The run: all pairs of genes, the network at a false discovery rate of 5 %, its top term, and on to the next
    #    level. Every level is a checkpoint: interrupt it, run it again, and it goes on.
    #    On the command line: normalisr-dask run pbmc3k.zarr -o results --coex --go OBO GAF --go-levels 3

    settings = RunSettings(
        store=str(store),
        output=str(out / "results"),
        coex=True,
        go=(str(arguments.obo), str(arguments.gaf)),
        go_levels=arguments.levels,
        min_gene_cell_fraction=arguments.least_share,
    )
    with connect(ClusterSettings()) as client:
        run(settings, client)

    # 3. What stands out at each level. ``go_lv0.parquet`` and its like are tables of enriched terms, best first;
    #    ``coex_edges.parquet`` and its like are the networks.

    results = zarr.open_group(out / "results" / "results.zarr", mode="r")
    levels = [level for level in range(arguments.levels + 1) if f"go_lv{level}" in results]
    names = ["edges" if level == 0 else f"edges_lv{level}" for level in levels]
    degrees = [np.asarray(results[name]["degree"][...]) for name in names]
    genes = np.asarray(results["edges"]["gene"][...])
    titles = []
    for level, degree in zip(levels, degrees, strict=True):
        enriched = pd.read_parquet(out / "results" / f"go_lv{level}.parquet").query("odds_ratio > 1")
        term = enriched["name"].iloc[0] if len(enriched) else "no term"
        hubs = ", ".join(genes[np.argsort(-degree, kind="stable")[:5]])
        print(f"level {level}: {degree.sum():,} edges; {term}; hubs {hubs}")
        titles.append(f"{level}: {term}")

    # 4. The distribution of degrees, level by level.

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", width_ratios=(1.3, 1))
    for title, degree in zip(titles, degrees, strict=True):
        ranked = np.sort(degree)[::-1]
        label = textwrap.shorten(title, 45, placeholder=" …")
        left.plot(np.arange(1, ranked.size + 1), np.maximum(ranked, 0.5), label=label)
    left.set(xscale="log", yscale="log", xlabel="genes, by number of edges", ylabel="edges of a gene")
    left.legend(frameon=False, fontsize=8, title="level and top term of its network")
    right.bar([str(level) for level in levels], [degree.sum() for degree in degrees])
    right.set(xlabel="level", ylabel="edges, FDR ≤ 5 %")
    figure.savefig(out / "levels.png", dpi=150)
    print(f"see {out / 'levels.png'}")


if __name__ == "__main__":  # the workers of a local cluster are processes that import this file
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("matrix", "obo", "gaf", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--least-share", type=float, default=0.02, help="share of cells that must express a gene")
    main(parser.parse_args())
