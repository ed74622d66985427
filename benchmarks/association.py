"""Time and peak memory of the association tests beside normalisr 1.0.0 and plain NumPy, in one run on 2 cores.

    python benchmarks/association.py                                  every line
    python benchmarks/association.py --lines coex-float64             some of them
    python benchmarks/association.py --json association.json          also as JSON

A line compares this package with another program on the same data: normalisr with nth=2 and one BLAS thread, as it is
fastest here, or NumPy's X @ X.T with two BLAS threads. This package gets two threads of Dask, BLAS with one. Inputs are
NumPy arrays, and a time is that of the results as NumPy arrays.

pbmc3k is read from the folder that NORMALISR_DASK_TEST_DATA names, goes through qc_reads with the bounds of the command
line, and through normalisr's own normalisation. Every measurement runs in a fresh process, after a first call on tiny
data, so that imports and compilation do not count. A first run of each program gives its results and peak memory;
results that differ end the benchmark with exit code 1 before any time is taken. Then the programs take turns, and
ratios are of medians. Beside other work on the same machine, repeat before you believe.

To add a line, write how its data are made, what each program does with them, and what it must come to: see LINES.
"""

import argparse
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import numpy as np
import psutil
import scipy.io
import scipy.sparse
import scipy.special
from association_de import DE_DATA, DE_LINES
from association_lines import EXACT_P, N_CORES, OURS, P_TOLERANCE, TOLERANCE, Arrays, Line, log_p_difference, published
from association_run import RUN_DATA, RUN_LINES

import normalisr_dask as nd
from normalisr_dask.testing import simulate_counts

SAMPLE_SECONDS = 0.05
MEGABYTE = 1e6
TOUCHED_BYTES = 3 << 30
#: Q-value of the network.
QCUT = 0.05

# ---- data: every function may write files to a folder, and returns the arrays of the tiny and of the whole set


