"""What comparison.py has each program do. A program is imported by the process that measures it, and by no other."""

import contextlib
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import scipy.sparse

import normalisr_dask as nd
import normalisr_dask.limma

N_CORES = 2
COUNTS_PER_CELL = 1e4
#: limma 3.54.1 of Debian has no voomaLmFit, so that the models compared are those which all three programs have.
LIMMA_IN_R = """
library(limma)
expression <- as.matrix(read.delim("expression.tsv", header = FALSE))
design <- as.matrix(read.delim("design.tsv", header = FALSE))
block <- readLines("block.txt")
start <- proc.time()[["elapsed"]]
correlation <- duplicateCorrelation(expression, design, block = block)$consensus.correlation
fit <- eBayes(lmFit(expression, design, block = block, correlation = correlation))
table <- topTable(fit, coef = 2, number = Inf, sort.by = "none")
cat(proc.time()[["elapsed"]] - start, "\\n", file = "seconds.txt")
write.table(cbind(table$t, table$P.Value), "tests.tsv", sep = "\\t", row.names = FALSE, col.names = FALSE)
"""


@dataclass(frozen=True)
class Cells:
    """Counts of cells that have one label each.

    Attributes
    ----------
    counts : csc_array (genes, cells)
        Of molecules.
    genes : array (genes,)
        Names.
    labels : array (cells,)
        Of cells.
    tested : list
        Labels to test.
    reference : str or None
        The label they are compared with; all other cells if None.
    library : array (cells,) or None
        Molecules of the cell, where the genes given are not all.
    covariates : array (covariates, cells) or None
        To take into account, where the program can.
    """

    counts: scipy.sparse.csc_array
    genes: np.ndarray
    labels: np.ndarray
    tested: list[str]
    reference: str | None = None
    library: np.ndarray | None = None
    covariates: np.ndarray | None = None

    def of(self, cells: np.ndarray) -> "Cells":
        """Return some of the cells."""
        return replace(
            self,
            counts=self.counts[:, cells],
            labels=self.labels[cells],
            library=None if self.library is None else self.library[cells],
            covariates=None if self.covariates is None else self.covariates[:, cells],
        )

    @property
    def groupings(self) -> np.ndarray:
        """Which cell has which tested label (tested, cells)."""
        return (self.labels == np.array(self.tested, dtype=object)[:, None]).astype(np.int8)


#: P-values and effects (tested, genes).
Tests = dict[str, np.ndarray]


# ---- tests of cells


def ours(cells: Cells) -> Tests:
    log_cpm = nd.lcpm(cells.counts, normalize=cells.library is None)
    expression, covariates = log_cpm.lcpm, log_cpm.cov
    if cells.library is not None:
        library = np.log(cells.library)
        expression, covariates = expression - library, np.vstack([library, library**2, cells.covariates])
    covariates = nd.normcov(covariates)
    weights = nd.compute_var(expression, covariates)
    normalised = nd.normvar(expression, covariates, weights, nd.scaling_factor(cells.counts))
    single = 0 if cells.reference is None else 1  # cells of the other tested labels are no reference
    tested = nd.de(cells.groupings, *normalised, single=single)
    p_values, effects = dask.compute(tested.pvalue, tested.gamma, scheduler="threads", num_workers=N_CORES)
    return {"p": p_values, "effect": effects}


def normalisr(cells: Cells) -> Tests:
    published = import_module("normalisr.normalisr")
    dense = cells.counts.toarray().astype(np.int64)
    expression, _, _, covariates = published.lcpm(dense, normalize=cells.library is None, nth=N_CORES)
    if cells.library is not None:
        library = np.log(cells.library)
        expression, covariates = expression - library, np.vstack([library, library**2, cells.covariates])
    covariates = published.normcov(covariates)
    weights = published.compute_var(expression, covariates)
    scaling = published.scaling_factor(dense)
    normalised = published.normvar(expression, covariates, weights, scaling, nth=N_CORES)
    single = 0 if cells.reference is None else 1
    p_values, effects, *_ = published.de(cells.groupings.astype(float), *normalised, single=single, nth=N_CORES)
    return {"p": p_values, "effect": effects}


def log_normalised(cells: Cells) -> Any:
    """Return AnnData, cells × genes, of log(1 + counts per ten thousand)."""
    library = np.asarray(cells.counts.sum(axis=0)).ravel() if cells.library is None else cells.library
    normalised = (cells.counts.T.tocsr() / library[:, None] * COUNTS_PER_CELL).tocsr().log1p()
    return import_module("anndata").AnnData(
        scipy.sparse.csr_matrix(normalised),
        obs=pd.DataFrame({"label": pd.Categorical(cells.labels)}, index=[f"c{n}" for n in range(len(cells.labels))]),
        var=pd.DataFrame(index=cells.genes),
    )


def scanpy(cells: Cells, method: str) -> Tests:
    adata, module = log_normalised(cells), import_module("scanpy")
    reference = "rest" if cells.reference is None else cells.reference
    module.tl.rank_genes_groups(adata, "label", groups=cells.tested, reference=reference, method=method)
    tables = [
        module.get.rank_genes_groups_df(adata, label).set_index("names").loc[cells.genes] for label in cells.tested
    ]
    return {
        "p": np.array([table["pvals"] for table in tables]),
        "effect": np.array([table["logfoldchanges"] for table in tables]),
    }


