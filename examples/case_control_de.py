"""Which genes tell classical from non-classical monocytes? Case-control differential expression on pbmc3k.

    python examples/case_control_de.py MATRIX CELL_TYPES OUT

MATRIX is the folder of pbmc3k's counts from 10x (filtered_gene_bc_matrices/hg19), CELL_TYPES a table with a column
``cell_type``. Written to OUT: the count store, a table of all genes, and a volcano plot. Takes some ten seconds.

What to look at: the genes at the top are the textbook's. FCGR3A is the gene of CD16, by which non-classical monocytes
are sorted; S100A8, S100A9 and LYZ are high in classical, CD14-positive ones.
"""

import argparse
from pathlib import Path

import dask
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import normalisr_dask as nd

CASE, CONTROL = "FCGR3A+ Mono", "CD14+ Mono"

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("matrix", type=Path)
parser.add_argument("cell_types", type=Path)
parser.add_argument("out", type=Path)
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

# 1. Counts go to a store on disk, once. From here on nothing depends on how many cells there are.

store = arguments.out / "pbmc3k.zarr"
if not store.exists():
    nd.ingest(arguments.matrix, store, obs=arguments.cell_types)
counts = nd.open_counts(store)
print(f"{counts.shape[0]:,} genes in {counts.shape[1]:,} cells")

# 2. The cells to compare, and the genes that enough of them express.

counts = counts.subset(cells=np.flatnonzero(counts.obs["cell_type"].isin([CASE, CONTROL])))
genes, cells = nd.qc_reads(counts.matrix, 0, 50, 0.02, 500, 100, 0)
counts = counts.subset(genes=genes, cells=cells)
print(f"{counts.shape[0]:,} genes in {counts.shape[1]:,} cells pass quality control")

# 3. Normalisation: log-CPM, covariates of the library, a weight for each cell, a scaling for each gene. All is lazy:
#    ``expression`` is a Dask array that knows how it follows from the sparse counts, and is never made as a whole.

log_cpm = nd.lcpm(counts.matrix)
covariates = nd.normcov(log_cpm.cov)
cell_weights = nd.compute_var(log_cpm.lcpm, covariates)
expression, covariates = nd.normvar(log_cpm.lcpm, covariates, cell_weights, nd.scaling_factor(counts.matrix))

# 4. The test: one grouping, 1 for cases and 0 for controls. Here is where the work is done.

is_case = (counts.obs["cell_type"] == CASE).to_numpy().astype(float)[np.newaxis]
tested = nd.de(is_case, expression, covariates)
log10_p, effect, error = (values[0] for values in dask.compute(tested.log10_pvalue, tested.gamma, tested.se))

table = pd.DataFrame({"effect": effect, "standard_error": error, "log10_p": log10_p}, index=counts.genes)
table = table.sort_values("log10_p")
table.to_csv(arguments.out / "monocytes.tsv", sep="\t", index_label="gene")
print(table.head(12).round(3).to_string())

# 5. A volcano plot: effect against significance, the strongest genes by name. Benjamini-Hochberg decides on colour.

rank = np.arange(1, len(table) + 1)
threshold = table["log10_p"][(table["log10_p"] <= np.log10(0.05 * rank / len(table)))].max()
is_hit = table["log10_p"] <= threshold
print(f"{is_hit.sum():,} genes at a false discovery rate of 5 %")

figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
for name, chosen, colour in (("others", ~is_hit, "0.75"), ("FDR ≤ 5 %", is_hit, "tab:blue")):
    axes.scatter(table["effect"][chosen], -table["log10_p"][chosen], s=6, color=colour, label=name)
for gene, row in table.head(12).iterrows():
    axes.annotate(gene, (row["effect"], -row["log10_p"]), xytext=(4, 2), textcoords="offset points", fontsize=8)
axes.set(xlabel=f"difference of log-CPM, {CASE} − {CONTROL}", ylabel="−log10 P")
axes.legend(frameon=False)
figure.savefig(arguments.out / "monocytes.png", dpi=150)
print(f"see {arguments.out / 'monocytes.png'}")
