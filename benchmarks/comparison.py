"""This package beside normalisr, scanpy, pertpy, pysceptre (a port of sceptre), pylimma and limma, on real data.

    pip install normalisr==1.0.0 pylimma==0.2.0 scanpy pertpy pysceptre "statsmodels<0.15"  # for pertpy 1.0
    apt-get install r-bioc-limma r-cran-statmod
    NORMALISR_DASK_TEST_DATA=FOLDER python benchmarks/comparison.py --json docs/benchmarks/comparison.json
    python benchmarks/comparison.py --works "low-MOI screen" --programs normalisr-dask pysceptre

Works: differential expression of the cell types of pbmc3k, each against all other cells; P-values and network of all
pairs of its genes; the low-MOI screen of Papalexi et al. (2021), targets against non-targeting guides; linear models
of arrays of bladder cancer with correlated batches. All programs get the same cells and genes, two cores, and their
defaults. Every measurement is a process of its own; a first call on a small part of the data, for imports and
compilation, does not count. Programs do different tests, so beside times stands what comes out: hits at Q ≤ 0.05
(Benjamini-Hochberg over all tests, for all programs alike), and hits where there is nothing to find, with labels
permuted, or with one non-targeting guide against the others. Where two programs do the same, the difference of their
results is given. A program that is not installed is left out.
"""

import argparse
import io
import json
import os
import pickle
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import scipy.io
import scipy.sparse
import scipy.stats
from association import tree_bytes
from association_lines import log_p_difference
from comparison_programs import N_CORES, OF_BLOCKS, OF_CELLS, OF_PAIRS, OF_WEIGHTS, Cells, Tests

import normalisr_dask as nd
from normalisr_dask.kernels.p_adjustment import adjust

OURS = "normalisr-dask"
QCUT = 0.05
TOP = 20
#: Of the genes of arrays every fourth is taken, or the other programs would take most of the time.
EVERY = 4
NON_TARGETING = "non-targeting"
#: These are for perturbations.
NOT_FOR_CELL_TYPES = ("pertpy, t-test", "pertpy, Wilcoxon", "pysceptre")
MEGABYTE = 1e6
PACKAGES = (
    "normalisr-dask",
    "normalisr",
    "scanpy",
    "pertpy",
    "pysceptre",
    "pylimma",
    "numpy",
    "scipy",
    "dask",
    "numba",
)
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """One thing that several programs do.

    Attributes
    ----------
    data
        Makes all of the data, a small part, and what else to try without timing, by name.
    programs
        By name.
    judge
        What is told of a program's results, from the data, its results and ours.
    """

    data: Callable[[Path], tuple[Any, Any, dict[str, Any]]]
    programs: dict[str, Callable[[Any], Tests]]
    judge: Callable[[Any, dict[str, Tests], dict[str, Tests]], Numbers]


# ---- data