def pertpy(cells: Cells, method: str) -> Tests:
    adata, test = log_normalised(cells), getattr(import_module("pertpy").tl, method)
    p_values, effects = [], []
    for label in cells.tested:
        table = test.compare_groups(adata, "label", cells.reference, label).set_index("variable").loc[cells.genes]
        p_values.append(table["p_value"])
        effects.append(table["log_fc"])
    return {"p": np.array(p_values), "effect": np.array(effects)}


def pysceptre(cells: Cells) -> Tests:
    analyse = import_module("pysceptre.pipeline.api").run_discovery_analysis
    labels, positions = cells.labels, np.arange(cells.labels.size)
    design = np.vstack([np.ones(labels.size), np.log(cells.library), cells.covariates]).T
    pairs = pd.MultiIndex.from_product([cells.genes, cells.tested], names=["response_id", "grna_target"])
    # of each gene, how many cells in either group express it: sceptre's own quality control, 7 each by default
    expressed = {
        label: (cells.counts[:, labels == label] > 0).sum(axis=1) for label in [*cells.tested, cells.reference]
    }
    row = {gene: number for number, gene in enumerate(cells.genes)}
    passed = [
        (gene, label)
        for gene, label in pairs
        if min(expressed[label][row[gene]], expressed[cells.reference][row[gene]]) >= 7
    ]
    found = analyse(
        cells.counts.tocsr().astype(float),
        list(cells.genes),
        design,
        {label: positions[labels == label] for label in cells.tested},
        pd.DataFrame(passed, columns=["response_id", "grna_target"]),
        moi="low",
        ntc_grna_cells={str(cells.reference): positions[labels == cells.reference]},
        seed=0,
        n_jobs=N_CORES,
    ).set_index(["grna_target", "response_id"])
    whole = pd.MultiIndex.from_product([cells.tested, cells.genes])
    shape = (len(cells.tested), len(cells.genes))
    return {
        "p": found["p_value"].reindex(whole).to_numpy().reshape(shape),
        "effect": np.log(found["fold_change"].reindex(whole).to_numpy()).reshape(shape),
    }


OF_CELLS: dict[str, Callable[[Cells], Tests]] = {
    "normalisr-dask": ours,
    "normalisr": normalisr,
    "scanpy, t-test": lambda cells: scanpy(cells, "t-test"),
    "scanpy, Wilcoxon": lambda cells: scanpy(cells, "wilcoxon"),
    "pertpy, t-test": lambda cells: pertpy(cells, "TTest"),
    "pertpy, Wilcoxon": lambda cells: pertpy(cells, "WilcoxonTest"),
    "pysceptre": pysceptre,
}


# ---- pairs of genes, from normalised expression


def our_pairs(data: dict[str, np.ndarray]) -> Tests:
    p_values = nd.coex(data["expression"], data["covariates"]).pvalue
    lazy = (p_values, nd.binnet(p_values, 0.05))
    return dict(zip(("p", "network"), dask.compute(*lazy, scheduler="threads", num_workers=N_CORES), strict=True))


def normalisr_pairs(data: dict[str, np.ndarray]) -> Tests:
    published = import_module("normalisr.normalisr")
    p_values = published.coex(data["expression"], data["covariates"], nth=N_CORES)[0]
    return {"p": p_values, "network": published.binnet(p_values, 0.05)}


OF_PAIRS = {"normalisr-dask": our_pairs, "normalisr": normalisr_pairs}


# ---- linear models of samples, blocks of which are correlated


def blocked(module: Any, data: dict[str, Any]) -> Tests:
    expression, design, block = data["expression"], data["design"], data["block"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        correlation = module.duplicate_correlation(expression, design, block=block)["consensus_correlation"]
        fit = module.e_bayes(module.lm_fit(expression, design, block=block, correlation=correlation))
    return {"t": np.asarray(fit["t"])[:, 1], "p": np.asarray(fit["p_value"])[:, 1]}


def weighted(module: Any, data: dict[str, Any]) -> Tests:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = module.vooma_lm_fit(data["expression"], data["design"], block=data["block"], sample_weights=True)
        fit = module.e_bayes(fit)
    return {"t": np.asarray(fit["t"])[:, 1], "p": np.asarray(fit["p_value"])[:, 1]}


def limma_in_r(data: dict[str, Any]) -> Tests:
    """Run limma in R, which tells how long its functions took."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for name in ("expression", "design"):
            np.savetxt(f"{name}.tsv", data[name], delimiter="\t")
        Path("block.txt").write_text("".join(f"{label}\n" for label in data["block"]))
        subprocess.run(["Rscript", "-e", LIMMA_IN_R], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tests = np.loadtxt("tests.tsv")
        seconds = float(Path("seconds.txt").read_text())
    return {"t": tests[:, 0], "p": tests[:, 1], "seconds": np.array(seconds)}


OF_BLOCKS: dict[str, Callable[[dict[str, Any]], Tests]] = {
    "normalisr-dask": lambda data: blocked(normalisr_dask.limma, data),
    "pylimma": lambda data: blocked(import_module("pylimma"), data),
    "limma in R": limma_in_r,
}
OF_WEIGHTS: dict[str, Callable[[dict[str, Any]], Tests]] = {
    "normalisr-dask": lambda data: weighted(normalisr_dask.limma, data),
    "pylimma": lambda data: weighted(import_module("pylimma"), data),
}
