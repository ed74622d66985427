"""An effect of a treatment given to donors, in one of their cell types: by pseudobulk, and cell by cell.

    python examples/pseudobulk_with_donors.py [OUT]

Twelve donors, six of them treated, give some 9,000 cells of three types. Treatment doubles thirty genes in B cells and
does nothing else, but donors differ from one another in every gene, as people do, in part in all
cell types alike. We ask which genes treatment changes
in B cells, in two ways:

1. Pseudobulk: sum the cells of each donor and type, fit linear models to these 36 samples with the donor as block, and
   test the contrast. The unit is the donor, of whom there are twelve.
2. Cell-level ``de`` on the B cells, treated or not. The unit is the cell, of which there are thousands.

The second takes cells of one donor for independent and calls differences between donors effects of treatment. Use
pseudobulk where a treatment, a disease or an age belongs to the donor; use ``de`` where it belongs to the cell: guides
of a pooled CRISPR screen, transgenes, barcodes, in whatever donors. Comparing cell types *within* donors is in between:
both work, and pseudobulk with blocks is the cautious one.

Writes the picture of the mean-variance trend and the table to OUT (by default pseudobulk-example).
"""

import argparse
import tempfile
from pathlib import Path

import anndata
import dask
import numpy as np
import pandas as pd
import scipy.sparse

import normalisr_dask as nd
from normalisr_dask.kernels.multiple_testing import benjamini_hochberg
from normalisr_dask.steps.trend_plot import save_trend

N_GENES, N_PLANTED = 1_000, 30
CELL_TYPES = ("B", "T", "NK")
LEVEL = 0.05


def simulate(path: Path) -> None:
    """Write the cells of the study as h5ad."""
    random = np.random.default_rng(1)
    donors = np.arange(12)
    cells_per_donor = random.integers(500, 1_000, donors.size)
    donor = np.repeat(donors, cells_per_donor)
    cell_type = random.choice(len(CELL_TYPES), donor.size, p=[0.3, 0.5, 0.2])
    is_treated = donor % 2 == 1
    share = random.lognormal(0, 1.2, N_GENES)
    log_share = np.log(share / share.sum())[:, None] + random.normal(0, 0.6, (N_GENES, 3))[:, cell_type]
    log_share += random.normal(0, 0.15, (N_GENES, 12))[:, donor]
    log_share += random.normal(0, 0.2, (N_GENES, 12, 3))[:, donor, cell_type]
    log_share[:N_PLANTED, is_treated & (cell_type == 0)] += np.log(2)
    depth = random.lognormal(np.log(2_500), 0.4, donor.size)
    counts = scipy.sparse.csr_array(random.poisson(np.exp(log_share) * depth).T.astype(np.int32))
    obs = pd.DataFrame(
        {
            "donor": [f"donor{number + 1:02d}" for number in donor],
            "cell_type": np.array(CELL_TYPES)[cell_type],
            "arm": np.where(is_treated, "treated", "control"),
        },
        index=[f"cell{number}" for number in range(donor.size)],
    )
    genes = pd.DataFrame(index=[f"planted{j + 1}" if j < N_PLANTED else f"gene{j + 1}" for j in range(N_GENES)])
    anndata.AnnData(counts, obs=obs, var=genes).write_h5ad(path)


def by_pseudobulk(store: Path, output: Path) -> pd.DataFrame:
    """Test with donors as units; return the whole table."""
    samples = nd.pseudobulk(store, ["donor", "cell_type"], min_cells=10)
    samples = samples[:, np.asarray(samples.layers["counts"].mean(axis=0)) >= 10].copy()  # genes with enough counts
    print(f"{samples.n_obs} samples, {samples.n_vars} genes, {samples.obs['n_cells'].min()} cells or more in a sample")

    samples.obs["group"] = samples.obs["cell_type"].astype(str) + "_" + samples.obs["arm"].astype(str)
    groups = pd.get_dummies(samples.obs["group"], dtype=float)
    logs = pd.DataFrame(samples.X.T, index=samples.var_names)
    fit = nd.vooma_lm_fit(logs, groups, block=samples.obs["donor"], save_plot=True)
    print(f"correlation of samples of a donor: {fit['correlation']:.2f}")
    save_trend(fit, output / "trend.png")

    contrast = nd.make_contrasts("B_treated - B_control", levels=groups)
    tested = nd.e_bayes(nd.contrasts_fit(fit, contrast))
    table = nd.top_table(tested, coef=0, number=np.inf, sort_by="p", confint=True)
    table.to_csv(output / "treated_b_cells.tsv", sep="\t")
    return table


def by_cells(store: Path) -> pd.Series:
    """Test with cells as units; return Q-values of the genes."""
    counts = nd.open_counts(store)
    cells = counts.subset(cells=np.flatnonzero(counts.obs["cell_type"] == "B"))
    log_cpm = nd.lcpm(cells.matrix)
    covariates = nd.normcov(log_cpm.cov)
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    expression, covariates = nd.normvar(log_cpm.lcpm, covariates, weights, nd.scaling_factor(cells.matrix))
    treated = (cells.obs["arm"] == "treated").to_numpy(dtype=float)[None, :]
    (p_values,) = dask.compute(nd.de(treated, expression, covariates).pvalue)
    return pd.Series(benjamini_hochberg(p_values[0]), index=cells.genes)


def say_how_right(name: str, q_values: pd.Series) -> None:
    """Print how many of the genes that were found were planted."""
    found = q_values.index[q_values <= LEVEL]
    n_right = found.str.startswith("planted").sum()
    print(f"{name}: {len(found)} genes with Q ≤ {LEVEL}, of which planted {n_right} of {N_PLANTED}")


def main(output: Path) -> None:
    """Run both and compare them with the truth."""
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        cells, store = Path(folder) / "cells.h5ad", Path(folder) / "counts.zarr"
        simulate(cells)
        nd.ingest(cells, store)
        table = by_pseudobulk(store, output)
        q_values = by_cells(store)
    print(table.head(10)[["log_fc", "ci_l", "ci_r", "p_value", "adj_p_value"]].round(4).to_string())
    say_how_right("donors as units (pseudobulk)", table["adj_p_value"])
    say_how_right("cells as units (de)", q_values)
    print(f"trend and table: {output}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?", default=Path("pseudobulk-example"))
    main(parser.parse_args().out)
