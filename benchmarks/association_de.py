"""Lines of association.py: differential expression, dense, from counts in memory, and from a count store."""

from pathlib import Path

import dask
import numpy as np
import pandas as pd
import scipy.sparse
import scipy.special
from association_lines import N_CORES, OURS, P_TOLERANCE, TOLERANCE, Arrays, Line, log_p_difference, published

import normalisr_dask as nd
from normalisr_dask.storage.count_store_writer import CountStoreWriter
from normalisr_dask.testing import simulate_counts

NAMES = ("pvalue", "gamma", "alpha", "varg", "vart")
BOUND_MEGABYTES = 3000

# ---- data


def _expression(random: np.random.Generator, n_genes: int, n_cells: int) -> Arrays:
    return {
        "expression": random.normal(size=(n_genes, n_cells)),
        "covariates": np.vstack([random.normal(size=(3, n_cells)), np.ones(n_cells)]),
    }


def _overlapping(random: np.random.Generator, n_groupings: int, n_cells: int, share: float) -> np.ndarray:
    return (random.random((n_groupings, n_cells)) < share).astype(np.float64)


def many_groupings(folder: Path) -> tuple[Arrays, Arrays]:
    """1,000 groupings, each of 1 % of the cells."""
    del folder
    random = np.random.default_rng(1)
    tiny = _expression(random, 60, 200) | {"groupings": _overlapping(random, 5, 200, 0.1)}
    return tiny, _expression(random, 6_300, 10_000) | {"groupings": _overlapping(random, 1_000, 10_000, 0.01)}