def simulated_expression(folder: Path) -> tuple[Arrays, Arrays]:
    """Normal expression of 6,300 genes in modules of 30, 10,000 cells, and four covariates."""
    del folder

    def draw(n_genes: int, n_cells: int) -> Arrays:
        random = np.random.default_rng(0)
        modules = random.normal(size=(max(1, n_genes // 30), n_cells))
        expression = random.normal(size=(n_genes, n_cells))
        expression += 0.3 * modules[np.arange(n_genes) % len(modules)]
        return {
            "expression": expression,
            "covariates": np.vstack([random.normal(size=(3, n_cells)), np.ones(n_cells)]),
        }

    return draw(60, 80), draw(6_300, 10_000)


def pbmc3k_expression(folder: Path) -> tuple[Arrays, Arrays]:
    """Normalised expression and covariates of pbmc3k, by normalisr."""
    del folder
    real_data = os.environ.get("NORMALISR_DASK_TEST_DATA")
    if not real_data:
        msg = "expected a folder with the real data in NORMALISR_DASK_TEST_DATA, found none; or choose other --lines"
        raise SystemExit(msg)
    with tarfile.open(Path(real_data) / "pbmc3k_filtered_gene_bc_matrices.tar.gz") as archive:
        member = archive.extractfile("filtered_gene_bc_matrices/hg19/matrix.mtx")
        reads = scipy.sparse.csc_array(scipy.io.mmread(io.BytesIO(member.read() if member else b"")))
    genes, cells = nd.qc_reads(reads, 0, 50, 0.02, 500, 100, 0)
    tiny = simulate_counts(60, 80, seed=0, median_depth=600, decades=2.0).counts
    return published_expression(tiny), published_expression(scipy.sparse.csc_array(reads[genes][:, cells]))


def published_expression(counts: scipy.sparse.csc_array) -> Arrays:
    dense = counts.toarray().astype(np.int64)
    log_cpm, _, _, summary = published.lcpm(dense, nth=N_CORES)
    covariates = published.normcov(summary)
    weights, scaling = published.compute_var(log_cpm, covariates), published.scaling_factor(dense)
    expression, covariates = published.normvar(log_cpm, covariates, weights, scaling, nth=N_CORES)
    return {"expression": expression, "covariates": covariates}


DATA: dict[str, Callable[[Path], tuple[Arrays, Arrays]]] = (
    DE_DATA
    | RUN_DATA
    | {
        "simulated expression": simulated_expression,
        "pbmc3k expression": pbmc3k_expression,
    }
)


# ---- programs


def published_network(data: Arrays) -> Arrays:
    pvalue, dot, var = published.coex(data["expression"], data["covariates"], nth=N_CORES)
    return {"pvalue": pvalue, "dot": dot, "var": var, "network": published.binnet(pvalue, QCUT)}


def our_network(data: Arrays) -> Arrays:
    pvalue, dot, var = nd.coex(data["expression"], data["covariates"])
    names = ("pvalue", "dot", "var", "network")
    return dict(zip(names, dask.compute(pvalue, dot, var, nd.binnet(pvalue, QCUT)), strict=True))


def numpy_product(data: Arrays) -> Arrays:
    return {"product": data["expression"] @ data["expression"].T}


def our_coex(data: Arrays) -> Arrays:
    return dict(zip(("pvalue", "dot", "var"), dask.compute(*nd.coex(*data.values())), strict=True))


def our_coex_float32(data: Arrays) -> Arrays:
    return dict(zip(("pvalue", "dot", "var"), dask.compute(*nd.coex(*data.values(), dtype="float32")), strict=True))


# ---- comparisons: the largest difference, over what is allowed


def same_network(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Compare with normalisr; an edge may differ where Q is the cut to 1e-6."""
    del data
    worst = log_p_difference(theirs["pvalue"], ours["pvalue"]) / P_TOLERANCE
    for name in ("dot", "var"):
        worst = max(worst, float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()) / TOLERANCE)
    share_of_other_edges = float((theirs["network"] != ours["network"]).mean())
    return max(worst, share_of_other_edges / 1e-6)


def same_correlations(
    data: Arrays,
    theirs: Arrays,
    ours: Arrays,
    *,
    tolerance: float = 1e-10,
    p_tolerance: float = P_TOLERANCE,
    nearly_one: float = EXACT_P[1],
) -> float:
    """Compare some genes with residuals by least squares and P-values by SciPy."""
    del theirs
    expression, covariates = data["expression"], data["covariates"]
    residual = expression - np.linalg.lstsq(covariates.T, expression.T)[0].T @ covariates
    some = np.arange(0, len(expression), max(1, len(expression) // 40))
    norms = np.linalg.norm(residual, axis=1)
    correlation = residual[some] @ residual.T / np.outer(norms[some], norms)
    found = ours["dot"][some] / np.sqrt(np.outer(ours["var"][some], ours["var"]))
    others = np.ones(correlation.shape, dtype=bool)
    others[np.arange(some.size), some] = False
    worst = float(np.abs(found - correlation)[others].max()) / tolerance
    degrees = expression.shape[1] - 1 - np.linalg.matrix_rank(covariates)
    expected = scipy.special.betainc(degrees / 2, 0.5, 1 - correlation[others] ** 2)
    return max(worst, log_p_difference(expected, ours["pvalue"][some][others], nearly_one) / p_tolerance)


def same_correlations_float32(data: Arrays, theirs: Arrays, ours: Arrays) -> float:
    """Compare as exactly as residuals of single precision allow."""
    return same_correlations(data, theirs, ours, tolerance=1e-6, p_tolerance=1e-4, nearly_one=0.1)


LINES = (
    {
        "coex-binnet-pbmc3k": Line(
            "pbmc3k expression",
            "normalisr",
            {OURS: our_network, "normalisr": published_network},
            same_network,
            goal=8.0,
        ),
        "coex-float64": Line(
            "simulated expression",
            "X @ X.T",
            {OURS: our_coex, "X @ X.T": numpy_product},
            same_correlations,
            goal=1 / 1.35,
            blas_threads=N_CORES,
        ),
        "coex-float32": Line(
            "simulated expression",
            "X @ X.T",
            {OURS: our_coex_float32, "X @ X.T": numpy_product},
            same_correlations_float32,
            goal=1 / 0.9,
            blas_threads=N_CORES,
        ),
    }
    | DE_LINES
    | RUN_LINES
)


# ---- measuring


def run_child(line: str, program: str, folder: Path, results: Path | None) -> None:
    """Run a program on the tiny and the whole data, print seconds, and write the results of the last."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    dask.config.set(scheduler="threads", num_workers=N_CORES)
    seconds, found = [], {}
    for size in ("tiny", "whole"):
        data = read_arrays(folder / size)
        if not results:
            touch_memory()
        start = time.perf_counter()
        found = LINES[line].programs[program](data)
        seconds.append(time.perf_counter() - start)
    if results:
        write_arrays(results, found)
    print(json.dumps({"first_call": seconds[0], "seconds": seconds[1]}))


def touch_memory() -> None:
    """Use and free memory, so that the operating system has it at hand: here it takes longer than to compute on it."""
    n_bytes = min(TOUCHED_BYTES, psutil.virtual_memory().available / 2)
    np.empty(int(n_bytes), dtype=np.uint8).fill(1)


def measure(line: str, program: str, folder: Path, results: Path | None = None) -> dict[str, float]:
    """Run a program in a fresh process; sample its memory where its results are asked for: sampling takes time."""
    command = [sys.executable, __file__, "--child", line, program, str(folder), *([str(results)] if results else [])]
    n_threads = "1" if program == OURS else str(LINES[line].blas_threads)
    environment = os.environ | {"OPENBLAS_NUM_THREADS": n_threads, "OMP_NUM_THREADS": n_threads}
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        while results and process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(SAMPLE_SECONDS)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(process.returncode)
    return json.loads(output) | {"peak_megabytes": peak / MEGABYTE}


def tree_bytes(pid: int) -> int:
    """Memory of a process and its children; pages that they share count once."""
    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    except psutil.NoSuchProcess:
        pass
    return total


def write_arrays(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def read_arrays(folder: Path) -> Arrays:
    """Read arrays in the order in which they were written, which is that of the programs' arguments."""
    paths = sorted(folder.glob("*.npy"), key=lambda path: path.stat().st_mtime_ns)
    return {path.stem: np.load(path) for path in paths}


def benchmark(name: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Compare the results of a line's programs, then time them."""
    line = LINES[name]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        first = {program: measure(name, program, folder, Path(scratch) / program) for program in line.programs}
        theirs, ours = (read_arrays(Path(scratch) / program) for program in (line.against, OURS))
        difference = line.compare(read_arrays(folder / "whole"), theirs, ours)
        del theirs, ours
    if not difference <= 1:
        msg = f"{name}: results are {difference:.3g} tolerances away from those of {line.against}"
        raise SystemExit(msg)
    runs: dict[str, list[dict[str, float]]] = {program: [] for program in line.programs}
    for _ in range(repeats):
        for program in line.programs:
            runs[program].append(measure(name, program, folder))
    seconds = {program: statistics.median(run["seconds"] for run in measured) for program, measured in runs.items()}
    ratio = seconds[line.against] / seconds[OURS]
    return {
        "line": name,
        "against": line.against,
        "difference_over_tolerance": difference,
        "seconds": seconds,
        "all_seconds": {program: [run["seconds"] for run in measured] for program, measured in runs.items()},
        "peak_megabytes": {program: run["peak_megabytes"] for program, run in first.items()},
        "ratio": ratio,
        "goal": line.goal,
        "megabytes": line.megabytes,
        "passes": ratio >= line.goal and first[OURS]["peak_megabytes"] <= (line.megabytes or np.inf),
    }


def show(record: dict[str, Any]) -> None:
    """Print a line: seconds, how many times as fast, and what is asked for."""
    against, seconds = record["against"], record["seconds"]
    print(
        f"{record['line']:<20} {seconds[OURS]:>8.2f} s  {against:<10} {seconds[against]:>8.2f} s  "
        f"{record['ratio']:>6.2f}×  goal {record['goal']:>5.2f}×  {'PASS' if record['passes'] else 'short'}  "
        f"{record['peak_megabytes'][OURS]:>7.0f} MB  {record['peak_megabytes'][against]:>7.0f} MB",
        flush=True,
    )


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are written (removed afterwards)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        line, program, folder, *results = arguments.child
        run_child(line, program, Path(folder), Path(results[0]) if results else None)
        return

    logging.disable(logging.CRITICAL)
    records = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        for name in arguments.lines:
            folder = Path(scratch) / LINES[name].data.replace(" ", "-")
            if not folder.exists():
                for size, arrays in zip(("tiny", "whole"), DATA[LINES[name].data](folder), strict=True):
                    write_arrays(folder / size, arrays)
            records.append(benchmark(name, folder, arguments.repeats))
            show(records[-1])
    if arguments.json:
        packages = ("normalisr", "normalisr-dask", "numpy", "scipy", "numba", "dask")
        versions = {"python": platform.python_version()} | {package: version(package) for package in packages}
        about = {"machine": platform.machine(), "versions": versions, "cores": N_CORES, "repeats": arguments.repeats}
        arguments.json.write_text(json.dumps(about | {"results": records}, indent=2) + "\n")


if __name__ == "__main__":
    main()