def pbmc3k(folder: Path) -> Cells:
    """Cells and genes that pass this package's quality control, with their published cell types."""
    with tarfile.open(folder / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        files = {
            name: archive.extractfile(f"filtered_gene_bc_matrices/hg19/{name}").read()  # type: ignore[union-attr]
            for name in ("matrix.mtx", "genes.tsv")
        }
    counts = scipy.sparse.csc_array(scipy.io.mmread(io.BytesIO(files["matrix.mtx"])))
    names = np.array([line.split("\t")[0] for line in files["genes.tsv"].decode().splitlines()], dtype=object)
    labels = pd.read_csv(folder / "pbmc3k_cell_types.tsv", sep="\t", keep_default_na=False)["cell_type"].to_numpy(
        object
    )
    genes, cells = nd.qc_reads(counts, 0, 50, 0.02, 500, 100, 0)
    return Cells(
        scipy.sparse.csc_array(counts[genes][:, cells]), names[genes], labels[cells], sorted(set(labels[cells]))
    )


def cell_types(folder: Path) -> tuple[Cells, Cells, dict[str, Cells]]:
    whole = pbmc3k(folder)
    permuted = replace(whole, labels=np.random.default_rng(0).permutation(whole.labels))
    return whole, replace(whole, counts=whole.counts[:300], genes=whole.genes[:300]), {"permuted": permuted}


def expression_of_pairs(folder: Path) -> tuple[Numbers, Numbers, dict[str, Any]]:
    counts = pbmc3k(folder).counts
    log_cpm = nd.lcpm(counts)
    covariates = nd.normcov(log_cpm.cov)
    weights = nd.compute_var(log_cpm.lcpm, covariates)
    expression, covariates = dask.compute(*nd.normvar(log_cpm.lcpm, covariates, weights, nd.scaling_factor(counts)))
    whole = {"expression": expression, "covariates": covariates}
    return whole, whole | {"expression": expression[:300]}, {}


def screen(folder: Path) -> tuple[Cells, Cells, dict[str, Cells]]:
    """Cells of which one guide has 5 molecules or more, and four fifths of all; the guides' targets are the labels."""
    folder /= "papalexi_lowmoi"
    table = pd.read_csv(folder / "cells.tsv.gz", sep="\t", keep_default_na=False)
    chosen = np.flatnonzero((table["top_grna_umis"] >= 5) & (table["top_grna_fraction"] >= 0.8))
    table = table.iloc[chosen]
    labels = table["top_grna_target"].to_numpy(object)
    replicates = pd.get_dummies(table["bio_rep"]).to_numpy(dtype=np.float64).T[1:]
    whole = Cells(
        scipy.sparse.csc_array(scipy.io.mmread(folder / "genes.mtx.gz"))[:, chosen],
        np.array((folder / "gene_names.txt").read_text().split(), dtype=object),
        labels,
        sorted(set(labels) - {NON_TARGETING}),
        reference=NON_TARGETING,
        library=table["response_n_umis"].to_numpy(),
        covariates=np.vstack([table["p_mito"].to_numpy(), replicates]),
    )
    guides = table["top_grna"].to_numpy(object)
    without_effect = np.flatnonzero(labels == NON_TARGETING)
    of_guide = {
        f"control {guide}": replace(whole, labels=np.where(guides == guide, guide, NON_TARGETING), tested=[guide]).of(
            without_effect
        )
        for guide in sorted(set(guides[without_effect]))
    }
    some = np.flatnonzero(np.isin(labels, [*whole.tested[:3], NON_TARGETING]))
    return whole, replace(whole, tested=whole.tested[:3]).of(some), of_guide


def arrays(folder: Path) -> tuple[Numbers, Numbers, dict[str, Any]]:
    expression = pd.read_csv(folder / "bulk" / "bladderbatch_expr.csv.gz", index_col=0).to_numpy(dtype=np.float64)
    expression = expression[::EVERY]
    samples = pd.read_csv(folder / "bulk" / "bladderbatch_samples.csv", index_col=0)
    design = np.column_stack([np.ones(len(samples)), *(samples["cancer"] == level for level in ("Cancer", "Biopsy"))])
    whole = {"expression": expression, "design": design.astype(float), "block": samples["batch"].astype(str).to_numpy()}
    return whole, whole | {"expression": expression[:300]}, {}


# ---- what is told of results


def judge_cells(data: Cells, found: dict[str, Tests], ours: dict[str, Tests]) -> Numbers:
    """Tell hits, where there is something to find and where not, and how alike the top genes are to ours."""
    told: Numbers = {"tests": int(np.isfinite(found["whole"]["p"]).sum())} | hits_of(found["whole"]["p"], "hits")
    own = [(row, list(data.genes).index(name)) for row, name in enumerate(data.tested) if name in data.genes]
    if own:
        q_values = adjust(found["whole"]["p"].ravel(), "BH").reshape(found["whole"]["p"].shape)
        is_found = [q_values[pair] <= QCUT and found["whole"]["effect"][pair] < 0 for pair in own]
        told["targets whose own gene falls"] = f"{sum(is_found)} of {len(own)}"
    without = np.concatenate([tests["p"].ravel() for name, tests in found.items() if name != "whole"])
    known = without[np.isfinite(without)]
    told |= hits_of(without, "hits without effects")
    told["genomic inflation without effects"] = float(
        scipy.stats.chi2.isf(np.median(known), 1) / scipy.stats.chi2.median(1)
    )
    tops = [np.argsort(np.nan_to_num(tests["whole"]["p"], nan=2.0), axis=1)[:, :TOP] for tests in (found, ours)]
    told[f"share of our {TOP} top genes"] = float(
        np.mean([len(set(a) & set(b)) / TOP for a, b in zip(*tops, strict=True)])
    )
    return told


def hits_of(p_values: np.ndarray, name: str) -> Numbers:
    return {name: int(np.count_nonzero(adjust(p_values.ravel(), "BH") <= QCUT))}


def judge_pairs(data: Numbers, found: dict[str, Tests], ours: dict[str, Tests]) -> Numbers:
    del data
    n_genes = len(found["whole"]["p"])
    return {
        "pairs": n_genes * (n_genes - 1) // 2,
        "edges": int(found["whole"]["network"].sum()),
        "largest difference of log P to ours": log_p_difference(found["whole"]["p"], ours["whole"]["p"]),
    }


def judge_models(data: Numbers, found: dict[str, Tests], ours: dict[str, Tests]) -> Numbers:
    del data
    t, our_t = found["whole"]["t"], ours["whole"]["t"]
    told = {"tests": t.size} | hits_of(found["whole"]["p"], "hits")
    return told | {"largest difference of t to ours": float(np.max(np.abs(t - our_t) / np.maximum(1, np.abs(our_t))))}


WORKS = {
    "pbmc3k: cell types": Work(
        cell_types, {name: run for name, run in OF_CELLS.items() if name not in NOT_FOR_CELL_TYPES}, judge_cells
    ),
    "pbmc3k: pairs of genes": Work(expression_of_pairs, OF_PAIRS, judge_pairs),
    "low-MOI screen": Work(screen, OF_CELLS, judge_cells),
    "samples in blocks": Work(arrays, OF_BLOCKS, judge_models),
    "samples in blocks with weights": Work(arrays, OF_WEIGHTS, judge_models),
}


# ---- measuring


def measure(work: str, program: str, folder: Path) -> None:
    """Run a program on data that are there, and leave its results; in a process of its own."""
    run = WORKS[work].programs[program]
    whole, small, others = pickle.loads((folder / "data").read_bytes())
    warnings.simplefilter("ignore")
    run(small)
    start = time.perf_counter()
    found = {"whole": run(whole)}
    seconds = time.perf_counter() - start
    seconds = float(found["whole"].pop("seconds", seconds))
    (folder / "seconds").write_text(json.dumps(seconds))
    found |= {name: run(data) for name, data in others.items()}
    (folder / f"{program}.found").write_bytes(pickle.dumps(found))


def measured(work: str, program: str, folder: Path) -> Numbers:
    """Measure in a process of its own; return seconds, and the peak memory of all its processes."""
    threads = {f"{library}_NUM_THREADS": str(N_CORES) for library in ("OPENBLAS", "OMP", "MKL", "NUMBA")}
    command = [sys.executable, __file__, "--measure", work, program, str(folder)]
    peak = 0
    environment = {**os.environ, **threads}
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(0.1)
    if process.returncode:
        msg = f"{program} has failed at {work}: {(folder / 'errors').read_text()[-2000:]}"
        raise SystemExit(msg)
    return {"seconds": json.loads((folder / "seconds").read_text()), "peak megabytes": peak / MEGABYTE}


def is_installed(program: str) -> bool:
    """Whether the package of a program, its first word, is there."""
    if program == "limma in R":
        return which("Rscript") is not None
    try:
        version(program.partition(",")[0])
    except PackageNotFoundError:
        return False
    return True


def benchmark(name: str, programs: list[str] | None, repeats: int, data: Path) -> dict[str, Numbers]:
    """Return what is told of every program."""
    work = WORKS[name]
    chosen = [program for program in work.programs if (not programs or program in programs) and is_installed(program)]
    chosen.sort(key=lambda program: program != OURS)
    told = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = work.data(data)
        (folder / "data").write_bytes(pickle.dumps(made))
        for program in chosen:
            runs = [measured(name, program, folder)]
            while len(runs) < repeats:
                runs.append(measured(name, program, folder))
            found = pickle.loads((folder / f"{program}.found").read_bytes())
            if program == OURS:
                ours = found
            numbers = {quantity: float(np.median([run[quantity] for run in runs])) for quantity in runs[0]}
            told[program] = numbers | work.judge(made[0], found, ours)
            print(f"{name}, {program}: {json.dumps(told[program])}", flush=True)
    return told


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES if is_installed(name)}
    if is_installed("limma in R"):
        asked = ["Rscript", "-e", 'cat(as.character(packageVersion("limma")), as.character(getRversion()))']
        limma, r = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()
        found |= {"limma": limma, "R": r}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--programs", nargs="+", help=f"only these, and {OURS}")
    parser.add_argument("--repeats", type=int, default=1, help="medians of so many runs")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        work, program, folder = arguments.measure
        measure(work, program, Path(folder))
        return
    data = os.environ.get("NORMALISR_DASK_TEST_DATA")
    if not data:
        msg = "expected a folder with the real data in NORMALISR_DASK_TEST_DATA, found none"
        raise SystemExit(msg)
    programs = arguments.programs and [OURS, *arguments.programs]
    about = {
        "machine": {
            "processor": platform.machine(),
            "cores used": N_CORES,
            "memory gigabytes": round(psutil.virtual_memory().total / 1e9),
        },
        "versions": versions(),
    }
    told = {name: benchmark(name, programs, arguments.repeats, Path(data)) for name in arguments.works}
    if arguments.json:
        arguments.json.write_text(json.dumps(about | told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