def low_moi(folder: Path) -> tuple[Arrays, Arrays]:
    """100 groupings without common cells, and three eighths of the cells in none."""
    del folder
    random = np.random.default_rng(2)

    def draw(n_genes: int, n_cells: int, n_groupings: int) -> Arrays:
        label = random.integers(0, n_groupings * 8 // 5, size=n_cells)
        groupings = (label == np.arange(n_groupings)[:, None]).astype(np.float64)
        return _expression(random, n_genes, n_cells) | {"groupings": groupings}

    return draw(60, 200, 10), draw(6_300, 10_000, 100)


def high_moi(folder: Path) -> tuple[Arrays, Arrays]:
    """400 groupings, each of 2 % of the cells."""
    del folder
    random = np.random.default_rng(3)
    tiny = _expression(random, 60, 200) | {"groupings": _overlapping(random, 5, 200, 0.1)}
    return tiny, _expression(random, 6_300, 10_000) | {"groupings": _overlapping(random, 400, 10_000, 0.02)}


def _counts(n_genes: int, n_cells: int, density: float) -> Arrays:
    """Counts with this share of non-zeros, as a dense array and as the parts of a sparse one, and 50 groupings."""
    random = np.random.default_rng(4)
    mean = random.gamma(1.0, 1.0, size=(n_genes, 1))
    depth = random.gamma(8.0, 1 / 8, size=n_cells)
    low, high = 1e-3, 1e3
    for _ in range(40):  # the factor at which 1 − exp(−factor · mean · depth) is the density, over all entries
        factor = np.sqrt(low * high)
        low, high = (factor, high) if -np.expm1(-factor * mean * depth[:200]).mean() < density else (low, factor)
    counts = random.poisson(factor * mean * depth)
    sparse = scipy.sparse.csc_array(counts)
    return {
        "counts": counts,
        "entries": sparse.data,
        "genes": sparse.indices,
        "offsets": sparse.indptr,
        "groupings": _overlapping(random, 50, n_cells, 0.02),
    }


def counts_of_a_quarter(folder: Path) -> tuple[Arrays, Arrays]:
    """25 % of the entries are not zero."""
    del folder
    return _counts(80, 300, 0.25), _counts(6_300, 10_000, 0.25)


def counts_of_few(folder: Path) -> tuple[Arrays, Arrays]:
    """7 % of the entries are not zero."""
    del folder
    return _counts(80, 300, 0.25), _counts(6_300, 10_000, 0.07)


def large_high_moi(folder: Path) -> tuple[Arrays, Arrays]:
    """Counts of 2,000 genes in 40,000 cells, 8 % not zero, and 5,000 groupings of 80 cells or so each."""
    del folder

    def draw(n_genes: int, n_cells: int, n_groupings: int, share: float) -> Arrays:
        counts = simulate_counts(n_genes, n_cells, seed=5, median_depth=0.12 * n_genes, decades=2.0).counts
        random = np.random.default_rng(6)
        groupings = scipy.sparse.random(n_groupings, n_cells, density=share, format="csc", random_state=random)
        parts = {"entries": counts.data, "genes": counts.indices, "offsets": counts.indptr}
        return parts | {"grouping_rows": groupings.indices, "grouping_offsets": groupings.indptr}

    return draw(100, 300, 6, 0.1), draw(2_000, 40_000, 5_000, 0.002)


def two_stores(folder: Path) -> tuple[Arrays, Arrays]:
    """Count stores of 10,000 genes, 8 % not zero, in 50,000 and in 200,000 cells."""
    simulated = simulate_counts(10_000, 10_000, seed=7, median_depth=1_500, decades=2.5)
    names = {}
    for name, n_cells in (("tiny", 1_000), ("few_cells", 50_000), ("many_cells", 200_000)):
        path = folder / f"{name}.zarr"
        write_store(path, simulated.counts, simulated.gene_names, n_cells)
        names[name] = np.array(str(path))
    return {"few_cells": names["tiny"], "many_cells": names["tiny"]}, names


def write_store(path: Path, counts: scipy.sparse.csc_array, gene_names: list[str], n_cells: int) -> None:
    """Write a store whose cells are those of the counts, thinned anew each time that they are repeated."""
    random = np.random.default_rng(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    obs = pd.DataFrame(index=[f"cell{number}" for number in range(n_cells)])
    with CountStoreWriter(path, obs=obs, var=pd.DataFrame(index=gene_names)) as writer:
        for start in range(0, n_cells, 1_000):
            block = counts[:, start % counts.shape[1] :][:, :1_000].copy()
            block.data = random.binomial(block.data, 0.9).astype(np.uint32)
            block.eliminate_zeros()
            writer.append(np.diff(block.indptr), block.indices, block.data)
        writer.finalise()


# ---- programs


def our_de(data: Arrays, single: int) -> Arrays:
    tested = nd.de(data["groupings"], data["expression"], data["covariates"], single=single, lowmem=False)
    names = [name for name in NAMES if name != "alpha"]
    return dict(zip(names, dask.compute(*(getattr(tested, name) for name in names)), strict=True))


def published_de(data: Arrays, single: int) -> Arrays:
    found = published.de(data["groupings"], data["expression"], data["covariates"], single=single, nth=N_CORES)
    return dict(zip(NAMES, found, strict=True)) | {"alpha": np.empty(0)}


def product_and_betainc(data: Arrays) -> Arrays:
    """Multiply as NumPy does, and take as many P-values as SciPy does, of whatever came out."""
    product = data["groupings"] @ data["expression"].T
    squares = product**2
    p_values = scipy.special.betainc(data["expression"].shape[1] / 2 - 3, 0.5, 1 - squares / squares.max())
    return {"product": p_values}


def our_chain(data: Arrays) -> Arrays:
    counts = _sparse(data, len(data["counts"]))
    return _chain(counts, data["groupings"])


def published_chain(data: Arrays) -> Arrays:
    log_cpm, _, _, summary = published.lcpm(data["counts"], nth=N_CORES)
    covariates = published.normcov(summary)
    weights, scaling = published.compute_var(log_cpm, covariates), published.scaling_factor(data["counts"])
    normalised = published.normvar(log_cpm, covariates, weights, scaling, nth=N_CORES)
    found = published.de(data["groupings"], *normalised, nth=N_CORES)
    return dict(zip(NAMES, found, strict=True)) | {"alpha": np.empty(0)}


def our_large_high_moi(data: Arrays) -> Arrays:
    counts = _sparse(data, int(data["genes"].max()) + 1)
    rows, offsets = data["grouping_rows"], data["grouping_offsets"]
    groupings = scipy.sparse.csc_array((np.ones(rows.size), rows, offsets), shape=(rows.max() + 1, offsets.size - 1))
    return _chain(counts, groupings, single=4)


def few_cells_of_a_store(data: Arrays) -> Arrays:
    return _store_chain(data["few_cells"])


def many_cells_of_a_store(data: Arrays) -> Arrays:
    return _store_chain(data["many_cells"])


def _store_chain(path: np.ndarray) -> Arrays:
    counts = nd.open_counts(str(path))
    return _chain(counts.matrix, _overlapping(np.random.default_rng(9), 200, counts.shape[1], 0.005))


def _sparse(data: Arrays, n_genes: int) -> scipy.sparse.csc_array:
    shape = (n_genes, data["offsets"].size - 1)
    return scipy.sparse.csc_array((data["entries"], data["genes"], data["offsets"]), shape=shape)


def _chain(counts, groupings, single: int = 0) -> Arrays:
    log_cpm = nd.lcpm(counts)
    covariates = nd.normcov(log_cpm.cov)
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    expression, covariates = nd.normvar(log_cpm.lcpm, covariates, weights, nd.scaling_factor(counts))
    tested = nd.de(scipy.sparse.csr_array(groupings), expression, covariates, single=single)
    names = ("pvalue", "gamma", "varg", "vart")
    return dict(zip(names, dask.compute(*(getattr(tested, name) for name in names)), strict=True))


# ---- comparisons


def same_tests(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Compare with normalisr."""
    del data
    vart = np.broadcast_to(theirs["vart"], ours["vart"].shape)  # of single=0 it has one row for all groupings
    expected = theirs | {"vart": vart}
    worst = log_p_difference(expected["pvalue"], ours["pvalue"]) / P_TOLERANCE
    for name in ("gamma", "varg", "vart"):
        error = float(np.abs(ours[name] - expected[name]).max() / np.abs(expected[name]).max())
        worst = max(worst, error / TOLERANCE)
    return worst


def same_regressions(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Compare some genes with residuals by least squares and P-values by SciPy."""
    del theirs
    some = np.arange(0, len(data["expression"]), max(1, len(data["expression"]) // 20))
    genes, groupings = (_residual(data[name], data["covariates"]) for name in ("expression", "groupings"))
    genes = genes[some]
    varg, vart = (groupings**2).mean(axis=1), (genes**2).mean(axis=1)
    gamma = groupings @ genes.T / groupings.shape[1] / varg[:, None]
    degrees = groupings.shape[1] - 1 - len(data["covariates"])
    expected = scipy.special.betainc(degrees / 2, 0.5, 1 - gamma**2 * varg[:, None] / vart)
    worst = log_p_difference(expected, ours["pvalue"][:, some]) / P_TOLERANCE
    return max(worst, float(np.abs(ours["gamma"][:, some] - gamma).max() / np.abs(gamma).max()) / TOLERANCE)


def _residual(rows: np.ndarray, covariates: np.ndarray) -> np.ndarray:
    return rows - np.linalg.lstsq(covariates.T, rows.T)[0].T @ covariates


def sound(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Check that P-values are numbers from 0 to 1 and that few are small, as there is nothing to find."""
    del data, theirs
    pvalue = ours["pvalue"]
    is_sound = np.isfinite(pvalue).all() and ((pvalue >= 0) & (pvalue <= 1)).all()
    return abs(float((pvalue < 0.05).mean()) - 0.05) / 0.02 if is_sound else np.inf


DE_DATA = {
    "many groupings": many_groupings,
    "low MOI": low_moi,
    "high MOI": high_moi,
    "counts, 25 %": counts_of_a_quarter,
    "counts, 7 %": counts_of_few,
    "counts, large high MOI": large_high_moi,
    "two stores": two_stores,
}
DE_LINES = {
    "de-ignore": Line(
        "many groupings",
        "Y @ X.T, P",
        {OURS: lambda data: our_de(data, 0), "Y @ X.T, P": product_and_betainc},
        same_regressions,
        goal=1 / 0.7,
        blas_threads=N_CORES,
    ),
    "de-exclude": Line(
        "low MOI",
        "normalisr",
        {OURS: lambda data: our_de(data, 1), "normalisr": lambda data: published_de(data, 1)},
        same_tests,
        goal=30.0,
    ),
    "de-covariates": Line(
        "high MOI",
        "normalisr",
        {OURS: lambda data: our_de(data, 4), "normalisr": lambda data: published_de(data, 4)},
        same_tests,
        goal=30.0,
    ),
    "chain-25": Line(
        "counts, 25 %", "normalisr", {OURS: our_chain, "normalisr": published_chain}, same_tests, goal=8.0
    ),
    "chain-7": Line("counts, 7 %", "normalisr", {OURS: our_chain, "normalisr": published_chain}, same_tests, goal=20.0),
    "chain-store": Line(
        "two stores",
        "a quarter",
        {OURS: many_cells_of_a_store, "a quarter": few_cells_of_a_store},
        sound,
        goal=1 / 4.3,
    ),
    "de-covariates-large": Line(
        "counts, large high MOI", OURS, {OURS: our_large_high_moi}, sound, goal=1.0, megabytes=BOUND_MEGABYTES
    ),
}
