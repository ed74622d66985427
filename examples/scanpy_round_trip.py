"""From scanpy's clusters to tests of normalisr-dask, and back to scanpy's plots, on one AnnData object.

    python examples/scanpy_round_trip.py OUT [--matrix MATRIX]

MATRIX is the folder of pbmc3k's counts from 10x (filtered_gene_bc_matrices/hg19); without it cells of four types are
simulated. Needs scanpy and igraph. Written to OUT: the object, tables of the genes of every cluster, and plots. Takes
half a minute.

What to look at: scanpy's dot plot shows the genes that our tests put first, and its own functions read our tests under
``key="de"``. The clusters were found in the same counts in which they are then compared, so that the P-values put genes
in order, and prove no cluster; that is so in every program.
"""

import argparse
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import pandas as pd
import scanpy as sc
import scipy.sparse

import normalisr_dask as nd
from normalisr_dask.testing import simulate_counts

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", type=Path)
parser.add_argument("--matrix", type=Path, help="folder of pbmc3k's counts; cells are simulated without it")
arguments = parser.parse_args()
arguments.out.mkdir(parents=True, exist_ok=True)

# 1. Counts, as scanpy reads them.

if arguments.matrix is None:
    simulated = simulate_counts(1200, 1500, seed=1, n_cell_types=4)
    adata = anndata.AnnData(
        scipy.sparse.csr_matrix(simulated.counts.T, dtype="float32"),
        obs=pd.DataFrame(index=simulated.cell_names),
        var=pd.DataFrame(index=simulated.gene_names),
    )
else:
    adata = sc.read_10x_mtx(arguments.matrix)

# 2. Quality control marks cells and genes; with ``subset`` it keeps only what passes. scanpy will overwrite X, so that
#    the counts go to a layer, where our functions find them.

nd.pp.qc(adata, subset=True)
adata.layers["counts"] = adata.X.copy()
print(f"{adata.n_obs:,} cells and {adata.n_vars:,} genes pass quality control")

# 3. Clusters, as in scanpy's tutorial.

sc.pp.normalize_total(adata, target_sum=1e4)
sc.pp.log1p(adata)
sc.pp.highly_variable_genes(adata, n_top_genes=min(2000, adata.n_vars // 2))
sc.pp.pca(adata, n_comps=20)
sc.pp.neighbors(adata)
sc.tl.leiden(adata, resolution=0.5, flavor="igraph", n_iterations=2, directed=False)
sc.tl.umap(adata)
clusters = adata.obs["leiden"].cat.categories
print(f"{len(clusters)} clusters")

# 4. Normalised expression is not made: a weight for each cell and a fit for each gene are found, of which the tests
#    make it block by block. Each cluster is tested against all other cells, and every pair of genes for co-expression.

nd.pp.normalise(adata, layer="counts")
nd.tl.de(adata, "leiden")
nd.tl.coex(adata)

for cluster in clusters:
    markers = nd.get.de_df(adata, cluster, qcut=0.05, effect_min=0.5)
    markers.to_csv(arguments.out / f"cluster_{cluster}.tsv", sep="\t", index=False)
    print(f"cluster {cluster}: {len(markers):,} genes up, first {', '.join(markers['gene'][:5])}")
hub = adata.var["coex_degree"].idxmax()
print(f"{adata.varp['coex_r'].nnz:,} edges of co-expression, most of {hub}")

# 5. Back to scanpy: its plots read the tests under ``key``, and colour cells by the genes found.

dots = sc.pl.rank_genes_groups_dotplot(adata, key="de", n_genes=4, dendrogram=False, show=False)
dots["mainplot_ax"].figure.savefig(arguments.out / "markers.png", dpi=120, bbox_inches="tight")

first = nd.get.de_df(adata, clusters[0], effect_min=0.5)["gene"][0]
figure, ((clusters_ax, gene_ax), (volcano_ax, weights_ax)) = plt.subplots(2, 2, figsize=(12, 9), layout="constrained")
sc.pl.umap(adata, color="leiden", ax=clusters_ax, show=False, legend_loc="on data")
sc.pl.umap(adata, color=first, ax=gene_ax, show=False)
nd.pl.volcano(adata, clusters[0], ax=volcano_ax)
nd.pl.variance_fit(adata, ax=weights_ax)
figure.savefig(arguments.out / "round_trip.png", dpi=100)

# 6. All of it is in the object, and comes back with it.

adata.write_h5ad(arguments.out / "tested.h5ad")
print(f"see {arguments.out / 'markers.png'} and {arguments.out / 'round_trip.png'}")
